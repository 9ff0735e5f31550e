"""Live progress of a sweep: a table that is redrawn on a terminal, one line per event elsewhere."""

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from amscale.reporting.terminal import print_line
from amscale.settings import format_duration

_LINE_SECONDS = 10.0
"""Least time between two lines of numbers of one trial."""

_TABLE_FRAME = 6
"""Lines of the screen that the table's title, headings and frame take."""


@dataclass
class _TrialRow:
    steps: int
    state: str = "waiting"
    step: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    first_report: tuple[float, int] | None = None
    """Time and step of the first report since the trial started."""
    line_time: float = 0.0

    def time_left(self) -> str:
        """Return the time left at the speed since the trial started; empty while it is not known."""
        if self.state != "training" or self.first_report is None or self.step <= self.first_report[1]:
            return ""
        step_seconds = (time.monotonic() - self.first_report[0]) / (self.step - self.first_report[1])
        return format_duration(step_seconds * (self.steps - self.step))


class LiveProgress:
    """A listener of `amscale.cluster.tune` that shows the progress of trials.

    Args:
        console: where to show it.
        steps: steps of each trial that will run, by label, in the order to show.
        done: trials of the sweep that were done before.
    """

    def __init__(self, console: Console, steps: dict[str, int], done: int) -> None:
        self._console = console
        self._rows = {label: _TrialRow(count) for label, count in steps.items()}
        self._done = done
        self._total = done + len(steps)
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2)
        self._interactive = console.is_terminal
        self.reasons: dict[str, str] = {}
        """Why trials failed last, by label."""
        self.stopped_early: dict[str, tuple[str, dict[str, Any]]] = {}
        """Why trials were stopped early, and their newest numbers, by label."""

    def __enter__(self) -> "LiveProgress":
        if self._interactive:
            self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._interactive:
            self._live.__exit__(*exception)

    def started(self, label: str) -> None:
        """Show that a trial has been placed and starts."""
        self._rows[label].state = "starting"
        self._rows[label].first_report = None
        self._print_event(label, "starting")

    def progress(self, label: str, report: dict[str, Any]) -> None:
        """Show a trial's newest numbers."""
        row = self._rows[label]
        row.state = report.get("state", row.state)
        row.step = report.get("step", row.step)
        row.loss = report.get("loss", row.loss)
        row.validation_loss = report.get("validation_loss", row.validation_loss)
        if report.get("seconds"):
            row.tokens_per_second = report["tokens"] / report["seconds"]
        if row.first_report is None and row.state == "training":
            row.first_report = (time.monotonic(), row.step)
        if time.monotonic() - row.line_time > _LINE_SECONDS and row.step:
            self._print_event(label, _numbers(row))

    def noted(self, label: str, note: str) -> None:
        """Print a note about a trial."""
        print_line(self._console, f"{label}: {note}")

    def lost(self, reason: str) -> None:
        """Print that the cluster is lost; the live table ends first, since the process is about to exit."""
        self.__exit__()
        print_line(self._console, reason, style="red")

    def ended(self, label: str) -> None:
        """Show that a trial has its result."""
        self._rows[label].state = "done"
        self._done += 1
        self._print_event(label, f"done, {self._done} of {self._total}")

    def failed(self, label: str, reason: str, again: bool) -> None:
        """Print why a trial failed, and whether it is started again."""
        self._rows[label].state = "restarting" if again else "failed"
        self.reasons[label] = reason
        print_line(self._console, f"{label}: failed{', starting again' if again else ''}: {reason}")

    def stopped(self, label: str, reason: str, report: dict[str, Any]) -> None:
        """Show that a hopeless value of a tuned setting was stopped early."""
        self._rows[label].state = "stopped early"
        self._done += 1
        self.stopped_early[label] = (reason, report)
        self._print_event(label, f"stopped early: {reason}")

    def _print_event(self, label: str, text: str) -> None:
        """Print a line where there is no live table."""
        self._rows[label].line_time = time.monotonic()
        if not self._interactive:
            print_line(self._console, f"{label}: {text}")

    def _table(self) -> Table:
        table = Table(title=f"{self._done} of {self._total} trials done", title_justify="left")
        for heading in ("trial", "state", "step", "train loss", "validation loss", "tokens/s", "time left"):
            table.add_column(heading, justify="left" if heading in ("trial", "state") else "right", no_wrap=True)
        for label, row in self._visible_rows():
            table.add_row(
                label,
                row.state,
                f"{row.step:,} / {row.steps:,}",
                "" if row.loss is None else f"{row.loss:.3f}",
                "" if row.validation_loss is None else f"{row.validation_loss:.3f}",
                "" if not row.tokens_per_second else f"{row.tokens_per_second:,.0f}",
                row.time_left(),
            )
        return table

    def _visible_rows(self) -> list[tuple[str, _TrialRow]]:
        """Return all rows where they fit the screen; otherwise active and failed trials first."""
        rows = list(self._rows.items())
        height = max(self._console.height - _TABLE_FRAME, 5)
        if len(rows) <= height:
            return rows
        active = [item for item in rows if item[1].state in ("starting", "training", "restarting", "failed")]
        rest = [item for item in rows if item not in active]
        return (active + rest)[:height]


def _numbers(row: _TrialRow) -> str:
    parts = [f"step {row.step:,} of {row.steps:,}"]
    if row.loss is not None:
        parts.append(f"train loss {row.loss:.3f}")
    if row.validation_loss is not None:
        parts.append(f"validation loss {row.validation_loss:.3f}")
    if row.tokens_per_second:
        parts.append(f"{row.tokens_per_second:,.0f} tokens/s")
    if left := row.time_left():
        parts.append(f"{left} left")
    return ", ".join(parts)
