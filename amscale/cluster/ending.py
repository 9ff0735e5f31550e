"""A driver that is told to end, by a scheduler before a time limit say, ends its trials first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from amscale.errors import ToldToEnd


@contextmanager
def told_to_end() -> Iterator[None]:
    """While the block runs Tune, SIGTERM ends its trials in order: their ranks write checkpoints within the grace.

    Raises:
        ToldToEnd: after the block, if it was told so.
    """
    told = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True
        if signal.getsignal(signal.SIGUSR1) == before_tune:
            raise ToldToEnd  # no trial runs yet
        # Tune's own handler of this one: it leaves its loop and stops every trial.
        signal.raise_signal(signal.SIGUSR1)

    before_tune = signal.getsignal(signal.SIGUSR1)
    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGUSR1, before_tune)
    if told:
        raise ToldToEnd
