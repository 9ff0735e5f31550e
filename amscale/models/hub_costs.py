"""Parameters and memory of a transformers architecture, read off its models.

Parameters are counted by component on the meta device, where a model takes no memory. What the forward pass keeps for
the backward pass is measured on models a few numbers wide: a layer is taken to keep a·width + b·hidden +
c·heads·context + constant bytes per token, and four tiny models that differ in one of these at a time give the four
coefficients, each from what a second layer adds.
"""

import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig

from amscale.errors import InputError
from amscale.models.hub_configuration import (
    EXPERTS,
    WIDTHS,
    base_configuration,
    configuration,
    experts_per_token,
    scaled_configuration,
)
from amscale.models.hub_settings import HubOptions
from amscale.models.measure import moved_by_later_tokens
from amscale.models.networks.hub import layers_of, model_class, wrap
from amscale.models.shape import ParameterCounts, Shape

_NORM = re.compile(r"norm|^ln_?\w{0,5}$|layer_?norm")
_FEED_FORWARD = re.compile(r"mlp|ffn|feed_?forward|expert|moe|^fc\d?$|router")


@dataclass(frozen=True)
class Counted:
    """The counts of one model."""

    parameters: ParameterCounts
    matrices: int
    """Weights of the layers that multiply activations, of the experts those that one token passes through."""
    query_width: int
    """Width of a layer's queries."""
    windows: tuple[int | None, ...]
    """Sliding window of each layer, None where it sees everything; empty where no layer has one."""


@dataclass
class _Part:
    """Counts of one layer, or arrays of them."""

    attention: int = 0
    feed_forward: int = 0
    active: int = 0
    norms: int = 0
    matrices: int = 0


def meta_model(config: PretrainedConfig, remote_code: str | None) -> nn.Module:
    """Return the model without memory for its parameters; torch's random state stays as it was.

    Raises:
        InputError: the library cannot build it.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model: nn.Module = model_class(config, remote_code)(config)
    except Exception as error:  # the classes fail with exceptions of many kinds
        raise _cannot("build", config, error) from None
    return model


def _cannot(what: str, config: PretrainedConfig, error: Exception) -> InputError:
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    unset = [name for name in UNSET if vars(config).get(name, 0) is None]
    if isinstance(error, KeyError) and "attention" in str(error):  # a kind of layers that so few layers do not have
        unset = ["layer_types"]
    advice = f"give model.options.{unset[0]}" if unset else "give other fields in model.options"
    return InputError(
        f"model.architecture = {config.model_type}: transformers cannot {what} this shape ({said}); {advice}, or "
        "choose another architecture"
    )


def _count_layer(layer: nn.Module, config: PretrainedConfig) -> _Part:
    """Count a layer's parameters: norms by name, feed-forward by name, and everything else as attention."""
    part = _Part()
    for name, parameter in layer.named_parameters():
        size, words = parameter.numel(), name.split(".")
        if any(_NORM.search(word) for word in words[:-1]):
            part.norms += size
            continue
        active = _active(layer, words, parameter, config)
        if any(_FEED_FORWARD.search(word) for word in words):
            part.feed_forward += size
            part.active += active
        else:
            part.attention += size
        part.matrices += active if parameter.dim() >= 2 and not name.endswith("bias") else 0
    return part


def _active(layer: nn.Module, words: list[str], parameter: nn.Parameter, config: PretrainedConfig) -> int:
    """Return the elements of a parameter that one token meets: all, or of stacked experts those that it is sent to."""
    if "experts" not in words:
        return parameter.numel()
    stack = layer.get_submodule(".".join(words[: words.index("experts") + 1]))
    experts = len(stack) if isinstance(stack, nn.ModuleList) else parameter.shape[0]
    chosen = experts_per_token(config)
    if chosen is None:
        raise InputError(
            f"model.architecture = {config.model_type}: no field says how many experts a token is sent to; give "
            f"model.options.{next((name for name in EXPERTS if name in vars(config)), EXPERTS[0])}"
        )
    return parameter.numel() * min(chosen, experts) // experts


