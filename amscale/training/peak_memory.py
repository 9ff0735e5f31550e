"""The most memory that training takes on a rank, beyond what its process holds before there is a model.

On a GPU torch's allocator keeps the peak. On a CPU the kernel does: of /proc/self/status, VmHWM is the peak of resident
memory, RssFile and RssShmem the part of it that belongs to files (libraries, the token store), which a machine that is
short of memory drops and reads again. The difference is private memory, which must be there.
"""

import gc
import importlib
import resource
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator

from amscale.trials.records import ResultMemory

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class PrivateMemory:
    """Private resident memory of this process in bytes; 0 where the system does not tell."""

    now: int
    peak: int
    """Since the process began."""

    @classmethod
    def read(cls) -> "PrivateMemory":
        """Read it from the kernel."""
        if not _STATUS.is_file():
            return cls(0, 0)
        lines = [line.split() for line in _STATUS.read_text(encoding="utf-8").splitlines()]
        kilobytes = {words[0]: int(words[1]) for words in lines if words[-1] == "kB"}
        if "RssAnon:" not in kilobytes:
            return cls(0, 0)
        of_files = kilobytes["RssFile:"] + kilobytes["RssShmem:"]
        return cls(kilobytes["RssAnon:"] * 1024, (kilobytes["VmHWM:"] - of_files) * 1024)


def _load_lazily_imported(stage: int) -> None:
    """Import what training imports as it goes: up to 150 MB that are no part of it.

    For a step of AdamW torch imports its compiler; under ZeRO DeepSpeed imports an optimiser that compiles a function.
    """
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    torch.optim.AdamW([parameter]).step()
    if stage:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")


class PeakMemory:
    """Measures what training takes: made on every rank as soon as the model is, when all libraries are loaded.

    What the process holds then, without the model, is what it held before.

    Args:
        accelerator: of this rank.
        model: just made, and not yet handed to the engine.
    """

    def __init__(self, accelerator: Accelerator, model: torch.nn.Module) -> None:
        self._accelerator = accelerator
        _load_lazily_imported(accelerator.state.deepspeed_plugin.zero_stage)
        gc.collect()  # a network that was built from another one leaves parameters that nothing uses
        held = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in [*model.parameters(), *model.buffers()]}
        of_model = sum(storage.nbytes() for storage in held.values() if storage.device.type == "cpu")
        self._before = max(0, PrivateMemory.read().now - of_model)

    def record(self) -> ResultMemory:
        """Return the peaks so far, on every rank; all ranks must ask together."""
        device = self._accelerator.device
        allocated = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
        mine = torch.tensor([self._before, PrivateMemory.read().peak, allocated], device=device)
        most = self._accelerator.gather(mine).reshape(-1, len(mine)).amax(0).tolist()
        before, peak, on_device = (number or None for number in most)
        return ResultMemory(
            peak_host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            before_model_bytes=before,
            peak_private_bytes=peak,
            peak_device_bytes=on_device,
        )
