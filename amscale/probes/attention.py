"""Attention as retrieval: each head looks a query up among keys, as a modern Hopfield network looks up a pattern.

    E(q) = −β⁻¹ log Σ_i exp(β k_iᵀq) + ½‖q‖²        Ramsauer et al. 2020, eq. 2, without its constants

The sum runs over the keys that the query may see. β is the model's own, the factor of its scores (1/√head dimension
unless it says otherwise), and a bias that the model adds to its scores stands in the exponent beside βkᵀq.

Queries and keys are read where every family passes: at `torch.nn.functional.scaled_dot_product_attention`, after
projections, rotations and norms of queries and keys. A model that attends in another way is told so.
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
from amscale.probes.measurement import Measurement
from amscale.probes.patterns import Sequences

SEQUENCES = 16
"""Validation sequences that are looked at: attention costs two more forward passes of them."""
POSITIONS = 32
"""Positions of each sequence whose queries are looked at, evenly spaced and ending with its last token."""
MASS = 0.9
"""The softmax mass that a query's strongest keys are to hold."""


@dataclass(frozen=True)
class Retrieval:
    """Queries of one layer at some positions, and the keys that they are looked up among."""

    query_BHQK: Tensor
    key_BHTK: Tensor
    bias_BHQT: Tensor
    """Added to the scores; minus infinity where a query may not see a key. Its first dimensions may be 1."""
    beta: float


@dataclass(frozen=True)
class _Call:
    query: Tensor
    key: Tensor
    mask: Tensor | None
    causal: bool
    scale: float | None


class _Calls(TorchFunctionMode):
    """Keeps the arguments of scaled_dot_product_attention, by the attention module that runs."""

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
    """The attention calls of each named module while the context is open."""
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
    """Every named layer computes from the input given here, whatever the layer before it answers."""

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


