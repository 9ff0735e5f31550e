"""The interface of a model family: its settings, counts and costs, and how its network is built."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, make_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from amscale.models.shape import Convention, Dimensions, ParameterCounts, Shape
from amscale.settings import Settings, Size

if TYPE_CHECKING:
    from torch import nn


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


@lru_cache(maxsize=64)
def _options_class(settings: type[FamilySettings]) -> Any:
    """Return a frozen dataclass with the fields that a family's settings add to FamilySettings, in their order."""
    names = [name for name in settings.model_fields if name not in FamilySettings.model_fields]
    return make_dataclass(f"{settings.__name__}Options", names, frozen=True)


class Family(ABC):
    """A model family: what a shape of it counts, costs and is built as. Families hold no state.

    A subclass sets `settings`, whose field `family` is the family's name, and writes `build`; every other method has a
    default. Defaults that build the network cost time at planning and are exact for the shape that is taken.
    """

    settings: ClassVar[type[FamilySettings]]
    """The settings class. Its field `family` is a Literal with the family's name as its default."""
    presets: ClassVar[Mapping[str, tuple[int, int, int]]] = {}
    """Published sizes by name, for settings whose `size` takes names: (layers, width, heads)."""
    derives_heads: ClassVar[bool] = False
    """Whether `heads` replaces the heads that settings and sizing rules choose."""

    layers_name: ClassVar[str] = "layers"
    """Name of the network's `nn.ModuleList` of layers; the first output of each is the residual stream."""
    attention_name: ClassVar[str] = "attention"
    """Name of the attention module within a layer."""
    norm_name: ClassVar[str | None] = "final_norm"
    """Name of the norm between the last layer and the output head; None where there is no such norm."""
    head_name: ClassVar[str] = "head"
    """Name of the output head."""

    @property
    def name(self) -> str:
        """The value of `model.family` that selects this family."""
        return str(self.settings.model_fields["family"].default)

    # From settings to dimensions

    def source(self, settings: Any) -> str:
        """Return what identifies code of a user's that shapes depend on. Default: there is no such code."""
        return ""

    def options(self, settings: Any) -> Any:
        """Return what a shape keeps of its settings, as a frozen dataclass of plain, hashable values.

        Default: the fields that the settings class adds to FamilySettings.
        """
        cls: type[FamilySettings] = type(settings)
        options = _options_class(cls)
        return options(*[getattr(settings, field.name) for field in fields(options)])

    def fixed_dimensions(self, options: Any) -> tuple[int, int, int] | None:
        """Return (layers, width, heads) of a family whose shape no setting chooses. Default: None, it is chosen."""
        return None

    def default_dimensions(self, options: Any) -> tuple[int, int, int] | None:
        """Return (layers, width, heads) for settings without size, width and heads. Default: None, an error."""
        return None

    def width_multiple(self, options: Any) -> int:
        """Return the number of which widths that are searched for must be multiples."""
        return 1

    def heads(self, layers: int, width: int, options: Any) -> int:
        """Return the heads of a family that derives them (`derives_heads`), the most of a layer where layers differ."""
        raise NotImplementedError(f"{type(self).__name__} has derives_heads and needs a method heads")

    def feed_forward(self, layers: int, width: int, options: Any) -> int:
        """Return the hidden width of the feed-forward blocks, the largest where layers differ. Default: 4 × width."""
        return 4 * width

    def check(self, shape: Shape) -> None:  # noqa: B027
        """Check a shape before it is taken. Default: every shape will do.

        Raises:
            InputError: the family has no network of this shape.
        """

    # What a shape counts

    def counts(self, dimensions: Dimensions) -> ParameterCounts:
        """Return the exact parameter counts of a network.

        Default: those of the network that `build` returns, built without memory, each parameter assigned by the module
        names of the family (`measure.count_parameters`).
        """
        from amscale.models import measure

        return measure.count_parameters(self, dimensions)

    def counts_of_many(
        self, layers: Any, width: Any, heads: Any, vocabulary: int, context: int, options: Any
    ) -> ParameterCounts:
        """Return the counts of many shapes, as arrays, for the search of a size.

        Default: every (width, heads) is counted with one layer and with two, and each further layer taken to be like
        the second. A search whose result misses its size for that reason ends with an error.

        Args:
            layers, width, heads: integer arrays [shapes].
        """
        import numpy as np

        pairs, where = np.unique(np.stack([width, heads]), axis=1, return_inverse=True)
        rows = []
        for w, h in pairs.T.tolist():
            pair = [self.counts(self.dimensions(n, w, h, vocabulary, context, options)) for n in (1, 2)]
            rows.append([_components(counts) for counts in pair])
        one, two = np.array(rows)[where.reshape(-1)].transpose(1, 2, 0)
        embedding, head, attention, feed_forward, rest, active = one + (layers - 1) * (two - one)
        return ParameterCounts(embedding, head, attention, feed_forward, rest, active_feed_forward=active)

    def dimensions(
        self, layers: int, width: int, heads: int, vocabulary: int, context: int, options: Any
    ) -> Dimensions:
        """Return dimensions, with the hidden width and any derived heads that follow from the others."""
        return Dimensions(
            family=self.name,
            layers=layers,
            width=width,
            heads=self.heads(layers, width, options) if self.derives_heads else heads,
            feed_forward=self.feed_forward(layers, width, options),
            vocabulary=vocabulary,
            context=context,
            options=options,
        )

    # What a shape costs

    def matmul_weights(self, shape: Shape) -> int:
        """Return the weights that multiply activations in one forward pass of a token, the output head (tied or not)
        included. Default: the matrices of the layers of the network, built without memory, and the output head."""
        from amscale.models import measure

        return measure.count_layer_matrices(self, shape) + shape.width * shape.vocabulary

    def query_heads(self, shape: Shape) -> int:
        """Return the query heads, summed over the layers."""
        return shape.layers * shape.heads

    def query_width(self, shape: Shape) -> int:
        """Return the width of the queries (heads times head dimension), summed over the layers."""
        return shape.layers * shape.width

    def mean_keys(self, shape: Shape) -> float:
        """Return the keys that a query meets, averaged over positions and layers. Default: every key up to itself."""
        return (shape.context + 1) / 2

    def activations_per_token(self, shape: Shape, element: int, mask: int) -> float:
        """Return the bytes that one token keeps for the backward pass, without attention scores and logits.

        Default: those that autograd saves when the network, built without memory, runs on one sequence; attention is
        taken to keep what a fused kernel keeps.

        Args:
            element: bytes of an activation: 4 for float32, 2 for bfloat16.
            mask: bytes of an element of a dropout mask.
        """
        from amscale.models import measure

        return measure.saved_bytes(self, shape, element, mask).per_token

    def cpu_scores(self, shape: Shape) -> float:
        """Return the float32 values that attention on a CPU keeps for each head, query and key.

        Default: 3 with dropout and 1 with a learned mask, as the network calls `scaled_dot_product_attention`; else 0,
        since a fused kernel runs.
        """
        from amscale.models import measure

        return measure.saved_bytes(self, shape, 4, 4).cpu_scores

    # The network

    @abstractmethod
    def build(self, shape: Dimensions) -> "nn.Module":
        """Return the network, freshly initialised in float32 from torch's random state.

        Its forward takes tokens_BT (int64, T at most the context, else ValueError) and returns float32 logits_BTV.
        """

    def residual_names(self, model: "nn.Module") -> list[str]:
        """Return the modules whose (first) output is the residual stream x_BTD after layer 1, 2, …, in order."""
        layers: Any = model.get_submodule(self.layers_name)
        return [f"{self.layers_name}.{index}" for index in range(len(layers))]

    def attention_names(self, model: "nn.Module") -> list[str]:
        """Return the attention modules in the order of layers. The first input is x_BTD, normed in a pre-LN family."""
        return [f"{layer}.{self.attention_name}" for layer in self.residual_names(model)]

    def final_norm_name(self, model: "nn.Module") -> str | None:
        """Return the norm between the last layer and the output head; None where there is no such norm (post-LN)."""
        return self.norm_name

    def output_head_name(self, model: "nn.Module") -> str:
        """Return the module that turns the residual stream into logits."""
        return self.head_name


def _components(counts: ParameterCounts) -> list[int]:
    active = counts.active_feed_forward
    return [
        counts.embedding,
        counts.output_head,
        counts.attention,
        counts.feed_forward,
        counts.norms_and_rest,
        counts.feed_forward if active is None else active,
    ]


class DenseFamily(Family):
    """A family with multi-head attention and a feed-forward block of two matrices in each layer, whose costs need no
    network."""

    def matmul_weights(self, shape: Shape) -> int:
        """Return four d × d matrices and two of the hidden width in each layer, and the output head."""
        layer = 4 * shape.width**2 + 2 * shape.width * shape.feed_forward
        return shape.layers * layer + shape.width * shape.vocabulary
