"""Live progress of a sweep: a map of its grid that is redrawn on a terminal, one line per event elsewhere."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live

from amscale.reporting.grid_map import DONE, FAILED, RUNNING, WAITING, CellTrial, draw_map, time_left
from amscale.reporting.terminal import print_line
from amscale.settings import format_duration

_LINE_SECONDS = 10.0
"""Least time between two lines of numbers of one trial."""


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

    def seconds_left(self) -> float | None:
        """Return the seconds left at the speed since the trial started; None while that is not known."""
        if self.state != "training" or self.first_report is None or self.step <= self.first_report[1]:
            return None
        step_seconds = (time.monotonic() - self.first_report[0]) / (self.step - self.first_report[1])
        return step_seconds * (self.steps - self.step)

    def cell(self, label: str, reason: str) -> CellTrial:
        """Return how the trial stands, for the map."""
        state = {"waiting": WAITING, "done": DONE, "failed": FAILED}.get(self.state, RUNNING)
        loss = self.loss if self.validation_loss is None else self.validation_loss
        return CellTrial(label, state, loss, self.seconds_left(), reason)


class LiveProgress:
    """A listener of `amscale.cluster.listener` that shows the progress of trials.

    Args:
        console: where to show it.
        steps: steps of each trial that will run, by label.
        done: the least validation loss of each trial that was done before, by label; None where it has none.
        seconds: expected seconds of each trial, by label.
    """

    def __init__(
        self,
        console: Console,
        steps: Mapping[str, int],
        done: Mapping[str, float | None],
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        self._console = console
        self._rows = {label: _TrialRow(count) for label, count in steps.items()}
        self._before = [CellTrial(label, DONE, loss) for label, loss in done.items()]
        self._done = len(done)
        self._total = len(done) + len(steps)
        self._expected = dict(seconds or {})
        self._began: dict[str, float] = {}
        self._places = 1
        self._pace: list[tuple[float, float]] = []
        """Expected and real seconds of the trials that ended."""
        self._interactive = console.is_terminal
        self.reasons: dict[str, str] = {}
        """Why trials failed last, by label."""
        self.stopped_early: dict[str, tuple[str, dict[str, Any]]] = {}
        """Why trials were stopped early, and their newest numbers, by label."""
        self._live = Live(console=console, get_renderable=self._map, refresh_per_second=2)

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
        self._began[label] = time.monotonic()
        running = sum(row.state in ("starting", "training") for row in self._rows.values())
        self._places = max(self._places, running)
        self._print_event(label, "starting")

    def progress(self, label: str, report: dict[str, Any]) -> None:
        """Show a trial's newest numbers."""
        row = self._rows[label]
        row.state = report.get("state", row.state)
        row.step = report.get("step", row.step)
        row.loss = report.get("loss", row.loss)
        newest = report.get("validation_loss")
        if newest is not None:
            row.validation_loss = newest if row.validation_loss is None else min(newest, row.validation_loss)
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
        if label in self._began and label in self._expected:
            self._pace.append((self._expected[label], time.monotonic() - self._began[label]))
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

    def _map(self) -> Group:
        trials = [*self._before, *(row.cell(label, self.reasons.get(label, "")) for label, row in self._rows.items())]
        pace = sum(real for _, real in self._pace) / sum(plan for plan, _ in self._pace) if self._pace else 1.0
        expected = {label: pace * seconds for label, seconds in self._expected.items()}
        left = time_left(trials, expected, self._places)
        return draw_map(trials, self._console.width, self._console.height, left)


def _numbers(row: _TrialRow) -> str:
    parts = [f"step {row.step:,} of {row.steps:,}"]
    if row.loss is not None:
        parts.append(f"train loss {row.loss:.3f}")
    if row.validation_loss is not None:
        parts.append(f"validation loss {row.validation_loss:.3f}")
    if row.tokens_per_second:
        parts.append(f"{row.tokens_per_second:,.0f} tokens/s")
    if (left := row.seconds_left()) is not None:
        parts.append(f"{format_duration(left)} left")
    return ", ".join(parts)
