"""A rank that is told to end by SIGTERM or SIGUSR1 writes a checkpoint first, together with all others.

A rank that runs out of memory says so in the trial's folder.
"""

import signal
from types import FrameType

import torch
from accelerate import Accelerator

from amscale.trials.folder import TrialFolder


class GracefulShutdown:
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


# What else than torch.OutOfMemoryError an allocation that fails raises: torch's CPU allocator, CUDA outside of torch's
# caching allocator (NCCL's buffers), and cuBLAS's workspace.
_WORDS = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that this process's memory or its device's did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def report(folder: TrialFolder, error: BaseException) -> None:
    """Leave the marker by which whoever started this rank knows that a smaller micro-batch may help."""
    said = str(error).strip().splitlines() or [type(error).__name__]
    folder.out_of_memory_marker.write_text(said[0] + "\n", encoding="utf-8")
