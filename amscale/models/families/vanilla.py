"""The vanilla decoder-only Transformer: post-LN, ReLU, sinusoidal positions, an output head that is not tied."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from amscale.errors import InputError
from amscale.models.family import DenseFamily, FamilySettings
from amscale.models.shape import Dimensions, ParameterCounts, Shape

if TYPE_CHECKING:
    from torch import nn

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


class Vanilla(DenseFamily):
    """The Transformer of Vaswani et al. 2017 and its usual variations."""

    settings = VanillaSettings

    def check(self, shape: Shape) -> None:
        """Check that the positions suit the width.

        Raises:
            InputError: an odd width under sinusoids, or an odd head dimension under rotary positions.
        """
        options, width, heads = shape.options, shape.width, shape.heads
        if options.positions == "sinusoidal" and width % 2:
            raise InputError(f"model.width = {width} is odd; sinusoidal positions need an even width: give {width + 1}")
        if options.positions == "rotary" and (width // heads) % 2:
            raise InputError(
                f"model.width = {width} over {heads} heads gives an odd head dimension {width // heads}; rotary "
                f"positions need an even one: change model.width or model.heads"
            )

    def counts(self, dimensions: Dimensions) -> ParameterCounts:
        """Return the exact parameter counts of a network."""
        options, layers, width, hidden = (
            dimensions.options,
            dimensions.layers,
            dimensions.width,
            dimensions.feed_forward,
        )
        table = {"learned": dimensions.context * width, "relative": RELATIVE_BUCKETS * dimensions.heads}
        norm = width * (2 if options.norm == "layernorm" else 1)
        norms = 2 * layers + (1 if options.norm_position == "pre" else 0)
        return ParameterCounts(
            embedding=dimensions.vocabulary * width + table.get(options.positions, 0),
            output_head=(width + 1) * dimensions.vocabulary,
            attention=layers * (4 * width**2 + 4 * width),
            feed_forward=layers * (2 * width * hidden + hidden + width),
            norms_and_rest=norms * norm,
        )

    def activations_per_token(self, shape: Shape, element: int, mask: int) -> float:
        """Return the bytes that one token keeps for the backward pass, without attention scores and logits.

        Each layer keeps block inputs, q, k, v, attention output, both norms' inputs, the hidden layer; with dropout its
        masks, and the dropped hidden layer beside the ReLU's output. Rotary positions add the rotated q and k and a
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

    def cpu_scores(self, shape: Shape) -> float:
        """Return 3 with dropout, which keeps the weights, the mask and their product; 1 for the weights alone under a
        learned bias; else 0."""
        return 3 if shape.options.dropout else 1 if shape.options.positions == "relative" else 0

    def build(self, shape: Dimensions) -> "nn.Module":
        """Return the network, freshly initialised."""
        from amscale.models.networks.vanilla import VanillaNetwork

        return VanillaNetwork(shape, RELATIVE_BUCKETS)

    def final_norm_name(self, model: "nn.Module") -> str | None:
        """Return the final norm of a pre-LN network; a post-LN network has no such norm."""
        return None if getattr(model, "final_norm", None) is None else "final_norm"