@lru_cache(maxsize=4096)
def _parts(
    options: HubOptions, layers: int, width: int, heads: int, vocabulary: int, context: int
) -> tuple[ParameterCounts, tuple[_Part, ...], PretrainedConfig]:
    """Return the counts outside the layers, those of each layer, and the configuration."""
    config = scaled_configuration(options, layers, width, heads, vocabulary, context)
    model: Any = meta_model(config, options.remote_code)
    name, stack = layers_of(model)
    if len(stack) != layers:
        lists = [key for key in ("layers_block_type", "layer_types") if vars(config).get(key)]
        advice = f", or model.options.{lists[0]} with as many entries" if lists else ""
        raise InputError(
            f"model.layers = {layers}: {config.model_type} makes {len(stack)} of it; give another number{advice}"
        )
    head = model.get_output_embeddings()
    inside = name + "."
    embedding = output_head = rest = 0
    own_head = {id(parameter) for parameter in head.parameters()} if head is not None else set()
    embeddings = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.startswith(inside):
            continue
        if id(parameter) in embeddings:
            embedding += parameter.numel()
        elif id(parameter) in own_head:
            output_head += parameter.numel()
        else:
            rest += parameter.numel()
    tied = bool(own_head & embeddings)
    outside = ParameterCounts(embedding, output_head, 0, 0, rest, tied)
    return outside, tuple(_count_layer(layer, config) for layer in stack), config


def _whole(outside: ParameterCounts, parts: list[tuple[Any, _Part]]) -> ParameterCounts:
    """Return the counts of so many layers of each part and of what is outside the layers."""
    feed_forward = sum(n * part.feed_forward for n, part in parts)
    active = sum(n * part.active for n, part in parts)
    return ParameterCounts(
        embedding=outside.embedding,
        output_head=outside.output_head,
        attention=sum(n * part.attention for n, part in parts),
        feed_forward=feed_forward,
        norms_and_rest=outside.norms_and_rest + sum(n * part.norms for n, part in parts),
        tied=outside.tied,
        active_feed_forward=None if np.all(active == feed_forward) else active,
    )


@lru_cache(maxsize=4096)
def count(options: HubOptions, layers: int, width: int, heads: int, vocabulary: int, context: int) -> Counted:
    """Return the exact counts of one shape, from its whole model."""
    outside, parts, config = _parts(options, layers, width, heads, vocabulary, context)
    head_dimension = getattr(config, "head_dim", None) or width // heads
    return Counted(
        parameters=_whole(outside, [(1, part) for part in parts]),
        matrices=sum(part.matrices for part in parts),
        query_width=heads * head_dimension,
        windows=_windows(config, layers),
    )


def _windows(config: PretrainedConfig, layers: int) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    if not window:
        return ()
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * layers
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def count_many(
    options: HubOptions, layers: Any, width: Any, heads: Any, vocabulary: int, context: int
) -> ParameterCounts:
    """Return the counts of many shapes, as arrays [shapes] like `layers`, `width` and `heads`.

    Each (width, heads) is counted with two layers, and every further layer taken to be like the second.
    """
    pairs, where = np.unique(np.stack([width, heads]), axis=1, return_inverse=True)
    columns = []
    for w, h in pairs.T.tolist():
        outside, (first, second), _ = _parts(options, 2, w, h, vocabulary, context)
        fields = ("attention", "feed_forward", "active", "norms")
        head = [outside.embedding, outside.output_head, outside.norms_and_rest]
        columns.append(head + [getattr(p, f) for p in (first, second) for f in fields])
    rows: Any = np.array(columns).T[:, where.reshape(-1)]
    outside = ParameterCounts(rows[0], rows[1], 0, 0, rows[2])
    return _whole(outside, [(1, _Part(*rows[3:7])), (layers - 1, _Part(*rows[7:11]))])


UNSET = (
    "n_routed_experts",
    "num_local_experts",
    "num_experts",
    "num_experts_per_tok",
    "layer_types",
    "default_language",
)
"""Fields that configurations leave unset although their models need them."""
_HEAD_WIDTH, _HIDDEN, _CONTEXT, _BATCH, _VOCABULARY = 16, 64, 16, 2, 16


@dataclass(frozen=True)
class Kept:
    """Bytes that one layer keeps of one token."""

    per_width: float
    per_hidden: float
    per_score: float
    """For each head and key."""
    constant: float
    fused: bool
    """Whether a GPU's attention kernel spares it the scores."""


