"""OpenELM (Mehta et al. 2024, arXiv 2404.14619): heads and feed-forward widths that grow from layer to layer.

Layer i of L takes the multipliers at i/(L − 1) between the least and the largest, rounded to two decimals as in the
released configurations: query width = d·α in whole heads, a multiple of the queries that share a key; feed-forward
width = d·β in multiples of the divisor. Rounding to a multiple is to the nearest, at least one, and one more where it
would lose over a tenth (Sandler et al. 2018).

The published shapes model_1, model_2 and model_3 are those trained on SPGC in arXiv 2405.08707. Their heads are printed
and do not follow from the printed multipliers 0.5 to 1.0, so they are given here layer by layer. Their feed-forward
widths are not printed. Counted with norms, model_1 is its 39.95 M exactly if the widths sum to 10 240, and model_3 its
80.20 M at 14 592; multipliers 0.75 to 1.8 give both sums and are a guess from that. No widths in multiples of 256 give
model_2 its 60.26 M with the printed width and heads: 59.50 M and 60.48 M are nearest, and 0.75 to 1.6 gives the latter.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from amscale.models.family import Family, FamilySettings
from amscale.models.shape import Dimensions, ParameterCounts, Shape
from amscale.settings import parse_size

if TYPE_CHECKING:
    from torch import nn


class Published(NamedTuple):
    """A published shape, layer by layer."""

    width: int
    query_heads: tuple[int, ...]
    feed_forward_multipliers: tuple[float, float]


PUBLISHED = {
    "model_1": Published(954, (6, 6, 6, 6, 8, 8, 8, 10), (0.75, 1.8)),
    "model_2": Published(1280, (6, 6, 6, 6, 8, 8, 8, 10), (0.75, 1.6)),
    "model_3": Published(1440, (6, 6, 6, 8, 8, 8, 10, 10), (0.75, 1.8)),
}
"""Shapes of arXiv 2405.08707; every two query heads share a key head there."""


def _name_or_size(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value in PUBLISHED):
        return value
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"{error}, or one of {', '.join(PUBLISHED)}") from None


NameOrSize = Annotated[
    Annotated[int, Field(ge=1)] | Literal["model_1", "model_2", "model_3"] | None, BeforeValidator(_name_or_size)
]
Multipliers = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class OpenELMSettings(FamilySettings):
    """OpenELM: layer-wise scaling, grouped-query attention with normed queries and keys, rotary positions, RMSNorm
    before each block, SwiGLU, an output head tied to the embedding, no biases. Weights start with deviation 0.02."""

    family: Literal["openelm"] = "openelm"
    """OpenELM."""
    size: NameOrSize = None  # type: ignore[assignment]
    """Wanted number of parameters N, counted as `count` says, or a published shape: model_1, model_2, model_3.
    None where layers and width are given."""
    qkv_multipliers: Multipliers = (0.5, 1.0)
    """Query width / width in the first and in the last layer, linear between."""
    feed_forward_multipliers: Multipliers = (0.5, 4.0)
    """Feed-forward width / width in the first and in the last layer, linear between."""
    feed_forward_divisor: int = Field(256, ge=1)
    """Feed-forward widths are multiples of this."""
    head_dimension: int = Field(64, ge=2, multiple_of=2)
    """Dimension of an attention head."""
    queries_per_key: int = Field(2, ge=1)
    """Query heads that share a key and value head."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Probability of dropout on embeddings and attention weights."""
    pretrained: str | None = None
    """Start from released weights: a folder with `model.safetensors`, or a name on the Hugging Face hub such as
    `apple/OpenELM-270M`. Layers, width and multipliers are to be given as theirs. None: from scratch."""

    @model_validator(mode="after")
    def _published_is_whole(self) -> "OpenELMSettings":
        if isinstance(self.size, str):
            fixed = ("qkv_multipliers", "feed_forward_multipliers", "feed_forward_divisor", "head_dimension")
            given = [name for name in (*fixed, "queries_per_key") if name in self.model_fields_set]
            if given:
                raise ValueError(f"{self.size} fixes {', '.join(given)}; drop them, or give layers and width")
        if self.heads is not None:
            raise ValueError("openelm's heads follow from qkv_multipliers and head_dimension; drop heads")
        return self


@dataclass(frozen=True)
class OpenELMOptions:
    """The settings that a shape keeps, with what a published shape fixes."""

    qkv_multipliers: tuple[float, float]
    feed_forward_multipliers: tuple[float, float]
    feed_forward_divisor: int
    head_dimension: int
    queries_per_key: int
    dropout: float
    published_heads: tuple[int, ...] | None = None
    """Query heads of each layer where a published shape prints them."""
    pretrained: str | None = None


