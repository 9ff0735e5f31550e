"""The interface of a tracker: what a service that shows training runs is given of a trial."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrackedRun:
    """A trial as a tracker's run."""

    id: str
    """The trial's id: a trial that is started again continues the run of that id."""
    name: str
    """The trial's label."""
    group: str
    """Name of the sweep."""
    folder: Path
    """Folder of the sweep; for what a tracker keeps on this machine, unless the environment says where."""
    config: Mapping[str, Any]
    """N, D, seed, and all settings by dotted key."""
    step: int
    """The step that training continues from; 0 at the beginning."""


class Tracker(ABC):
    """A tracker of one trial, on rank 0. It runs in a thread of its own; whatever it raises ends it, not the trial."""

    @abstractmethod
    def start(self, run: TrackedRun) -> None:
        """Begin the trial's run, or continue it where the service has it already."""

    @abstractmethod
    def log(self, rows: list[tuple[int, float, dict[str, float]]]) -> None:
        """Record numbers by tag.

        Args:
            rows: (step, seconds since 1970, numbers), in order.
        """

    @abstractmethod
    def finish(self, outcome: Mapping[str, Any] | None) -> None:
        """End the run.

        Args:
            outcome: the trial's losses and state; None where it was preempted, and another attempt continues.
        """