def _retrieval(call: _Call, position_BQ: Tensor) -> Retrieval:
    """The queries of a call at some positions, with the keys that each may see; float64."""
    batch, heads, length, width = call.query.shape
    key_BHTK = call.key.double()
    if key_BHTK.shape[1] != heads:
        key_BHTK = key_BHTK.repeat_interleave(heads // key_BHTK.shape[1], dim=1)
    chosen_B1QK = position_BQ[:, None, :, None].expand(batch, heads, -1, width)
    query_BHQK = call.query.gather(2, chosen_B1QK).double()
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
    return Retrieval(query_BHQK, key_BHTK, bias_BHQT, width**-0.5 if call.scale is None else float(call.scale))


def scores(retrieval: Retrieval, query_BHQK: Tensor) -> Tensor:
    """βkᵀq plus the bias, (B, H, Q, T) float64; minus infinity where a query may not see a key."""
    return retrieval.beta * query_BHQK @ retrieval.key_BHTK.transpose(-1, -2) + retrieval.bias_BHQT


def retrieval_energy(retrieval: Retrieval, query_BHQK: Tensor) -> Tensor:
    """E(q) = −β⁻¹ lse(scores) + ½‖q‖² of queries among a layer's keys, (B, H, Q) float64."""
    return -scores(retrieval, query_BHQK).logsumexp(-1) / retrieval.beta + 0.5 * query_BHQK.square().sum(-1)


def keys_holding(retrieval: Retrieval, mass: float = MASS) -> Tensor:
    """How many of a query's strongest keys hold that share of its softmax mass, (B, H, Q)."""
    share_BHQT = scores(retrieval, retrieval.query_BHQK).softmax(-1).sort(dim=-1, descending=True).values
    return (share_BHQT.cumsum(-1) < mass).sum(-1) + 1


def chosen_positions(counted_BT: Tensor) -> Tensor:
    """POSITIONS places of each sequence, evenly spaced and ending with its last counted token, (B, Q).

    A sequence with fewer tokens has some of them twice.
    """
    last_B = (counted_BT * torch.arange(1, counted_BT.shape[1] + 1, device=counted_BT.device)).argmax(1)
    step_Q = torch.arange(1, POSITIONS + 1, device=counted_BT.device)
    return last_B[:, None] * step_Q // POSITIONS


@dataclass
class _Found:
    energy: list[Tensor]
    change: list[Tensor]
    keys: list[Tensor]
    visible: list[Tensor]


def measure_attention(
    measurement: Measurement,
    model: nn.Module,
    layers: Sequence[str],
    attention: Sequence[str],
    sequences: Sequences,
    micro_batch: int,
) -> None:
    """attention/<layer>/: energy, its change by the layer's step, and the keys that hold 90 % of the softmax mass.

    The change is E(q′) − E(q), with q the queries of the layer's input x^(t−1) and q′ those that the same projections
    make of its output x^(t), both among the keys of x^(t−1). It takes a second forward pass in which every layer gets
    its own output as its input. Distributions are over heads, each the mean over sequences and positions.

    Args:
        measurement: where the numbers go; a layer that cannot be measured gets its sentence there.
        model: as the training loop calls it.
        layers: modules whose output is the residual stream after each layer.
        attention: attention modules; each belongs to the layer whose name begins its own.
        sequences: what is looked at; the first SEQUENCES of them.
        micro_batch: sequences per forward pass.
    """
    pairs = _paired(measurement, layers, attention)
    if not pairs:
        return
    labels = [f"attention/layer_{t:02d}" for t in pairs]
    chosen = [layers[t] for t in pairs]
    modules = list(pairs.values())
    found = [_Found([], [], [], []) for _ in pairs]
    for batch in sequences.first(SEQUENCES).split(micro_batch):
        position_BQ = chosen_positions(batch.counted_BT)
        with capture(model, chosen) as outputs, _recorded(model, modules) as calls:
            model(batch.tokens_BT)
        stepped_LBTC = [outputs[name][0] for name in chosen]
        with _inputs_replaced(model, chosen, stepped_LBTC), _recorded(model, modules) as stepped:
            model(batch.tokens_BT)
        for t, label in enumerate(labels):
            if len(calls[t]) != 1 or len(stepped[t]) != 1:
                measurement.reasons[label] = (
                    f"{modules[t]} calls scaled_dot_product_attention {len(calls[t])} times in one forward pass; "
                    "queries and keys are read from one such call"
                )
                continue
            before = _retrieval(calls[t][0], position_BQ)
            after_BHQK = _retrieval(stepped[t][0], position_BQ).query_BHQK
            energy_BHQ = retrieval_energy(before, before.query_BHQK)
            found[t].energy.append(energy_BHQ)
            found[t].change.append(retrieval_energy(before, after_BHQK) - energy_BHQ)
            found[t].keys.append(keys_holding(before))
            visible_BHQ = (scores(before, before.query_BHQK) > -torch.inf).sum(-1)
            found[t].visible.append(visible_BHQ)
    for label, one in zip(labels, found, strict=True):
        if label not in measurement.reasons:
            _add(measurement, label, one)


def _paired(measurement: Measurement, layers: Sequence[str], attention: Sequence[str]) -> dict[int, str]:
    """The attention module of each layer by the layer's index; a reason for each layer without exactly one."""
    pairs = {}
    for t, layer in enumerate(layers):
        own = [name for name in attention if name.startswith(f"{layer}.")]
        if len(own) == 1:
            pairs[t] = own[0]
        else:
            measurement.reasons[f"attention/layer_{t:02d}"] = (
                f"{layer} has {len(own)} attention modules that are known; retrieval is measured where there is one"
            )
    return pairs


def _add(measurement: Measurement, label: str, found: _Found) -> None:
    energy_BHQ, change_BHQ = torch.cat(found.energy), torch.cat(found.change)
    bad = int((~(energy_BHQ.isfinite() & change_BHQ.isfinite())).sum())
    if bad:
        measurement.reasons[label] = f"{bad} of {energy_BHQ.numel()} retrieval energies are not finite"
        return
    measurement.add_distribution(f"{label}/energy", energy_BHQ.mean((0, 2)))
    measurement.add_distribution(f"{label}/energy_change", change_BHQ.mean((0, 2)))
    measurement.add(f"{label}/steps_lowering_energy", float((change_BHQ < 0).double().mean()))
    measurement.add_distribution(f"{label}/keys_for_90_percent", torch.cat(found.keys).double().mean((0, 2)))
    measurement.add(f"{label}/keys_visible_mean", float(torch.cat(found.visible).double().mean()))