def measure_kept(shape: Shape, element: int) -> Kept:
    """Return the coefficients of a shape's architecture for elements of 4 (float32) or 2 (bfloat16) bytes, on a CPU."""
    config = configuration(shape)
    keys = getattr(config, "num_key_value_heads", None) or shape.heads
    head_dimension = getattr(config, "head_dim", None) or shape.width // shape.heads
    head_width = round(_HEAD_WIDTH * head_dimension * shape.heads / shape.width / 2) * 2
    return _measured(shape.options, element, shape.heads // keys, max(2, head_width))


@lru_cache(maxsize=256)
def _measured(options: HubOptions, element: int, queries_per_key: int, head_dimension: int) -> Kept:
    dtype = torch.float32 if element == 4 else torch.bfloat16
    heads = 2 * queries_per_key if queries_per_key > 1 else 4

    def layer(heads: int, hidden: int, context: int) -> float:
        tiny = _tiny(options, heads // queries_per_key, head_dimension, hidden)
        one, two = (_kept_bytes(tiny, n, heads, context, dtype) for n in (1, 2))
        return (two - one) / (_BATCH * context)

    base = layer(heads, _HIDDEN, _CONTEXT)
    per_score = max(0.0, (layer(heads, _HIDDEN, 2 * _CONTEXT) - base) / (heads * _CONTEXT))
    width = heads * _HEAD_WIDTH
    per_width = (layer(2 * heads, _HIDDEN, _CONTEXT) - base - per_score * heads * _CONTEXT) / width
    per_hidden = (layer(heads, 2 * _HIDDEN, _CONTEXT) - base) / _HIDDEN
    constant = base - per_width * width - per_hidden * _HIDDEN - per_score * heads * _CONTEXT
    fused = model_class(base_configuration(options), options.remote_code)._supports_sdpa
    return Kept(per_width, per_hidden, per_score, constant, bool(fused))


def _tiny(options: HubOptions, keys: int, head_dimension: int, hidden: int) -> HubOptions:
    """Return the options with the given key heads and head dimension, and feed-forward widths in their proportions."""
    base, given = base_configuration(options), json.loads(options.given)
    # Where each layer has a width of its own, that of the first stands for all.
    widths = {
        name: value[0] if isinstance(value, list) else value for name in WIDTHS if (value := getattr(base, name, None))
    }
    reference = next(iter(widths.values()), 1)
    given |= {name: max(2, round(value * hidden / reference)) for name, value in widths.items()}
    given |= {"num_key_value_heads": keys} if getattr(base, "num_key_value_heads", None) else {}
    own_head = base.to_dict().get("head_dim") and "qk_rope_head_dim" not in vars(base)
    given |= {"head_dim": head_dimension} if own_head else {}
    return replace(options, given=json.dumps(given, sort_keys=True))


def _kept_bytes(options: HubOptions, layers: int, heads: int, context: int, dtype: torch.dtype) -> int:
    """Return the bytes of the distinct storages that one forward pass saves, parameters aside."""
    given = json.loads(options.given)
    kinds = {name: given[name][:layers] for name in ("layer_types", "layers_block_type") if given.get(name)}
    options = replace(options, given=json.dumps(given | kinds, sort_keys=True))
    config = scaled_configuration(options, layers, heads * _HEAD_WIDTH, heads, _VOCABULARY, context)
    sizes: dict[int, int] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own: set[int] = set()
        held = []

        def pack(x: torch.Tensor) -> torch.Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
                held.append(storage)  # so that no address is used twice
            return x

        tokens_BT = torch.randint(_VOCABULARY, (_BATCH, context))
        try:
            model: Any = wrap(config, options.remote_code, context)
            moved = moved_by_later_tokens(model.eval(), tokens_BT, _VOCABULARY)
            model.to(dtype).train()
            own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
                model(tokens_BT)
        except Exception as error:  # the models fail with exceptions of many kinds
            raise _cannot("run", config, error) from None
    if not moved < 1e-3:
        raise InputError(
            f"model.architecture = {config.model_type}: no causal language model: a later token changes the logits of "
            "an earlier one, which then would be trained on what it is to predict; choose another architecture"
        )
    return sum(sizes.values())
