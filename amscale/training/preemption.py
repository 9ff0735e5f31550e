"""A rank that is told to end by SIGTERM or SIGUSR1 writes a checkpoint first, together with all others."""

import signal
from types import FrameType

import torch
from accelerate import Accelerator


class Preemption:
    """Remembers that this rank was told to end.

    Args:
        accelerator: of this rank; the ranks agree through it.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._told = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._told = True

    def told(self) -> bool:
        """Whether any rank was told to end: all ranks must ask together, and all get the same answer."""
        if self._accelerator.num_processes == 1:
            return self._told
        told = torch.tensor([float(self._told)], device=self._accelerator.device)
        return bool(self._accelerator.reduce(told, reduction="sum") > 0)
