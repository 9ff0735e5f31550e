"""Queries and keys of attention modules.

They are read where every family passes: at `torch.nn.functional.scaled_dot_product_attention`, after projections,
rotations and norms of queries and keys. A model that attends by other means gets a reason instead.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from amscale.probes.capture import capture, find_modules, input_place
from amscale.probes.interface import ProbeContext
from amscale.probes.patterns import Retrieval

SEQUENCES = 16
"""Validation sequences that are read: attention costs two more forward passes of them."""
POSITIONS = 32
"""Positions of each sequence whose queries are read, evenly spaced and ending with its last token."""


def read_attention(context: ProbeContext) -> Iterator[tuple[int, Retrieval | str]]:
    """Yield (index of a layer, its retrieval in one micro-batch), or (index, the reason why there is none).

    The first SEQUENCES validation sequences are run twice: as they are, and with every layer given its own output as
    its input. A layer is read if exactly one attention module lies in it and calls scaled_dot_product_attention once.
    """
    modules: dict[int, str] = {}
    for t, layer in enumerate(context.layers):
        inside = [name for name in context.attention if name.startswith(f"{layer}.")]
        if len(inside) == 1:
            modules[t] = inside[0]
        else:
            yield t, f"{layer} has {len(inside)} known attention modules; retrieval is measured in a layer with 1"
    if not modules:
        return
    layers, names = [context.layers[t] for t in modules], list(modules.values())
    for batch in context.queries.first(SEQUENCES).split(context.micro_batch):
        position_BQ = chosen_positions(batch.counted_BT)
        with capture(context.model, layers) as outputs, _recorded(context.model, names) as calls:
            context.model(batch.tokens_BT)
        outputs_LBTC = [outputs[name][0] for name in layers]
        with _inputs_replaced(context.model, layers, outputs_LBTC), _recorded(context.model, names) as stepped:
            context.model(batch.tokens_BT)
        for t, name, before, after in zip(modules, names, calls, stepped, strict=True):
            if len(before) == len(after) == 1:
                yield t, _retrieval(before[0], after[0], position_BQ)
            else:
                yield (
                    t,
                    f"{name} calls scaled_dot_product_attention {len(before)} times in one forward pass; queries and "
                    "keys are read from one such call",
                )


def chosen_positions(counted_BT: Tensor) -> Tensor:
    """Choose POSITIONS places of each sequence, evenly spaced and ending with its last counted token, (B, Q).

    A sequence with fewer tokens has some of them twice.
    """
    last_B = (counted_BT * torch.arange(1, counted_BT.shape[1] + 1, device=counted_BT.device)).argmax(1)
    step_Q = torch.arange(1, POSITIONS + 1, device=counted_BT.device)
    return last_B[:, None] * step_Q // POSITIONS


@dataclass(frozen=True)
class _Call:
    query: Tensor
    key: Tensor
    mask: Tensor | None
    causal: bool
    scale: float | None


class _Calls(TorchFunctionMode):
    """Keep the arguments of scaled_dot_product_attention, by the attention module that runs."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.layer: int | None = None
        self.calls: list[list[_Call]] = [[] for _ in range(count)]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and self.layer is not None:
            self.calls[self.layer].append(_read_call(*args, **kwargs))
        return func(*args, **kwargs)


def _read_call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> _Call:
    return _Call(query.detach(), key.detach(), attn_mask, is_causal, scale)


@contextmanager
def _recorded(model: nn.Module, attention: Sequence[str]) -> Iterator[list[list[_Call]]]:
    """Record the attention calls of each named module while the context is open."""
    mode = _Calls(len(attention))

    def entering(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            mode.layer = layer

        return hook

    def leaving(module: nn.Module, args: Any, output: Any) -> None:
        mode.layer = None

    with ExitStack() as stack:
        for layer, module in enumerate(find_modules(model, attention).values()):
            stack.callback(module.register_forward_pre_hook(entering(layer)).remove)
            stack.callback(module.register_forward_hook(leaving).remove)
        stack.enter_context(mode)
        yield mode.calls


@contextmanager
def _inputs_replaced(model: nn.Module, layers: Sequence[str], inputs_LBTC: Sequence[Tensor]) -> Iterator[None]:
    """Have every named layer compute from the input given here, whatever the layer before it returns."""

    def hook_for(x_BTC: Tensor) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            place = input_place(args, kwargs)
            if isinstance(place, int):
                args = (*args[:place], x_BTC, *args[place + 1 :])
            elif place is not None:
                kwargs = {**kwargs, place: x_BTC}
            return args, kwargs

        return hook

    with ExitStack() as stack:
        for module, x_BTC in zip(find_modules(model, layers).values(), inputs_LBTC, strict=True):
            stack.callback(module.register_forward_pre_hook(hook_for(x_BTC), with_kwargs=True).remove)
        yield


def _retrieval(call: _Call, stepped: _Call, position_BQ: Tensor) -> Retrieval:
    """Return the queries of both calls at some positions, with the keys of the first that each may see."""
    batch, heads, length, width = call.query.shape
    key_BHTK = call.key.double()
    if key_BHTK.shape[1] != heads:
        key_BHTK = key_BHTK.repeat_interleave(heads // key_BHTK.shape[1], dim=1)
    chosen_B1QK = position_BQ[:, None, :, None].expand(batch, heads, -1, width)
    keys = key_BHTK.shape[2]
    bias_BHQT = torch.zeros(1, 1, 1, 1, dtype=torch.float64, device=key_BHTK.device)
    if call.causal:
        later_BQT = torch.arange(keys, device=position_BQ.device) > position_BQ[:, :, None]
        bias_BHQT = bias_BHQT.masked_fill(later_BQT[:, None], -torch.inf)
    if call.mask is not None:
        mask = call.mask
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=torch.float64).masked_fill(~mask, -torch.inf)
        mask = mask.double().expand(batch, mask.shape[-3] if mask.ndim > 2 else 1, length, keys)
        place_BHQT = position_BQ[:, None, :, None].expand(-1, mask.shape[1], -1, keys)
        bias_BHQT = bias_BHQT + mask.gather(2, place_BHQT)
    return Retrieval(
        query_BHQK=call.query.gather(2, chosen_B1QK).double(),
        stepped_BHQK=stepped.query.gather(2, chosen_B1QK).double(),
        key_BHTK=key_BHTK,
        bias_BHQT=bias_BHQT,
        beta=width**-0.5 if call.scale is None else float(call.scale),
    )
