"""The console that commands print to.

The trials of a sweep as a table: what is done, what runs, what failed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amscale.errors import one_line
from amscale.trials.metrics import MetricsRecord, TrainRecord, ValidationRecord
from amscale.trials.store import TrialStore

_PLAIN_WIDTH = 132


def make_console() -> Console:
    """The terminal at its own width; a pipe or a file wide enough that no table is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


_RUNNING_SECONDS = 60.0
"""A trial whose metrics were touched this recently counts as running."""


@dataclass(frozen=True)
class TrialStatus:
    """Where one trial stands, from its folder."""

    label: str
    state: str
    step: int
    steps: int | None
    train_loss: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    remark: str = ""


def trial_status(folder: TrialStore) -> TrialStatus:
    """Read where a trial stands: from its result if it has one, from its metrics otherwise."""
    result = folder.read_result()
    if result is not None:
        seconds = (result.time.device_seconds or 0.0) / result.engine.world_size
        return TrialStatus(
            label=folder.path.name,
            state=result.state,
            step=result.steps,
            steps=result.steps,
            train_loss=result.losses.train_last,
            validation_loss=result.losses.validation_least,
            tokens_per_second=(result.data.tokens_seen or 0) / seconds if seconds else None,
            remark=one_line(result.reason or ""),
        )
    last: TrainRecord | None = None
    validation = None
    for record in folder.read_metrics(MetricsRecord):
        if isinstance(record, TrainRecord):
            last = record
        elif isinstance(record, ValidationRecord):
            validation = record.loss
    failures = folder.failures()
    touched = folder.metrics.stat().st_mtime if folder.metrics.is_file() else 0.0
    running = time.time() - touched < _RUNNING_SECONDS
    state = "running" if running else "failed" if failures else "stopped" if last else "waiting"
    return TrialStatus(
        label=folder.path.name,
        state=state,
        step=last.step if last else 0,
        steps=None,
        train_loss=last.loss if last else None,
        validation_loss=validation,
        tokens_per_second=last.tokens / last.time if last and last.time and last.tokens is not None else None,
        remark=one_line(failures[-1].reason.strip().partition("\n")[0]) if failures else "",
    )


def print_results(folders: Sequence[TrialStore], console: Console) -> None:
    """Print one row a trial, and a count by state."""
    table = Table(title=f"{len(folders)} trials", title_justify="left")
    for heading in ("trial", "state", "steps", "train loss", "validation loss", "tokens/s"):
        table.add_column(heading, justify="left" if heading in ("trial", "state") else "right", no_wrap=True)
    rows = [trial_status(folder) for folder in folders]
    for row in rows:
        table.add_row(
            Text(row.label),
            Text(row.state),
            f"{row.step:,}",
            _number(row.train_loss),
            _number(row.validation_loss),
            f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "",
        )
    console.print(table)
    for row in rows:
        if row.remark:
            text = f"{row.label}: {row.state}: {row.remark}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)


def _number(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"
