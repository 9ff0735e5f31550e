"""Training FLOPs per token, by named formulas. A multiply-add is two FLOPs; backward costs twice the forward."""

from amscale.models.registry import FAMILIES
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
    """Training FLOPs (forward and backward) per token.

    Raises:
        ValueError: no such formula.
    """
    if formula == "6ND":
        return 6.0 * shape.parameters.under("active")
    if formula == "matmul":
        family = FAMILIES[shape.family]
        return 6.0 * (family.matmul_weights(shape) + 2 * family.query_width(shape) * family.mean_keys(shape))
    raise ValueError(f"{formula!r} is not a FLOPs formula; allowed are {', '.join(FLOPS_FORMULAS)}")
