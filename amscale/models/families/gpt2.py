"""GPT-2, as the transformers library implements it, from scratch or from published weights."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from amscale.errors import InputError
from amscale.models.family import DenseFamily, FamilySettings
from amscale.models.shape import Dimensions, ParameterCounts, Shape
from amscale.settings import parse_size

if TYPE_CHECKING:
    from torch import nn

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


def published_configuration(name: str) -> Any:
    """Return the configuration that comes with published weights.

    Raises:
        InputError: it cannot be had, or its architecture is another.
    """
    from amscale.huggingface import load_configuration

    found = load_configuration(name, "model.pretrained")
    if found.model_type != "gpt2":
        raise InputError(f"model.pretrained = {name}: a {found.model_type}, not a GPT-2; give weights of a GPT-2")
    return found


class GPT2(DenseFamily):
    """GPT-2 (Radford et al. 2019)."""

    settings = GPT2Settings
    presets = PRESETS
    layers_name = "model.transformer.h"
    attention_name = "attn"
    norm_name = "model.transformer.ln_f"
    head_name = "model.lm_head"

    def default_dimensions(self, options: Any) -> tuple[int, int, int] | None:
        """Return the dimensions of the published weights where there are any."""
        if options.pretrained is None:
            return None
        found = published_configuration(options.pretrained)
        return found.n_layer, found.n_embd, found.n_head

    def feed_forward(self, layers: int, width: int, options: Any) -> int:
        """Return the hidden width of the published weights, or 4 × width."""
        inner = None if options.pretrained is None else published_configuration(options.pretrained).n_inner
        return 4 * width if inner is None else int(inner)

    def check(self, shape: Shape) -> None:
        """Check that vocabulary and context are those of the published weights.

        Raises:
            InputError: another vocabulary, or a context longer than their positions.
        """
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

    def counts(self, dimensions: Dimensions) -> ParameterCounts:
        """Return the exact parameter counts of a network."""
        layers, width, hidden = dimensions.layers, dimensions.width, dimensions.feed_forward
        return ParameterCounts(
            embedding=(dimensions.vocabulary + dimensions.context) * width,
            output_head=0,
            attention=layers * (4 * width**2 + 4 * width),
            feed_forward=layers * (2 * width * hidden + hidden + width),
            norms_and_rest=(2 * layers + 1) * 2 * width,
            tied=True,
        )

    def activations_per_token(self, shape: Shape, element: int, mask: int) -> float:
        """Return the bytes that one token keeps for the backward pass, without attention scores and logits.

        Each layer keeps both norms' inputs and outputs, q, k, v, attention output, and and of the hidden
        layer the input and the output of GELU.
        """
        elements = 8 * shape.width + 2 * shape.feed_forward
        masks = mask * 2 * shape.width if shape.options.dropout else 0
        statistics = 4 * (4 + shape.heads)  # float32: mean and deviation of two norms, logsumexp of each head
        return shape.layers * (elements * element + masks + statistics) + 2 * shape.width * element

    def cpu_scores(self, shape: Shape) -> float:
        """Return 3 with dropout, which keeps the weights, the mask and their product; else 0."""
        return 3 if shape.options.dropout else 0

    def build(self, shape: Dimensions) -> "nn.Module":
        """Return the network, freshly initialised or with its published weights.

        Raises:
            InputError: the published weights cannot be had or do not fit.
        """
        from amscale.models.networks.gpt2 import build

        name = shape.options.pretrained
        return build(shape, None if name is None else published_configuration(name))
