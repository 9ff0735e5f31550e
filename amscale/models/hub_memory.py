"""Memory that a transformers architecture keeps for the backward pass, measured on models a few numbers wide.

What a layer keeps per token is taken to be a·width + b·hidden + c·heads·context + constant bytes. Four tiny models that
differ in one of these at a time give the four coefficients, each from what a second layer adds.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from amscale.models.hub_configuration import WIDTHS, base_configuration, configuration
from amscale.models.hub_network import model_class
from amscale.models.hub_settings import HubOptions
from amscale.models.shape import Shape

_HEAD_WIDTH, _HIDDEN, _CONTEXT, _BATCH, _VOCABULARY = 16, 64, 16, 2, 16


@dataclass(frozen=True)
class Kept:
    """Bytes of one layer and token."""

    per_width: float
    per_hidden: float
    per_score: float
    """For each head and key."""
    constant: float
    fused: bool
    """Whether a GPU's attention kernel spares it the scores."""


def kept(shape: Shape, element: int) -> Kept:
    """Coefficients of a shape's architecture for elements of 4 (float32) or 2 (bfloat16) bytes, as a CPU keeps them."""
    config = configuration(shape.options, shape.layers, shape.width, shape.heads, shape.vocabulary, shape.context)
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
    """The options with other feed-forward widths, in their proportions, and the given key heads and head dimension."""
    base, given = base_configuration(options), json.loads(options.given)
    widths = {name: getattr(base, name) for name in WIDTHS if getattr(base, name, None)}
    reference = next(iter(widths.values()), 1)
    given |= {name: max(2, round(value * hidden / reference)) for name, value in widths.items()}
    given |= {"num_key_value_heads": keys} if getattr(base, "num_key_value_heads", None) else {}
    given |= {"head_dim": head_dimension} if base.to_dict().get("head_dim") else {}
    return replace(options, given=json.dumps(given, sort_keys=True))


def _kept_bytes(options: HubOptions, layers: int, heads: int, context: int, dtype: torch.dtype) -> int:
    """Bytes of the distinct storages that one forward pass saves, parameters aside."""
    config = configuration(options, layers, heads * _HEAD_WIDTH, heads, _VOCABULARY, context)
    sizes: dict[int, int] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = model_class(config, options.remote_code)(config).to(dtype).train()
        own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
        held = []

        def pack(x: torch.Tensor) -> torch.Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
                held.append(storage)  # so that no address is used twice
            return x

        tokens_BT = torch.randint(_VOCABULARY, (_BATCH, context))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(input_ids=tokens_BT, use_cache=False)
    return sum(sizes.values())
