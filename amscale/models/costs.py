"""What a shape costs: training FLOPs per token by named formulas, and the memory of activations.

A multiply-add is two FLOPs; the backward pass costs twice the forward pass.
"""

from typing import Literal

from amscale.models.registry import find_family
from amscale.models.shape import Shape

FLOPS_FORMULAS = {
    "matmul": "6·(matmul weights, output head included) + 6·layers·width·(context + 1) (causal attention scores)",
    "6ND": "6·N, with N = attention + (active) feed-forward parameters",
}
"""What each formula counts. `matmul` is exact for matrix products over sequences of `context` tokens, where a query at
position t meets t keys (or those of its sliding window): QKᵀ and the weighted sum of values are 2·2·width·(mean keys) a
layer and token, forward; width is that of a layer's queries. Experts count as far as a token passes through them."""

FLOPS_FORMULA = "matmul"
"""The formula that results record."""


def flops_per_token(shape: Shape, formula: str = FLOPS_FORMULA) -> float:
    """Return the training FLOPs (forward and backward) per token.

    Raises:
        ValueError: no such formula.
    """
    if formula == "6ND":
        return 6.0 * shape.parameters.under("active")
    if formula == "matmul":
        family = find_family(shape.family)
        return 6.0 * (family.matmul_weights(shape) + 2 * family.query_width(shape) * family.mean_keys(shape))
    raise ValueError(f"{formula!r} is not a FLOPs formula; allowed are {', '.join(FLOPS_FORMULAS)}")


def activation_bytes(
    shape: Shape, micro_batch: int, bytes_per_element: int, device: Literal["cuda", "cpu"] = "cuda"
) -> float:
    """Return the bytes kept for the backward pass without recomputation, for sequences of the full context.

    Counts what every layer keeps, and the end of the network: logits in the model's precision, in float32 where that
    differs, and the float32 log-softmax of the loss. Parameters, gradients and optimiser states are left out.

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
    family = find_family(shape.family)
    layers = family.activations_per_token(shape, bytes_per_element, mask)
    scores = family.cpu_scores(shape) if device == "cpu" else 0
    if scores:
        widened = 3 * family.query_width(shape) * (4 - bytes_per_element)
        layers += widened + scores * 4 * family.query_heads(shape) * shape.context
    logits = shape.vocabulary * (4 + 4 + (bytes_per_element if bytes_per_element != 4 else 0))
    return float(tokens * (layers + logits))
