"""Watch the head of a Ray cluster, and end this process when it dies: Ray gives up only after a minute, with pages of
its log."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psutil

from amscale.cluster.network import check_reachable
from amscale.errors import EXIT_PREEMPTED, Preempted

_LOOK_SECONDS = 1.0
_FIRST_LOOK_SECONDS = 0.05
"""Between looks for a head that is being started."""
_REFUSALS = 3
"""A head that refuses connections this many times in a row is dead."""
_HEAD_ANSWER_SECONDS = 30.0
"""A head that cannot be reached this long is given up: a network may come back."""
_HEAD_PROGRAM = "gcs_server"
_REQUESTED: dict[type[BaseException] | None, tuple[int, str]] = {
    Preempted: (EXIT_PREEMPTED, "stopped: the same command continues from the checkpoints"),
    KeyboardInterrupt: (128 + signal.SIGINT, "interrupted"),
}
"""Exit status and words where the head ended by a signal that asked this process to end: one to the whole group."""


class HeadMonitor:
    """A thread that ends this process when the head of its Ray cluster is gone: the main thread waits inside Ray then.

    The exit status is 1; where an end had been asked for before, it is that of `requested`.

    Args:
        is_gone: looks at the head once; None until the head is known.
        lost: gets a sentence for the user before the process ends.
        notes: folder for what Tune writes, removed at the end.
        clean_up: ends and removes what would stay behind besides.
    """

    def __init__(
        self,
        is_gone: "Look | None",
        lost: Callable[[str], None],
        notes: Path,
        clean_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.is_gone = is_gone
        self.notes = notes
        self.requested: type[BaseException] | None = None
        """Preempted or KeyboardInterrupt once a signal has asked for the end of the sweep, which may end Ray too."""
        self._lost = lost
        self._clean_up = clean_up
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def reporting_to(self, lost: Callable[[str], None]) -> Iterator[None]:
        """Let another function get the sentence while the block runs."""
        before, self._lost = self._lost, lost
        try:
            yield
        finally:
            self._lost = before

    def stop(self) -> None:
        """Look for the last time: without its head Ray would not end either."""
        self._over.set()
        reason = ""
        for _ in range(_REFUSALS):
            reason = reason or (self.is_gone() if self.is_gone else "")
        if reason:
            self._end(reason)

    def _watch(self) -> None:
        reason = ""
        while not reason:
            if self._over.wait(self.is_gone.pause if self.is_gone else _LOOK_SECONDS):
                return
            reason = self.is_gone() if self.is_gone else ""
        if not self._over.is_set():
            self._end(reason)

    def _end(self, reason: str) -> None:
        status, words = _REQUESTED.get(self.requested, (1, ""))
        try:
            if words:
                print(words, file=sys.stderr)
            else:
                self._lost(reason)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            try:
                self._clean_up()
                shutil.rmtree(self.notes, ignore_errors=True)
            finally:
                os._exit(status)


class Look(Protocol):
    """Looks at the head of a cluster."""

    @property
    def pause(self) -> float:
        """Seconds until the next look."""

    def __call__(self) -> str:
        """Return why the cluster is gone; empty while it is there."""


class RemoteHead:
    """The head of a cluster that was joined, seen by connections to it.

    Args:
        address: HOST:PORT.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._refused = 0
        self._silent = 0.0
        self.pause = _LOOK_SECONDS

    def __call__(self) -> str:
        """Return why the cluster is gone; empty while it is there."""
        try:
            check_reachable(self._address, _HEAD_ANSWER_SECONDS / 3)
            self._refused, self._silent = 0, 0.0
        except TimeoutError:
            self._silent += _HEAD_ANSWER_SECONDS / 3
        except OSError:  # refused, or no way to the host
            self._refused += 1
        if self._refused < _REFUSALS and self._silent < _HEAD_ANSWER_SECONDS:
            return ""
        return (
            f"the Ray cluster is gone: its head at {self._address} does not answer. Trials end by themselves within a "
            "minute; start the cluster and give the same command again to go on from their checkpoints"
        )


class LocalHead:
    """The head of the cluster that this process starts: a child process, seen from when it starts."""

    def __init__(self) -> None:
        self._process: psutil.Process | None = None

    @property
    def pause(self) -> float:
        """Seconds until the next look: few while the head is being started, when it may die at once."""
        return _FIRST_LOOK_SECONDS if self._process is None else _LOOK_SECONDS

    def __call__(self) -> str:
        """Return why the cluster is gone; empty while it is there, or has not been started."""
        if self._process is None:
            self._process = next((p for p in psutil.Process().children() if _name(p) == _HEAD_PROGRAM), None)
            return ""
        if _name(self._process):
            return ""
        return (
            f"the local Ray cluster is gone: its head ({_HEAD_PROGRAM}, process {self._process.pid}) has ended; it was "
            "killed, perhaps for want of memory. Trials end by themselves; give the same command again to go on from "
            "their checkpoints"
        )


def _name(process: psutil.Process) -> str:
    """Return the name of a living process; empty for others."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.Error:
        return ""
