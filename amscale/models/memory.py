"""Memory that activations take in one forward and backward pass."""

from typing import Literal

from amscale.models.registry import FAMILIES
from amscale.models.shape import Shape


def activation_bytes(
    shape: Shape, micro_batch: int, bytes_per_element: int, device: Literal["cuda", "cpu"] = "cuda"
) -> float:
    """Bytes kept for the backward pass without recomputation, for sequences of the full context.

    Counts what every layer keeps, and the end of the network: logits in the model's precision, in float32 where that
    differs, and the float32 log-softmax of the loss. Parameters, gradients and optimiser states are not in it.

    Args:
        shape: the model.
        micro_batch: sequences in one forward pass.
        bytes_per_element: 4 for float32, 2 for bfloat16.
        device: on a GPU attention never stores its scores and a dropout mask takes a byte an element. On a CPU a mask
            is as wide as what it masks, and where dropout or a learned bias keeps attention from its fused kernel,
            queries, keys, values and the attention weights of each head are stored in float32.
    """
    tokens = micro_batch * shape.context
    mask = 1 if device == "cuda" else bytes_per_element
    family = FAMILIES[shape.family]
    layers = family.activations_per_token(shape, bytes_per_element, mask)
    scores = family.cpu_scores(shape) if device == "cpu" else 0
    if scores:
        widened = 3 * family.query_width(shape) * (4 - bytes_per_element)
        layers += widened + scores * 4 * family.query_heads(shape) * shape.context
    logits = shape.vocabulary * (4 + 4 + (bytes_per_element if bytes_per_element != 4 else 0))
    return float(tokens * (layers + logits))
