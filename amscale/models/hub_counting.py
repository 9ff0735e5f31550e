"""Parameters of a transformers model by component, counted on the meta device, where a model holds no memory."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig

from amscale.errors import InputError
from amscale.models.hub_configuration import EXPERTS, configuration, experts_per_token
from amscale.models.hub_network import layers_of, model_class
from amscale.models.hub_settings import HubOptions
from amscale.models.shape import ParameterCounts

_NORM = re.compile(r"norm|^ln_?\w{0,5}$|layer_?norm")
_FEED_FORWARD = re.compile(r"mlp|ffn|feed_?forward|expert|moe|^fc\d?$|router")


@dataclass(frozen=True)
class Counted:
    """What one configuration's model holds."""

    parameters: ParameterCounts
    matrices: int
    """Weights of the layers that multiply activations, of the experts those that one token passes through."""
    query_width: int
    """Width of a layer's queries."""
    windows: tuple[int | None, ...]
    """Sliding window of each layer, None where it sees everything; empty where no layer has one."""


@dataclass
class _Part:
    attention: int = 0
    feed_forward: int = 0
    active: int = 0
    norms: int = 0
    matrices: int = 0


def meta_model(config: PretrainedConfig, remote_code: str | None) -> nn.Module:
    """The model without memory for its parameters; randomness elsewhere is untouched.

    Raises:
        InputError: the library cannot build it.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model: nn.Module = model_class(config, remote_code)(config)
    except (ValueError, TypeError, AttributeError, ZeroDivisionError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"model.options: transformers cannot build {config.model_type} of this shape: {said}"
        ) from None
    return model


def _count_layer(layer: nn.Module, config: PretrainedConfig) -> _Part:
    """A layer's parameters: norms by name, feed-forward by name, and what else mixes tokens as attention."""
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
    """Elements of a parameter that one token meets: all, or of a stack of experts as many as a token is sent to."""
    if "experts" not in words:
        return parameter.numel()
    stack = layer.get_submodule(".".join(words[: words.index("experts") + 1]))
    experts = len(stack) if isinstance(stack, nn.ModuleList) else parameter.shape[0]
    chosen = experts_per_token(config)
    if chosen is None:
        raise InputError(
            f"model.architecture: {config.model_type} has experts but no field of {', '.join(EXPERTS)}, so its active "
            "parameters are not known; choose another architecture"
        )
    return parameter.numel() * min(chosen, experts) // experts


@lru_cache(maxsize=4096)
def _parts(
    options: HubOptions, layers: int, width: int, heads: int, vocabulary: int, context: int
) -> tuple[ParameterCounts, tuple[_Part, ...], PretrainedConfig]:
    """What is outside the layers (as counts), and each layer."""
    config = configuration(options, layers, width, heads, vocabulary, context)
    model: Any = meta_model(config, options.remote_code)
    name, stack = layers_of(model)
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
    """Counts of so many layers of each part beside what is outside them."""
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
    """Exact counts of one shape, from its whole model."""
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
    """Counts of many shapes: each (width, heads) is counted with two layers, the second of which stands for all
    after the first."""
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
