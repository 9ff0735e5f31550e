"""A rank that runs out of memory says so in the trial's folder."""

import torch

from amscale.ledger import TrialFolder

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
