"""N against D where Z = 1, by each route that the theory offers. The routes disagree; all are given.

With T tokens per sequence, l layers and embedding width d_emb: N = A·l·d_emb² (attention and feed-forward only),
n = T·d_emb, P = D/T stored patterns, and every radius r*.

| route                                                | relation                          | exponent of D |
|------------------------------------------------------|-----------------------------------|---------------|
| upper bound Z ≤ P·V(r*) ≈ P/√(πn), width held fixed  | N = A·l·d_emb·D² / (π·T³)         | 2             |
| upper bound, width eliminated                        | N = A·l·D⁴ / (π²·T⁶)              | 4             |
| Z = P·I_un(n, r*)                                    | n ≈ 2πe·(ln P)²                   | logarithmic   |
| Z = P·I_sq(n, r*)                                    | n ≈ 2πe·ln P                      | logarithmic   |
"""

import math

from amscale.hopfield.volume import Distance, log_integral, r_star

PARAMETERS_PER_SQUARED_WIDTH = 12.0
"""A of N = A·l·d_emb² for GPT-2's shape: 4 of attention and 8 of a feed-forward layer four times as wide."""


def parameters_of_dimension(n: float, context: int, layers: int, a: float = PARAMETERS_PER_SQUARED_WIDTH) -> float:
    """Return N of a Transformer whose padded sequence has dimension n = T·d_emb."""
    return a * layers * (n / context) ** 2


def parameters_by_upper_bound_at_fixed_width(
    tokens: float, context: int, layers: int, width: int, a: float = PARAMETERS_PER_SQUARED_WIDTH
) -> float:
    """Return N = A·l·d_emb·D² / (π·T³): d_emb on the right is held fixed although N contains it too."""
    return a * layers * width * tokens**2 / (math.pi * context**3)


def parameters_by_upper_bound(
    tokens: float, context: int, layers: int, a: float = PARAMETERS_PER_SQUARED_WIDTH
) -> float:
    """Return N = A·l·D⁴ / (π²·T⁶): the same bound with d_emb eliminated."""
    return a * layers * tokens**4 / (math.pi**2 * context**6)


def dimension_by_integral(patterns: float, distance: Distance) -> float:
    """Return the n at which Z = P·I(n, r*) is exactly 1.

    Raises:
        ValueError: so few patterns that Z is below 1 in one dimension already.
    """
    from scipy.optimize import brentq

    def log_z(log_n: float) -> float:
        n = math.exp(log_n)
        return math.log(patterns) + float(log_integral(n, r_star(n), distance))

    if not patterns >= 1 or log_z(0.0) < 0:
        raise ValueError(f"patterns={patterns}: Z is below 1 in every dimension; give more patterns")
    upper = 1.0
    while log_z(upper) > 0:
        upper += 1.0
    return math.exp(brentq(log_z, 0.0, upper, xtol=1e-12))


def dimension_by_asymptote(patterns: float, distance: Distance) -> float:
    """Return the leading term of `dimension_by_integral`: 2πe·ln P (squared) or 2πe·(ln P)² (unsquared)."""
    return 2 * math.pi * math.e * math.log(patterns) ** (1 if distance == "squared" else 2)


def parameters_by_integral(
    tokens: float, context: int, layers: int, distance: Distance, a: float = PARAMETERS_PER_SQUARED_WIDTH
) -> float:
    """Return the N at which Z = (D/T)·I(n, r*) is exactly 1, for a distance.

    Raises:
        ValueError: so few patterns that Z is below 1 in one dimension already.
    """
    return parameters_of_dimension(dimension_by_integral(tokens / context, distance), context, layers, a)
