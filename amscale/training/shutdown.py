"""The orderly end of a run that is asked for it by a signal."""

import signal
from types import FrameType

import torch
from accelerate import Accelerator


class GracefulShutdown:
    """Lets the ranks write a checkpoint together and end, once any of them gets SIGTERM or SIGUSR1.

    Args:
        accelerator: of this rank; the ranks agree through it.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._received = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = True

    def requested(self) -> bool:
        """Return whether any rank got a signal: all ranks must ask together, and all get the same answer."""
        if self._accelerator.num_processes == 1:
            return self._received
        received = torch.tensor([float(self._received)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(received, reduction="sum") > 0)
