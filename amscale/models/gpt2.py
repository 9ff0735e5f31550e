"""GPT-2, as the transformers library implements it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from amscale.models.family import Family, FamilySettings, dense_matmul_weights
from amscale.models.shape import ParameterCounts, Shape
from amscale.settings import parse_size

PRESETS = {"small": (12, 768, 12), "medium": (24, 1024, 16), "large": (36, 1280, 20), "xl": (48, 1600, 25)}
"""Layers, width and heads of the published models (Radford et al. 2019)."""


def _name_or_size(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value in PRESETS):
        return value
    try:
        size = parse_size(value)
    except ValueError as error:
        raise ValueError(f"{error}, or one of {', '.join(PRESETS)}") from None
    if size < 1:
        raise ValueError(f"{value!r} is not a size; it must be at least 1")
    return size


NameOrSize = Annotated[int | Literal["small", "medium", "large", "xl"] | None, BeforeValidator(_name_or_size)]


class GPT2Settings(FamilySettings):
    """GPT-2: pre-LN, GELU, learned positions, output head tied to the embedding. Feed-forward width is 4 × width."""

    family: Literal["gpt2"] = "gpt2"
    """GPT-2."""
    size: NameOrSize = None  # type: ignore[assignment]
    """Wanted number of parameters N, counted as `count` says, or a published model: small, medium, large, xl.
    None where layers and width are given."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Probability of dropout on embeddings, attention weights and block outputs."""


@dataclass(frozen=True)
class GPT2Options:
    dropout: float


def _counts(
    layers: int, width: int, heads: int, feed_forward: int, vocabulary: int, context: int, options: GPT2Options
) -> ParameterCounts:
    return ParameterCounts(
        embedding=(vocabulary + context) * width,
        output_head=0 * width,
        attention=layers * (4 * width**2 + 4 * width),
        feed_forward=layers * (2 * width * feed_forward + feed_forward + width),
        norms_and_rest=(2 * layers + 1) * 2 * width,
        tied=True,
    )


def _activations_per_token(shape: Shape, element: int, mask: int) -> float:
    """Kept of each layer: both norms' inputs and outputs, q, k, v, attention output, and of the hidden layer the input
    of GELU, its three factors (tanh and two products) and its output."""
    elements = 8 * shape.width + 5 * shape.feed_forward
    masks = mask * 2 * shape.width if shape.options.dropout else 0
    statistics = 4 * (4 + shape.heads)  # float32: mean and deviation of two norms, logsumexp of each head
    return shape.layers * (elements * element + masks + statistics) + 2 * shape.width * element


def _check(layers: int, width: int, heads: int, options: GPT2Options) -> None:
    """Any shape whose heads divide its width will do."""


FAMILY = Family(
    name="gpt2",
    network="amscale.models.gpt2_network",
    options=lambda settings: GPT2Options(settings.dropout),
    counts=_counts,
    matmul_weights=dense_matmul_weights,
    activations_per_token=_activations_per_token,
    cpu_scores=lambda shape: 3 if shape.options.dropout else 0,
    check=_check,
    presets=PRESETS,
)
