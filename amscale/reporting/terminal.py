"""The console that commands print to, and the trials of a sweep as a table on it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amscale.reporting.trial_status import trial_status
from amscale.trials.store import TrialStore

_FILE_WIDTH = 132


def make_console() -> Console:
    """Return the terminal at its own width; a pipe or a file wide enough that no table is cut."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print `text` as it is: no markup, no highlighting, no line breaks."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def status_rows(folders: Sequence[TrialStore]) -> list[dict[str, Any]]:
    """Return the status of each trial as plain data."""
    return [asdict(trial_status(folder)) for folder in folders]


def print_results(folders: Sequence[TrialStore], console: Console) -> None:
    """Print the status of every trial as a table, and below it why trials failed or diverged."""
    table = Table(title=f"{len(folders)} trials", title_justify="left")
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
