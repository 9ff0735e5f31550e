"""Trackio: a local store (TRACKIO_DIR) that `trackio show` displays."""

from collections.abc import Mapping
from typing import Any

import trackio

from amscale.trackers.tracker import TrackedRun, Tracker


class TrackioTracker(Tracker):
    """A run of Trackio, whose name holds the trial's id. The sweep is the project."""

    def start(self, run: TrackedRun) -> None:
        """Begin or continue the run of the trial's label."""
        self._run = trackio.init(
            project=run.group,
            name=run.name,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, rows: list[tuple[int, float, dict[str, float]]]) -> None:
        """Record numbers by tag."""
        for step, _, values in rows:
            self._run.log(values, step=step)

    def finish(self, outcome: Mapping[str, Any] | None) -> None:
        """End the run, with the outcome as its last numbers."""
        if outcome:
            numbers = {name: value for name, value in outcome.items() if isinstance(value, float)}
            self._run.log({f"outcome/{name}": value for name, value in numbers.items()})
        self._run.finish()
