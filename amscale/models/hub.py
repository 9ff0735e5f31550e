"""Any causal language model of the transformers library, from scratch, in any size.

The architecture's configuration is scaled: layers, width and heads follow the same rules as in every family, and
feed-forward widths, key heads and experts keep their proportions. Parameters are counted on models that hold no
memory (torch's meta device), so this family imports torch and transformers where others need neither.
"""

from typing import Any

import numpy as np

from amscale.errors import InputError
from amscale.models.family import Family
from amscale.models.hub_settings import HubOptions, HubSettings
from amscale.models.shape import ParameterCounts, Shape


def _options(settings: HubSettings) -> HubOptions:
    from amscale.models.hub_configuration import options_of

    return options_of(settings)


def _standing(options: HubOptions) -> tuple[int, int, int]:
    from amscale.models.hub_configuration import standing

    return standing(options)


def _width_multiple(options: HubOptions) -> int:
    from amscale.models.hub_configuration import width_multiple

    return width_multiple(options)


def _feed_forward(layers: Any, width: Any, options: HubOptions) -> Any:
    from amscale.models.hub_configuration import feed_forward

    return feed_forward(width, options) if np.ndim(layers) == 0 else 0 * width


def _counts(
    layers: Any, width: Any, heads: Any, feed_forward: Any, vocabulary: int, context: int, options: HubOptions
) -> ParameterCounts:
    """Exact for one shape. For arrays of them each width is counted once, and every layer is taken to be like the
    second."""
    from amscale.models.hub_counting import count, count_many

    if np.ndim(layers) == 0:
        return count(options, layers, width, heads, vocabulary, context).parameters
    return count_many(options, layers, width, heads, vocabulary, context)


def _counted(shape: Shape) -> Any:
    from amscale.models.hub_counting import count

    return count(shape.options, shape.layers, shape.width, shape.heads, shape.vocabulary, shape.context)


def _mean_keys(shape: Shape) -> float:
    """Keys that a query meets, where some or all layers see only a sliding window."""
    whole = (shape.context + 1) / 2
    windows = _counted(shape).windows
    if not windows:
        return whole
    met = [whole if w is None or w >= shape.context else w - w * (w - 1) / (2 * shape.context) for w in windows]
    return sum(met) / len(met)


def _activations_per_token(shape: Shape, element: int, mask: int) -> float:
    from amscale.models.hub_memory import kept

    found = kept(shape, element)
    own = found.per_width * shape.width + found.per_hidden * shape.feed_forward + found.constant
    scores = 0.0 if found.fused else found.per_score * shape.heads * shape.context
    return shape.layers * (own + scores) + 3 * shape.width * element


def _cpu_scores(shape: Shape) -> float:
    from amscale.models.hub_memory import kept

    found = kept(shape, 4)
    return found.per_score / 4 if found.fused else 0.0


def _check(shape: Shape) -> None:
    from amscale.models.hub_configuration import configuration, width_multiple

    width, multiple = shape.width, width_multiple(shape.options)
    if width % multiple:
        raise InputError(
            f"model.width = {width}: a mixture of experts needs a multiple of {multiple}; give "
            f"{width + multiple - width % multiple}"
        )
    made = configuration(shape.options, shape.layers, width, shape.heads, shape.vocabulary, shape.context)
    keys = getattr(made, "num_key_value_heads", None)
    if keys is not None and shape.heads % keys:
        raise InputError(
            f"model.options.num_key_value_heads = {keys} does not divide {shape.heads} heads; give one that does, or "
            "model.heads"
        )


FAMILY = Family(
    name="hub",
    network="amscale.models.hub_network",
    options=_options,
    counts=_counts,
    matmul_weights=lambda shape: _counted(shape).matrices + shape.width * shape.vocabulary,
    activations_per_token=_activations_per_token,
    cpu_scores=_cpu_scores,
    check=_check,
    feed_forward=_feed_forward,
    standing=_standing,
    width_multiple=_width_multiple,
    query_width=lambda shape: shape.layers * _counted(shape).query_width,
    mean_keys=_mean_keys,
)
