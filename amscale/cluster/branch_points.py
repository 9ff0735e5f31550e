"""Which trials may start: those that branch off another wait until it has passed the step, or has ended."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class After:
    """What a trial waits for: it branches off another."""

    label: str
    """Of the other trial."""
    step: int
    """The last step that both have in common; the other leaves a checkpoint of it to this one."""


class BranchPoints:
    """What the trials of a sweep wait for, and what has happened of it.

    A trial that waits holds no machines. Nothing is lost where the other trial fails: this one trains alone then.

    Args:
        waiting: trials that wait, by label.
    """

    def __init__(self, waiting: Iterable[tuple[str, After]]) -> None:
        self._waiting = dict(waiting)

    def is_ready(self, label: str) -> bool:
        """Return whether a trial may start."""
        return label not in self._waiting

    def passed(self, label: str, step: int) -> None:
        """Take note that a trial has trained a step. The checkpoint of the step before is whole by then."""
        self._release(branch for branch, after in self._waiting.items() if after.label == label and step > after.step)

    def ended(self, label: str) -> Sequence[str]:
        """Take note that a trial has ended, for good; return those that waited for it in vain."""
        left = [branch for branch, after in self._waiting.items() if after.label == label]
        self._release(left)
        return left

    def _release(self, labels: Iterable[str]) -> None:
        for label in list(labels):
            del self._waiting[label]
