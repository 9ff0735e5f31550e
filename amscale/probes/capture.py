"""Read the outputs of named modules during forward passes, without a trace on training.

    with capture(model, ["layers.0", "layers.1"]) as records:
        model(tokens_BT)
    records["layers.1"][0]      # the output of that module's first call, detached

Nothing is registered outside the context, so a model that is not captured pays nothing. `preserved` is a context in
which a model can be evaluated and training continues as if it had not been.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from amscale.errors import InputError

# Attributes under which wrappers (data parallel, engines, compiled modules) keep the model they wrap.
_WRAPPED = ("module", "_orig_mod")


def _unwrappings(model: nn.Module) -> Iterator[nn.Module]:
    yield model
    for attribute in _WRAPPED:
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module):
            yield from _unwrappings(inner)


def find_modules(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the named modules of a model, or of the model that it wraps, in the order of the names.

    Raises:
        InputError: no names, or a name that the model does not have.
    """
    if not names:
        raise InputError("no module is named; name at least one of the model's modules")
    for candidate in _unwrappings(model):
        modules = dict(candidate.named_modules())
        if all(name in modules for name in names):
            return {name: modules[name] for name in names}
    missing = next(name for name in names if name not in modules)
    known = ", ".join(list(filter(None, modules))[:8])
    raise InputError(f"the model has no module {missing!r}; it has {known} and so on")


def _first_tensor(output: Any, name: str) -> Tensor:
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise InputError(f"module {name!r} returns {type(output).__name__}; name one that returns a tensor")
    return output.detach()


def input_place(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | str | None:
    """Return the place of a layer's input among its arguments: the first tensor of floating numbers, or None."""
    arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    for place, value in arguments:
        if isinstance(value, Tensor) and value.is_floating_point():
            return place
    return None


@contextmanager
def capture_input(model: nn.Module, name: str, reduce: Callable[[Tensor], Tensor]) -> Iterator[list[Tensor]]:
    """Record what enters a named module while the context is open: one detached tensor per call with a tensor.

    Args:
        model: a module, wrapped or not.
        name: of the module, as in `named_modules`.
        reduce: applied to each input as it arrives.

    Raises:
        InputError: a name that the model does not have.
    """
    records: list[Tensor] = []

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        place = input_place(args, kwargs)
        if place is not None:
            records.append(reduce((args[place] if isinstance(place, int) else kwargs[place]).detach()))

    handle = find_modules(model, [name])[name].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield records
    finally:
        handle.remove()


@contextmanager
def capture(
    model: nn.Module, names: Sequence[str], reduce: Callable[[Tensor], Tensor] | None = None
) -> Iterator[dict[str, list[Tensor]]]:
    """Record what named modules return while the context is open.

    Args:
        model: a module, wrapped or not; names are those of the unwrapped model.
        names: module names as in `named_modules`.
        reduce: applied to each output as it arrives, so that large activations need not be kept.

    Yields:
        One list per name, with one detached tensor per call: the output, or the first tensor of a tuple.

    Raises:
        InputError: a name that the model does not have, or a module that returns no tensor.
    """
    records: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = []

    def hook_for(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            tensor = _first_tensor(output, name)
            records[name].append(tensor if reduce is None else reduce(tensor))

        return hook

    try:
        for name, module in find_modules(model, names).items():
            handles.append(module.register_forward_hook(hook_for(name)))
        yield records
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Evaluate a model and leave training bit for bit as it was.

    Inside, no gradient is recorded and every module is in evaluation mode. On exit, after an error too, each module's
    training flag and the random state of the CPU and of the model's accelerators are as before. The flags are set
    one by one, not by `eval()`, because wrappers and frozen parts override that call. Compiled parts run eagerly:
    compiled code ignores hooks that were added after it.
    """
    flags = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    device_type = next(iter(devices)).type if devices else "cuda"
    indices = sorted({device.index or 0 for device in devices})
    with torch.random.fork_rng(devices=indices, device_type=device_type), torch.no_grad(), uncompiled(model):
        try:
            for module, _ in flags:
                module.training = False
            yield
        finally:
            for module, training in flags:
                module.training = training


def uncompiled(model: nn.Module) -> AbstractContextManager[object]:
    """Return a context in which the compiled parts of a model run eagerly."""
    compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
