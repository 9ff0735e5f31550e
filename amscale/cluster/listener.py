"""Who is told what happens to trials while they run."""

from typing import Any, Protocol


class Listener(Protocol):
    """Is told what happens to trials while they run."""

    def started(self, label: str) -> None:
        """The trial got its place."""

    def progress(self, label: str, report: dict[str, Any]) -> None:
        """The trial's newest numbers."""

    def noted(self, label: str, note: str) -> None:
        """Something about the trial that its user should know."""

    def lost(self, reason: str) -> None:
        """The cluster is gone, and this process ends next."""

    def ended(self, label: str) -> None:
        """The trial has its result."""

    def failed(self, label: str, reason: str, again: bool) -> None:
        """The trial failed, and is started again or not."""
