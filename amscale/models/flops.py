"""Training FLOPs per token, by named formulas. A multiply-add is two FLOPs; backward costs twice the forward."""

from amscale.models.registry import FAMILIES
from amscale.models.shape import Shape

FLOPS_FORMULAS = {
    "matmul": "6·(matmul weights, output head included) + 6·layers·width·(context + 1) (causal attention scores)",
    "6ND": "6·N, with N = attention + feed-forward parameters",
}
"""What each formula counts. `matmul` is exact for matrix products over sequences of `context` tokens, where a query at
position t meets t keys: QKᵀ and the weighted sum of values are 2·2·width·(context + 1)/2 a layer and token, forward."""

FLOPS_FORMULA = "matmul"
"""The formula that results record."""


def flops_per_token(shape: Shape, formula: str = FLOPS_FORMULA) -> float:
    """Training FLOPs (forward and backward) per token.

    Raises:
        ValueError: no such formula.
    """
    if formula == "6ND":
        return 6.0 * shape.parameters.under("non_embedding")
    if formula == "matmul":
        scores = shape.layers * shape.width * (shape.context + 1)
        return 6.0 * (FAMILIES[shape.family].matmul_weights(shape) + scores)
    raise ValueError(f"{formula!r} is not a FLOPs formula; allowed are {', '.join(FLOPS_FORMULAS)}")
