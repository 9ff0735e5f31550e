"""The shape of a model before it exists: its dimensions and parameter counts, in plain numbers."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Convention = Literal["non_embedding", "non_embedding_with_norms", "with_head", "total", "active"]
"""Which parameters count as N. `non_embedding` is attention + feed-forward; the next three add to it the norms, the
output head (a tied head adds no parameters), or everything. `active` is `non_embedding` with
only the experts that one token passes through; without experts it is `non_embedding`."""

CONVENTIONS: tuple[str, ...] = get_args(Convention)


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters by component. Together they are every parameter of the model, each counted once."""

    embedding: int
    """Token embedding and learned positions."""
    output_head: int
    """Output projection; 0 where it is tied to the token embedding."""
    attention: int
    """Query, key, value and output projections, with biases."""
    feed_forward: int
    """Feed-forward matrices, with biases."""
    norms_and_rest: int
    """Norms, and every parameter of no other component."""
    tied: bool = False
    """Whether the output head is the token embedding."""
    active_feed_forward: int | None = None
    """Feed-forward parameters that one token passes through, for a mixture of experts; None where it passes all."""

    @property
    def total(self) -> int:
        """Every parameter of the model."""
        return self.embedding + self.output_head + self.attention + self.feed_forward + self.norms_and_rest

    def under(self, convention: str) -> int:
        """Return N under one of CONVENTIONS.

        Raises:
            ValueError: no such convention.
        """
        non_embedding = self.attention + self.feed_forward
        match convention:
            case "non_embedding":
                return non_embedding
            case "non_embedding_with_norms":
                return non_embedding + self.norms_and_rest
            case "with_head":
                return non_embedding + self.output_head
            case "total":
                return self.total
            case "active":
                return self.attention + (
                    self.feed_forward if self.active_feed_forward is None else self.active_feed_forward
                )
        raise ValueError(f"{convention!r} is not a counting convention; allowed are {', '.join(CONVENTIONS)}")

    def as_dict(self) -> dict[str, int]:
        """Return the six counts that a result records, and those of active experts where there are experts."""
        names = ["embedding", "output_head", "attention", "feed_forward", "norms_and_rest", "total"]
        if self.active_feed_forward is not None:
            names.append("active_feed_forward")
        return {name: int(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class Dimensions:
    """What a network is built from, and nothing about where or how it is trained."""

    family: str
    layers: int
    width: int
    """Width d of the residual stream."""
    heads: int
    """Attention heads; each has width / heads dimensions. The most of a layer where layers differ."""
    feed_forward: int
    """Width of the hidden layer of the feed-forward blocks. The largest where layers differ."""
    vocabulary: int
    """Tokens in the vocabulary."""
    context: int
    """Longest sequence, in tokens."""
    options: Any
    """What else the family's settings choose: `Family.options`, a frozen dataclass."""


@dataclass(frozen=True)
class Shape(Dimensions):
    """Dimensions with their parameter counts, and the size that was asked for."""

    parameters: ParameterCounts
    wanted: int | None = None
    """The size that was asked for under `count`; None where the dimensions were given."""
    count: Convention = "non_embedding"
    """The convention under which `wanted` is meant."""

    @property
    def reached(self) -> int:
        """N under the convention that the size was asked for."""
        return self.parameters.under(self.count)

    def describe(self) -> str:
        """Return layers x width and heads, such as `4 x 64, 4 heads`; a script has its own."""
        if self.family == "script":
            return "the script's"
        return f"{self.layers} x {self.width}, {self.heads} head{'s' if self.heads > 1 else ''}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a record, without the parameters, which are recorded beside them."""
        return {name: value for name, value in asdict(self).items() if name != "parameters"}
