"""Interruptions of a rank: a graceful shutdown on SIGTERM or SIGUSR1, and memory that runs out."""

import signal
from types import FrameType

import torch
from accelerate import Accelerator

from amscale.files import write_atomically
from amscale.trials.store import TrialStore


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


# Besides torch.OutOfMemoryError, an allocation that fails raises these: torch's CPU allocator, CUDA outside of torch's
# caching allocator (NCCL's buffers), and cuBLAS's workspace.
_MESSAGES = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that this process's memory or its device's did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


def report_out_of_memory(store: TrialStore, error: BaseException) -> None:
    """Leave the marker by which the trial's runner knows that a smaller micro-batch may help.

    Raises:
        AttemptReplaced: a newer attempt has begun.
    """
    store.check_attempt()
    lines = str(error).strip().splitlines() or [type(error).__name__]
    write_atomically(store.out_of_memory_marker, lines[0] + "\n")
