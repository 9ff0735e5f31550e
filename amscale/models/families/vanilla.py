"""The vanilla decoder-only Transformer: post-LN, ReLU, sinusoidal positions, an output head of its own."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from amscale.errors import InputError
from amscale.models.family import Family, FamilySettings, dense_matmul_weights
from amscale.models.shape import ParameterCounts, Shape

RELATIVE_BUCKETS = 32
"""Buckets of distance of the relative positions (Raffel et al. 2020)."""


class VanillaSettings(FamilySettings):
    """The Transformer of Vaswani et al. 2017 as a causal language model. Feed-forward width is 4 × width."""

    family: Literal["vanilla"] = "vanilla"
    """A post-LN, ReLU Transformer, with its usual variations as options."""
    norm_position: Literal["post", "pre"] = "post"
    """Norm after each residual sum (post, the original) or before each block with one more at the end (pre)."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """LayerNorm with bias, or RMSNorm (no mean, no bias)."""
    positions: Literal["sinusoidal", "learned", "rotary", "relative"] = "sinusoidal"
    """Sinusoids or a learned table added to the embedding, rotary queries and keys, or a learned bias of the attention
    scores for each head and bucket of distance, shared by all layers."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Probability of dropout on embeddings, attention weights, feed-forward activations and block outputs."""


@dataclass(frozen=True)
class VanillaOptions:
    norm_position: str
    norm: str
    positions: str
    dropout: float


def _options(settings: VanillaSettings) -> VanillaOptions:
    return VanillaOptions(settings.norm_position, settings.norm, settings.positions, settings.dropout)


def _counts(
    layers: int, width: int, heads: int, feed_forward: int, vocabulary: int, context: int, options: VanillaOptions
) -> ParameterCounts:
    positions = {"learned": context * width, "relative": RELATIVE_BUCKETS * heads}.get(options.positions, 0)
    norm = width * (2 if options.norm == "layernorm" else 1)
    norms = 2 * layers + (1 if options.norm_position == "pre" else 0)
    return ParameterCounts(
        embedding=vocabulary * width + positions,
        output_head=(width + 1) * vocabulary,
        attention=layers * (4 * width**2 + 4 * width),
        feed_forward=layers * (2 * width * feed_forward + feed_forward + width),
        norms_and_rest=norms * norm,
    )


def _activations_per_token(shape: Shape, element: int, mask: int) -> float:
    """Kept of each layer: block inputs, q, k, v, attention output, both norms' inputs, the hidden layer; with dropout
    its masks, and the dropped hidden layer beside the ReLU's output. Rotary positions add the rotated q and k and a
    copy of the attention output; RMSNorm adds its normalised input, as it does where PyTorch has no fused kernel.
    """
    width, hidden = shape.width, shape.feed_forward
    dropped = shape.options.dropout > 0
    elements = 8 * width + hidden * (2 if dropped else 1)
    elements += 3 * width if shape.options.positions == "rotary" else 0
    elements += 2 * width if shape.options.norm == "rmsnorm" else 0
    masks = mask * (2 * width + hidden) if dropped else 0
    statistics = 4 * (4 + shape.heads)  # float32: mean and deviation of two norms, logsumexp of each head
    return shape.layers * (elements * element + masks + statistics) + width * element


def _cpu_scores(shape: Shape) -> int:
    """Dropout keeps the weights, the mask and their product; a learned bias keeps the weights."""
    return 3 if shape.options.dropout else 1 if shape.options.positions == "relative" else 0


def _check(shape: Shape) -> None:
    options, width, heads = shape.options, shape.width, shape.heads
    if options.positions == "sinusoidal" and width % 2:
        raise InputError(f"model.width = {width} is odd; sinusoidal positions need an even width: give {width + 1}")
    if options.positions == "rotary" and (width // heads) % 2:
        raise InputError(
            f"model.width = {width} over {heads} heads gives an odd head dimension {width // heads}; rotary positions "
            f"need an even one: change model.width or model.heads"
        )


FAMILY = Family(
    name="vanilla",
    network="amscale.models.networks.vanilla",
    options=_options,
    counts=_counts,
    matmul_weights=dense_matmul_weights,
    activations_per_token=_activations_per_token,
    cpu_scores=_cpu_scores,
    check=_check,
)
