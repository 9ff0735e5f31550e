"""Live progress of a sweep: a table that changes on a terminal, plain lines elsewhere."""

import threading
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from amscale.settings import format_duration

_LINE_SECONDS = 10.0


@dataclass
class _Row:
    steps: int
    state: str = "waiting"
    step: int = 0
    loss: float | None = None
    validation_loss: float | None = None
    tokens_per_second: float | None = None
    first: tuple[float, int] | None = None
    printed: float = 0.0

    def left(self) -> str:
        """Time left at the pace since this start of the trial."""
        if self.state != "training" or self.first is None or self.step <= self.first[1]:
            return ""
        pace = (time.monotonic() - self.first[0]) / (self.step - self.first[1])
        return format_duration(pace * (self.steps - self.step))


class LiveProgress:
    """A listener of `amscale.cluster.tune` that shows what it hears.

    Args:
        console: where to show it.
        steps: steps of each trial that will run, by label, in the order to show.
        done: trials of the sweep that were done before.
    """

    def __init__(self, console: Console, steps: dict[str, int], done: int) -> None:
        self._console = console
        self._rows = {label: _Row(count) for label, count in steps.items()}
        self._done = done
        self._total = done + len(steps)
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2)
        self._lock = threading.Lock()
        self._interactive = console.is_terminal
        self.reasons: dict[str, str] = {}
        """Why trials failed last, by label."""

    def __enter__(self) -> "LiveProgress":
        if self._interactive:
            self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._interactive:
            self._live.__exit__(*exception)

    def started(self, label: str) -> None:
        """The trial got its place."""
        self._rows[label].state = "starting"
        self._rows[label].first = None
        self._say(label, "starting")

    def progress(self, label: str, report: dict[str, Any]) -> None:
        """The trial's newest numbers."""
        row = self._rows[label]
        row.state = report.get("state", row.state)
        row.step = report.get("step", row.step)
        row.loss = report.get("loss", row.loss)
        row.validation_loss = report.get("validation_loss", row.validation_loss)
        if report.get("seconds"):
            row.tokens_per_second = report["tokens"] / report["seconds"]
        if row.first is None and row.state == "training":
            row.first = (time.monotonic(), row.step)
        if time.monotonic() - row.printed > _LINE_SECONDS and row.step:
            self._say(label, self._numbers(row))

    def noted(self, label: str, note: str) -> None:
        """Something about the trial that its user should know."""
        self._console.print(f"{label}: {note}", highlight=False, markup=False, soft_wrap=True)

    def lost(self, reason: str) -> None:
        """The cluster is gone, and this process ends next: a terminal is left as it was found."""
        self.__exit__()
        self._console.print(reason, style="red", highlight=False, markup=False, soft_wrap=True)

    def ended(self, label: str) -> None:
        """The trial has its result."""
        self._rows[label].state = "done"
        self._done += 1
        self._say(label, f"done, {self._done} of {self._total}")

    def failed(self, label: str, reason: str, again: bool) -> None:
        """The trial failed, and is started again or not."""
        self._rows[label].state = "again" if again else "failed"
        self.reasons[label] = reason
        self._console.print(
            f"{label}: failed{', starting again' if again else ''}: {reason}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def _say(self, label: str, text: str) -> None:
        self._rows[label].printed = time.monotonic()
        if not self._interactive:
            self._console.print(f"{label}: {text}", highlight=False, markup=False, soft_wrap=True)

    def _numbers(self, row: _Row) -> str:
        parts = [f"step {row.step:,} of {row.steps:,}"]
        if row.loss is not None:
            parts.append(f"train loss {row.loss:.3f}")
        if row.validation_loss is not None:
            parts.append(f"validation loss {row.validation_loss:.3f}")
        if row.tokens_per_second:
            parts.append(f"{row.tokens_per_second:,.0f} tokens/s")
        if left := row.left():
            parts.append(f"{left} left")
        return ", ".join(parts)

    def _table(self) -> Table:
        table = Table(title=f"{self._done} of {self._total} trials done", title_justify="left")
        for heading in ("trial", "state", "step", "train loss", "validation loss", "tokens/s", "left"):
            table.add_column(heading, justify="left" if heading in ("trial", "state") else "right", no_wrap=True)
        for label, row in self._shown():
            table.add_row(
                label,
                row.state,
                f"{row.step:,} / {row.steps:,}",
                "" if row.loss is None else f"{row.loss:.3f}",
                "" if row.validation_loss is None else f"{row.validation_loss:.3f}",
                "" if not row.tokens_per_second else f"{row.tokens_per_second:,.0f}",
                row.left(),
            )
        return table

    def _shown(self) -> list[tuple[str, _Row]]:
        """All rows where they fit the screen, otherwise those that changed last."""
        rows = list(self._rows.items())
        room = max(self._console.height - 6, 5)
        if len(rows) <= room:
            return rows
        active = [item for item in rows if item[1].state in ("starting", "training", "again", "failed")]
        rest = [item for item in rows if item not in active]
        return (active + rest)[:room]
