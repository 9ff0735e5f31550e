"""Which model of the transformers library, and which fields of its configuration.

Any causal language model of the transformers library, from scratch, in any size.

The architecture's configuration is scaled: layers, width and heads follow the same rules as in every family, and
feed-forward widths, key heads and experts keep their proportions. Parameters are counted on models that hold no
memory (torch's meta device), so this family imports torch and transformers where others need neither.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from amscale.errors import InputError
from amscale.models.family import Family, FamilySettings
from amscale.models.shape import ParameterCounts, Shape


class HubSettings(FamilySettings):
    """A causal language model of the transformers library. Without a size and a width it is the architecture's own
    shape; its weights always start from scratch."""

    family: Literal["hub"] = "hub"
    """An architecture of the transformers library."""
    architecture: str
    """Model type such as llama, mistral, mixtral or qwen3; or a folder with `config.json`, or a name on the Hugging
    Face hub, whose configuration is taken."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Fields of the configuration that are kept as given here, such as sliding_window or num_local_experts."""
    trust_remote_code: bool = False
    """Run Python code that comes with a configuration."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


@dataclass(frozen=True)
class HubOptions:
    """What of the settings a shape keeps: enough to make the configuration again."""

    architecture: str
    """Model type."""
    base: str
    """Fields of the configuration that is scaled, as JSON; empty: the type's defaults."""
    given: str
    """Fields that the settings give, as JSON."""
    remote_code: str | None
    """Where trusted code comes from."""


def _options(settings: HubSettings) -> HubOptions:
    from amscale.models.hub_configuration import options_of

    return options_of(settings)


def _default_dimensions(options: HubOptions) -> tuple[int, int, int]:
    from amscale.models.hub_configuration import default_dimensions

    return default_dimensions(options)


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
    from amscale.models.hub_costs import count, count_many

    if np.ndim(layers) == 0:
        return count(options, layers, width, heads, vocabulary, context).parameters
    return count_many(options, layers, width, heads, vocabulary, context)


def _counted(shape: Shape) -> Any:
    from amscale.models.hub_costs import count

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
    from amscale.models.hub_costs import kept

    found = kept(shape, element)
    own = found.per_width * shape.width + found.per_hidden * shape.feed_forward + found.constant
    scores = 0.0 if found.fused else found.per_score * shape.heads * shape.context
    return shape.layers * (own + scores) + 3 * shape.width * element


def _cpu_scores(shape: Shape) -> float:
    from amscale.models.hub_costs import kept

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
    network="amscale.models.networks.hub",
    options=_options,
    counts=_counts,
    matmul_weights=lambda shape: _counted(shape).matrices + shape.width * shape.vocabulary,
    activations_per_token=_activations_per_token,
    cpu_scores=_cpu_scores,
    check=_check,
    feed_forward=_feed_forward,
    default_dimensions=_default_dimensions,
    width_multiple=_width_multiple,
    query_width=lambda shape: shape.layers * _counted(shape).query_width,
    mean_keys=_mean_keys,
)
