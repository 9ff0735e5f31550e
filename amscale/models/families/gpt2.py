"""GPT-2, as the transformers library implements it, from scratch or from published weights."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from amscale.errors import InputError
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
    pretrained: str | None = None
    """Start from these weights: a folder with `config.json` and `model.safetensors`, or a name on the Hugging Face hub
    such as `gpt2-medium`. The shape is theirs; the corpus needs their tokenizer. None: from scratch."""

    @model_validator(mode="after")
    def _shape_of_the_weights(self) -> "GPT2Settings":
        if self.pretrained is not None:
            given = [name for name in ("size", "layers", "width", "heads") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"pretrained fixes {', '.join(given)}; drop one or the other")
        return self


@dataclass(frozen=True)
class GPT2Options:
    dropout: float
    pretrained: str | None = None


def published_configuration(name: str) -> Any:
    """The configuration that comes with published weights.

    Raises:
        InputError: it cannot be had, or is of another architecture.
    """
    from amscale.huggingface import load_configuration

    found = load_configuration(name, "model.pretrained")
    if found.model_type != "gpt2":
        raise InputError(f"model.pretrained = {name}: a {found.model_type}, not a GPT-2; give weights of a GPT-2")
    return found


def _default_dimensions(options: GPT2Options) -> tuple[int, int, int] | None:
    if options.pretrained is None:
        return None
    found = published_configuration(options.pretrained)
    return found.n_layer, found.n_embd, found.n_head


def _feed_forward(layers: Any, width: Any, options: GPT2Options) -> Any:
    inner = None if options.pretrained is None else published_configuration(options.pretrained).n_inner
    return 4 * width if inner is None else inner


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


def _check(shape: Shape) -> None:
    name = shape.options.pretrained
    if name is None:
        return
    found = published_configuration(name)
    if found.vocab_size != shape.vocabulary:
        raise InputError(
            f"model.pretrained = {name}: its vocabulary has {found.vocab_size} tokens and the corpus's "
            f"{shape.vocabulary}; give data.tokenizer = {name}"
        )
    if found.n_positions < shape.context:
        raise InputError(
            f"data.context = {shape.context}: model.pretrained = {name} has {found.n_positions} positions; give at "
            "most that many"
        )


FAMILY = Family(
    name="gpt2",
    network="amscale.models.networks.gpt2",
    options=lambda settings: GPT2Options(settings.dropout, settings.pretrained),
    counts=_counts,
    matmul_weights=dense_matmul_weights,
    activations_per_token=_activations_per_token,
    cpu_scores=lambda shape: 3 if shape.options.dropout else 0,
    check=_check,
    presets=PRESETS,
    feed_forward=_feed_forward,
    default_dimensions=_default_dimensions,
)
