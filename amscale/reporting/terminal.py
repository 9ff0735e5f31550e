"""The console that commands print to, the status of a trial, and the trials of a sweep as a table."""

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amscale.errors import EXIT_UNREAD, one_line
from amscale.settings import counted
from amscale.streams import discard_output
from amscale.trials.metrics import MetricsRecord, TrainRecord, ValidationRecord
from amscale.trials.trial_store import TrialStore

RUNNING_SECONDS = 60.0
"""A trial whose metrics changed this recently counts as running."""


@dataclass(frozen=True)
class TrialStatus:
    """State, step and losses of one trial.

    `state` is finished or diverged (with a result), running, failed, stopped or waiting (without one). `remark` is why
    a trial diverged or failed.
    """

    label: str
    state: str
    step: int
    steps: int | None
    train_loss: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    remark: str = ""


def trial_status(folder: TrialStore) -> TrialStatus:
    """Read the status of a trial: from its result if it has one, from its metrics otherwise."""
    result = folder.read_result()
    if result is not None:
        # Of a user's own script only the time from its start to its end is known.
        seconds = (result.time.device_seconds or 0.0) / result.engine.world_size or result.time.wall_seconds
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
    changed = folder.metrics.stat().st_mtime if folder.metrics.is_file() else 0.0
    running = time.time() - changed < RUNNING_SECONDS and not folder.preempted.exists()
    state = "running" if running else "failed" if failures else "stopped" if last else "waiting"
    state = "waiting" if folder.waits_on_branch() else state
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


_FILE_WIDTH = 132


class _Output(Console):
    """Standard output; where nobody reads it any more, the command ends without another word."""

    def on_broken_pipe(self) -> None:
        """End the command."""
        discard_output()
        sys.exit(EXIT_UNREAD)


def make_console() -> Console:
    """Return the terminal at its own width; a pipe or a file wide enough that no table is cut."""
    console = _Output()
    return console if console.is_terminal else _Output(width=_FILE_WIDTH)


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print `text` as it is: no markup, no highlighting, no line breaks."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def status_rows(folders: Sequence[TrialStore]) -> list[dict[str, Any]]:
    """Return the status of each trial as plain data."""
    return [asdict(trial_status(folder)) for folder in folders]


def print_results(folders: Sequence[TrialStore], console: Console) -> None:
    """Print the status of every trial as a table, and below it why trials failed or diverged."""
    if not folders:
        print_line(
            console, "no trial yet: a sweep that begins plans first; where none runs, the same command begins it"
        )
        return
    table = Table(title=counted(len(folders), "trial"), title_justify="left")
    for heading in ("trial", "state", "steps", "train loss", "validation loss", "tokens/s"):
        table.add_column(heading, justify="left" if heading in ("trial", "state") else "right", no_wrap=True)
    rows = [trial_status(folder) for folder in folders]
    for row in rows:
        table.add_row(
            Text(row.label),
            Text(row.state),
            f"{row.step:,}",
            _loss(row.train_loss),
            _loss(row.validation_loss),
            f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "",
        )
    console.print(table)
    for row in rows:
        if row.remark:
            print_line(console, f"{row.label}: {row.state}: {row.remark}")


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
