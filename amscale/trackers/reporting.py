"""Give a trial's numbers to its trackers, from a thread: a tracker that fails or waits never holds up the trial."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from amscale.errors import one_line
from amscale.trackers import find_tracker
from amscale.trackers.tracker import TrackedRun, Tracker

_COLLECT = 1.0
"""Seconds for which numbers are collected before trackers get them together."""
_PATIENCE = 60.0
"""Seconds that the end of a trial waits for its trackers."""
_END = object()


class _Reporter:
    """A thread for one tracker."""

    def __init__(self, name: str, run: TrackedRun) -> None:
        self._name, self._run = name, run
        self._rows: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outcome: Mapping[str, Any] | None = None
        self._thread = threading.Thread(target=self._report, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def add(self, row: tuple[int, float, dict[str, float]]) -> None:
        self._rows.put(row)

    def end(self, outcome: Mapping[str, Any] | None) -> None:
        self._outcome = outcome
        self._rows.put(_END)

    def join(self, deadline: float) -> None:
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            _say(self._name, f"is not done {_PATIENCE:.0f} s after the end of training; the rest is not reported")

    def _report(self) -> None:
        tracker: Tracker | None = None

        def attempt(action: Callable[[], object]) -> bool:
            try:
                action()
            except Exception as error:  # a tracker's client, network and server can fail in any way
                _say(self._name, f"fails, and gets no more of this trial: {type(error).__name__}: {error}")
                return False
            return True

        def start() -> None:
            nonlocal tracker
            tracker = find_tracker(self._name)()
            tracker.start(self._run)

        going = attempt(start)
        while going:
            rows, ended = self._collected()
            going = not rows or attempt(lambda rows=rows: tracker.log(rows))  # type: ignore[misc,union-attr]
            if ended:
                if going:
                    attempt(lambda: tracker.finish(self._outcome))  # type: ignore[union-attr]
                return

    def _collected(self) -> tuple[list[Any], bool]:
        """Return rows that were added within a second of the first, and whether they are the last."""
        rows = [self._rows.get()]
        deadline = time.monotonic() + _COLLECT
        while rows[-1] is not _END:
            with suppress(queue.Empty):
                rows.append(self._rows.get(timeout=max(0.0, deadline - time.monotonic())))
                continue
            return rows, False
        return rows[:-1], True


def _say(name: str, text: str) -> None:
    with suppress(OSError):  # the log is on a disk that may be full
        print(one_line(f"report_to: {name} {text}", most=400), file=sys.stderr, flush=True)


class Reporting:
    """A trial's trackers.

    Args:
        names: of trackers.
        run: the trial.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun) -> None:
        self._reporters = [_Reporter(name, run) for name in names]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Pass numbers on; returns at once."""
        row = (step, time.time(), dict(values))
        for reporter in self._reporters:
            reporter.add(row)

    def finish(self, outcome: Mapping[str, Any] | None) -> None:
        """End the runs and wait a bounded time for it.

        Args:
            outcome: losses and state; None where the trial was preempted.
        """
        for reporter in self._reporters:
            reporter.end(outcome)
        deadline = time.monotonic() + _PATIENCE
        for reporter in self._reporters:
            reporter.join(deadline)
