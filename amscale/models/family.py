"""What a model family declares: its settings, its counts, and where its network is written.

A family is one light module (`vanilla.py`), free of torch, and one that holds the network (`vanilla_network.py`), which
is imported only when a model is built. A network module has `build(shape)`; the model that it returns has the methods
`residual_names()`, `attention_names()` and `final_norm_name()`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import Field

from amscale.models.shape import Convention, ParameterCounts, Shape
from amscale.settings import Settings, Size


class FamilySettings(Settings):
    """Settings that every family shares. Give a size, or layers and width, or a size and some of the dimensions."""

    family: str
    """Name of the model family."""
    size: Size | None = Field(None, ge=1)
    """Wanted number of parameters N, counted as `count` says. None where layers and width are given."""
    count: Convention = "non_embedding"
    """The parameters that `size` counts. The default is attention and feed-forward only."""
    layers: int | None = Field(None, ge=1)
    """Number of layers. None: chosen for the size."""
    width: int | None = Field(None, ge=2)
    """Width d of the residual stream. None: chosen for the size."""
    heads: int | None = Field(None, ge=1)
    """Attention heads; they divide the width. None: head dimension near 2·√width, at most 64."""


class Counts(Protocol):
    """Parameter counts of a family. Takes integers, or NumPy arrays of them for many shapes at once."""

    def __call__(
        self, layers: int, width: int, heads: int, feed_forward: int, vocabulary: int, context: int, options: Any
    ) -> ParameterCounts: ...


@dataclass(frozen=True, eq=False)
class Family:
    """One model family. There is one object for each, compared by identity."""

    name: str
    network: str
    """Module that holds the network."""
    options: Callable[[Any], Any]
    """The family's own choices, from its settings, as a frozen dataclass."""
    counts: Counts
    matmul_weights: Callable[[Shape], int]
    """Weights that multiply activations in one forward pass, the output head (tied or not) included."""
    activations_per_token: Callable[[Shape, int, int], float]
    """Bytes kept for the backward pass per token, for so many bytes an element and an element of a dropout mask, with
    attention scores and logits left out."""
    cpu_scores: Callable[[Shape], float]
    """Float32 values for each query and key that attention on a CPU keeps per head; 0 where its fused kernel runs."""
    check: Callable[[Shape], None]
    """Raises InputError where the family cannot have such a shape."""
    presets: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Published sizes by name: (layers, width, heads)."""
    feed_forward: Callable[[Any, Any, Any], Any] = lambda layers, width, options: 4 * width
    """feed_forward(layers, width, options): hidden width of the feed-forward blocks, the largest where layers differ.
    Takes arrays as `counts` does."""
    heads: Callable[[int, int, Any], int] | None = None
    """heads(layers, width, options) of a family that derives its heads by itself, the most where layers differ."""
    default_dimensions: Callable[[Any], tuple[int, int, int] | None] = lambda options: None
    """(layers, width, heads) of the options where neither a size nor a width is given; None: that is an error."""
    width_multiple: Callable[[Any], int] = lambda options: 1
    """Of what a width that is searched for must be a multiple."""
    query_heads: Callable[[Shape], int] = lambda shape: shape.layers * shape.heads
    """Query heads, summed over the layers."""
    query_width: Callable[[Shape], int] = lambda shape: shape.layers * shape.width
    """Width of the queries (heads times head dimension), summed over the layers."""
    mean_keys: Callable[[Shape], float] = lambda shape: (shape.context + 1) / 2
    """Keys that a query meets, averaged over the positions of a sequence and the layers."""


def dense_matmul_weights(shape: Shape) -> int:
    """Multi-head attention (four d × d), a two-matrix feed-forward block in each layer, and the output head."""
    layer = 4 * shape.width**2 + 2 * shape.width * shape.feed_forward
    return shape.layers * layer + shape.width * shape.vocabulary
