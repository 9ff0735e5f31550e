"""The interface of a probe: what it declares, what it is given, and what it returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from amscale.probes.measurement import Measurement, ProbeColumn
from amscale.settings import Settings as BaseSettings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from amscale.probes.measurement import Pattern
    from amscale.probes.patterns import ProbeBatch, Retrieval

Wanted = Literal["patterns", "logits", "attention"]


class NoSettings(BaseSettings):
    """The settings of a probe that has none."""


@dataclass(frozen=True)
class ScalarChart:
    """A chart of TensorBoard's Custom Scalars tab."""

    category: str
    """Heading under which the chart is listed."""
    title: str
    tags: Sequence[str]
    """Regular expressions of the scalar tags that it shows."""


@dataclass(frozen=True)
class CorpusFacts:
    """The corpus and the model that memorised bits are counted against."""

    entropy_per_token: float | None
    """Entropy of the corpus's source in nats per token; None where it is not known."""
    tokens: int
    """D, the unique training tokens."""
    parameters: int
    """All parameters of the model, embeddings included."""


@dataclass(frozen=True)
class ProbeContext:
    """The model and the fixed sequences that a measurement is of."""

    model: "nn.Module"
    """Called as model(tokens_BT); under DeepSpeed the engine, which wraps the model that has the named modules."""
    layers: Sequence[str]
    """Modules whose output is the residual stream (B, T, C) after each layer, in order."""
    stored: "ProbeBatch"
    """Training sequences, whose patterns are the stored ones."""
    queries: "ProbeBatch"
    """Validation sequences, whose patterns are the queries."""
    attention: Sequence[str] = ()
    """Attention modules, each inside the layer whose name begins its name."""
    pattern: "Pattern" = "last_token"
    """Which vector represents a sequence; see `patterns.to_patterns`."""
    micro_batch: int = 8
    """Sequences per forward pass."""
    corpus: CorpusFacts | None = None
    """None where memorised bits are not wanted."""

    @property
    def length(self) -> int:
        """Tokens of the longest sequence, T."""
        return max(self.stored.tokens_BT.shape[1], self.queries.tokens_BT.shape[1])


@dataclass(frozen=True)
class LayerPatterns:
    """One vector per sequence from one layer's output."""

    index: int
    """0 for the first layer."""
    module: str
    """Name of the module that the output is of."""
    stored_PN: "Tensor"
    """Patterns of the training sequences, float32."""
    queries_QN: "Tensor"
    """Patterns of the validation sequences, float32."""
    reason: str | None = None
    """Why the patterns cannot be measured: they are not finite. None where they can."""

    @property
    def label(self) -> str:
        """The layer's part of a tag: `layer_00` for the first layer."""
        return layer_label(self.index)


def layer_label(index: int) -> str:
    """Return a layer's part of a tag: `layer_00` for index 0."""
    return f"layer_{index:02d}"


@dataclass(frozen=True)
class Activations:
    """What the forward passes left for one probe; what the probe does not want is empty."""

    layers: Sequence[LayerPatterns] = ()
    """Wanted by "patterns": every layer in order, those with a reason included."""
    first_input_QN: "Tensor | None" = None
    """Wanted by "patterns": the validation sequences' patterns of what enters the first layer; None where that is no
    residual stream."""
    stored_logits: Sequence[Any] = ()
    """Wanted by "logits": what `reduce_logits` returned for each micro-batch of the training sequences."""
    query_logits: Sequence[Any] = ()
    """The same for the validation sequences."""
    logits_reason: str | None = None
    """Why there are no logits; None where there are."""
    attention: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    """Wanted by "attention": what `reduce_attention` returned for each micro-batch, by the layer's index."""
    attention_reasons: Mapping[int, str] = field(default_factory=dict)
    """Why a layer's queries and keys cannot be read, by the layer's index."""


class Probe:
    """A measurement of a network on fixed sequences; a subclass in a file is all that a probe takes.

    A subclass sets `name` and `wants`, and overrides `measure_layer`, `measure` or both. Tags of what it measures are
    `<name>/layer_00/<quantity>` or `<name>/<quantity>`. It is called between optimiser steps, in evaluation mode and
    without gradients, on every rank with the same sequences.
    """

    name: ClassVar[str]
    """The name under which the probe is registered; its tags begin with it."""
    wants: ClassVar[tuple[Wanted, ...]] = ()
    """Which activations it is given. "patterns": one vector per sequence and layer. "logits": through `reduce_logits`.
    "attention": queries and keys, through `reduce_attention`. A probe that wants nothing can run the model itself,
    with `capture.capture`."""
    groups: ClassVar[tuple[str, ...]] = ()
    """The first parts of its tags, where they are not its name alone."""
    columns: ClassVar[tuple[ProbeColumn, ...]] = ()
    """Its columns in the report's table of probes. Without any, its scalars are shown under their tags."""
    charts: ClassVar[tuple[ScalarChart, ...]] = ()
    """Its charts in TensorBoard's Custom Scalars tab."""
    of_tokens: ClassVar[tuple[str, ...]] = ()
    """Tags of values that depend on D (`context.corpus.tokens`). Where trials of several D share a stable phase, those
    that do not train it leave them out there."""
    Settings: ClassVar[type[BaseSettings]] = NoSettings
    """The settings that a configuration may give it."""

    def __init__(self, settings: Any = None) -> None:
        """Keep the settings, which are an instance of `Settings`; None takes its defaults."""
        self.settings: Any = self.Settings() if settings is None else settings

    @classmethod
    def tag_groups(cls) -> tuple[str, ...]:
        """Return the first parts of its tags."""
        return cls.groups or (cls.name,)

    def reduce_logits(self, batch: "ProbeBatch", logits_BTV: "Tensor") -> Any:
        """Return what `measure` needs of the logits of one micro-batch; all logits together may not fit the memory."""
        return None

    def reduce_attention(self, retrieval: "Retrieval") -> Any:
        """Return what `measure` needs of one layer's queries and keys in one micro-batch."""
        return None

    def measure_layer(self, context: ProbeContext, layer: LayerPatterns) -> Measurement:
        """Measure one layer's patterns; called for each layer whose patterns are finite."""
        return Measurement()

    def measure(self, context: ProbeContext, activations: Activations) -> Measurement:
        """Measure the network as a whole; called once, after the layers."""
        return Measurement()
