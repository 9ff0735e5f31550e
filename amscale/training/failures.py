"""What an exception that ends a rank means for the trial: out of memory, a refusal, or another fault."""

import re

import torch

from amscale.errors import InputError, one_line
from amscale.files import write_atomically
from amscale.trials.trial_store import TrialStore

# Besides torch.OutOfMemoryError, an allocation that fails raises these: torch's CPU allocator, CUDA outside of torch's
# caching allocator (NCCL's buffers), and cuBLAS's workspace.
_MESSAGES = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that this process's memory or its device's did not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)


_COMPILER = re.compile("Ninja is required|Error building extension|Unable to find (nvcc|a C)|CUDA_HOME .* not set")


def refusal(error: BaseException) -> str | None:
    """Return, in one line, why no other attempt would do better after an exception; None where one might."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, ImportError):
        return one_line(f"{error}; install what is missing in the environment of every machine", most=300)
    if isinstance(error, RuntimeError) and _COMPILER.search(str(error)):
        return one_line(f"a compiler is missing ({error}); install it on every machine", most=300)
    return None


def report_out_of_memory(store: TrialStore, error: BaseException) -> None:
    """Leave the marker by which the trial's runner knows that a smaller micro-batch may help.

    Raises:
        AttemptReplaced: a newer attempt has begun.
    """
    store.check_attempt()
    lines = str(error).strip().splitlines() or [type(error).__name__]
    write_atomically(store.out_of_memory_marker, lines[0] + "\n")