def _multiple(wanted: np.ndarray, divisor: int) -> np.ndarray:
    """Return the nearest multiple of the divisor, at least one, and one more where that loses over a tenth."""
    near = np.maximum(divisor, (wanted + divisor / 2) // divisor * divisor)
    return (near + divisor * (near < 0.9 * wanted)).astype(np.int64)


def _scaled(layers: int, widths: Any, multipliers: tuple[float, float], divisor: int) -> np.ndarray:
    """Return a dimension of every layer: [..., layers] for widths [...]."""
    return _multiple(np.asarray(widths)[..., None] * np.linspace(*multipliers, num=layers).round(2), divisor)


def query_heads(layers: int, widths: Any, options: OpenELMOptions) -> np.ndarray:
    """Return the query heads of every layer: [..., layers] for widths [...]."""
    if options.published_heads is not None:
        return np.array(options.published_heads)
    whole = options.head_dimension * options.queries_per_key
    return _scaled(layers, widths, options.qkv_multipliers, whole) // options.head_dimension


def feed_forward_widths(layers: int, widths: Any, options: OpenELMOptions) -> np.ndarray:
    """Return the hidden width of every layer's feed-forward block: [..., layers] for widths [...]."""
    return _scaled(layers, widths, options.feed_forward_multipliers, options.feed_forward_divisor)


def _sums(layers: Any, width: Any, options: OpenELMOptions) -> tuple[Any, Any]:
    """Return query heads and feed-forward widths, each summed over the layers, for one shape or arrays of them."""
    if np.ndim(layers) == 0:
        heads = query_heads(layers, width, options).sum(-1)
        return int(heads), int(feed_forward_widths(layers, width, options).sum(-1))
    heads, hidden = np.empty_like(layers), np.empty_like(layers)
    for depth in np.unique(layers):
        rows = layers == depth
        heads[rows] = query_heads(int(depth), width[rows], options).sum(-1)
        hidden[rows] = feed_forward_widths(int(depth), width[rows], options).sum(-1)
    return heads, hidden


class OpenELM(Family):
    """OpenELM: heads and hidden widths differ from layer to layer."""

    settings = OpenELMSettings
    presets = {name: (len(p.query_heads), p.width, max(p.query_heads)) for name, p in PUBLISHED.items()}  # noqa: RUF012
    derives_heads = True

    def options(self, settings: OpenELMSettings) -> OpenELMOptions:
        """Return the settings of a shape; a published size brings its heads and feed-forward multipliers."""
        published = PUBLISHED.get(str(settings.size))
        return OpenELMOptions(
            settings.qkv_multipliers,
            published.feed_forward_multipliers if published else settings.feed_forward_multipliers,
            settings.feed_forward_divisor,
            settings.head_dimension,
            settings.queries_per_key,
            settings.dropout,
            published.query_heads if published else None,
            settings.pretrained,
        )

    def heads(self, layers: int, width: int, options: OpenELMOptions) -> int:
        """Return the query heads of the layer that has the most."""
        return int(query_heads(layers, width, options).max())

    def feed_forward(self, layers: int, width: int, options: OpenELMOptions) -> int:
        """Return the hidden width of the widest layer."""
        return int(feed_forward_widths(layers, width, options).max())

    def counts(self, dimensions: Dimensions) -> ParameterCounts:
        """Return the exact parameter counts of a network."""
        return self._counts(dimensions.layers, dimensions.width, dimensions.vocabulary, dimensions.options)

    def counts_of_many(
        self, layers: Any, width: Any, heads: Any, vocabulary: int, context: int, options: OpenELMOptions
    ) -> ParameterCounts:
        """Return the exact counts of many shapes, as arrays [shapes] like `layers` and `width`."""
        return self._counts(layers, width, vocabulary, options)

    def _counts(self, layers: Any, width: Any, vocabulary: int, options: OpenELMOptions) -> ParameterCounts:
        queries, hidden = _sums(layers, width, options)
        keys = queries // options.queries_per_key
        return ParameterCounts(
            embedding=vocabulary * width,
            output_head=0 * width,
            attention=(2 * queries + 2 * keys) * options.head_dimension * width,
            feed_forward=3 * width * hidden,
            norms_and_rest=(2 * layers + 1) * width + 2 * layers * options.head_dimension,
            tied=True,
        )

    def matmul_weights(self, shape: Shape) -> int:
        """Return attention and feed-forward parameters, all of them matrices, and the output head."""
        return shape.parameters.under("non_embedding") + shape.width * shape.vocabulary

    def query_heads(self, shape: Shape) -> int:
        """Return the query heads, summed over the layers."""
        return int(query_heads(shape.layers, shape.width, shape.options).sum())

    def query_width(self, shape: Shape) -> int:
        """Return the width of the queries, summed over the layers."""
        return self.query_heads(shape) * int(shape.options.head_dimension)

    def activations_per_token(self, shape: Shape, element: int, mask: int) -> float:
        """Return the bytes that one token keeps for the backward pass, without attention scores and logits.

        Each layer keeps, in widths: both norms' inputs, normalised and scaled outputs; of the query width: queries and
        keys before and after their norm and rotation, values, the attention output in two layouts; of the hidden width:
        gate, its sigmoid product, value and their product.
        """
        options = shape.options
        queries, hidden = _sums(shape.layers, shape.width, options)
        keys = queries // options.queries_per_key
        q, k = queries * options.head_dimension, keys * options.head_dimension
        elements = 6 * shape.layers * shape.width + 6 * q + 6 * k + 4 * hidden
        masks = mask * shape.width if options.dropout else 0
        return float(elements * element + masks + 3 * shape.width * element)

    def cpu_scores(self, shape: Shape) -> float:
        """Return 3 with dropout, which keeps the weights, the mask and their product; else 0."""
        return 3 if shape.options.dropout else 0

    def build(self, shape: Dimensions) -> "nn.Module":
        """Return the network, freshly initialised or with released weights.

        Raises:
            InputError: the weights cannot be had or do not fit the shape.
        """
        from amscale.models.networks.openelm import build

        heads = query_heads(shape.layers, shape.width, shape.options)
        hidden = feed_forward_widths(shape.layers, shape.width, shape.options)
        return build(shape, heads.tolist(), hidden.tolist())
