"""Graceful shutdown of a driver: asked to end by a scheduler or by Ctrl-C, it ends its trials first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from amscale.errors import Preempted


@contextmanager
def graceful_shutdown() -> Iterator[None]:
    """While the block runs Tune, SIGTERM and Ctrl-C end its trials in order: ranks write checkpoints within the grace.

    Not by an exception: one that is raised in a callback or a destructor is lost. A second Ctrl-C raises one.

    Raises:
        Preempted: after the block, if SIGTERM came.
        KeyboardInterrupt: the same after Ctrl-C.
    """
    requested: type[BaseException] | None = None

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        again = requested is not None and number == signal.SIGINT
        requested = requested or (KeyboardInterrupt if number == signal.SIGINT else Preempted)
        if again or signal.getsignal(signal.SIGUSR1) == before[signal.SIGUSR1]:  # or no trial runs yet
            raise requested
        # Tune's own handler of this one: it leaves its loop and stops every trial.
        signal.raise_signal(signal.SIGUSR1)

    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, receive)
    if before[signal.SIGINT] != signal.SIG_IGN:  # as it is for a job that a script started in the background
        signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if requested is not None:
        raise requested
