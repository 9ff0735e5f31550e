"""A context in which a model can be evaluated without leaving a trace on its training."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Evaluate a model and leave training bit for bit as it was.

    Inside, no gradient is recorded and every module is in evaluation mode. On exit, after an error too, each module's
    own training flag and the random state of the CPU and of the model's accelerators are as before. The flags are set
    one by one, not by `eval()`, because wrappers and frozen parts give that call meanings of their own. Compiled parts
    run as they were written: compiled code passes over hooks that came after it.
    """
    flags = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    device_type = next(iter(devices)).type if devices else "cuda"
    indices = sorted({device.index or 0 for device in devices})
    with torch.random.fork_rng(devices=indices, device_type=device_type), torch.no_grad(), _uncompiled(model):
        try:
            for module, _ in flags:
                module.training = False
            yield
        finally:
            for module, training in flags:
                module.training = training


def _uncompiled(model: nn.Module) -> AbstractContextManager[object]:
    compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
