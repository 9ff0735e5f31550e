"""Who is told what happens to trials while they run."""

from typing import Any, Protocol


class Listener(Protocol):
    """Is told what happens to trials while they run."""

    def started(self, label: str) -> None:
        """The trial got its place."""

    def progress(self, label: str, report: dict[str, Any]) -> None:
        """The trial's newest numbers."""

    def ended(self, label: str) -> None:
        """The trial has its result."""

    def failed(self, label: str, reason: str, again: bool) -> None:
        """The trial failed, and is started again or not."""
