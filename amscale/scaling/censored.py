"""Interval-censored normal regression: y_i = a + b x_i + noise, where y_i is only known to lie in (lower_i, upper_i].

Maximum likelihood is degenerate here: wherever some line passes through all intervals the likelihood reaches 1 as the
noise goes to 0, for a whole set of slopes, and a likelihood-ratio interval then covers far too rarely. Two ranges stand
in its place: the exact set of noise-free slopes, and the interval of a slope whose noise is integrated out.
"""

import math
from dataclasses import dataclass

import numpy as np

from amscale.scaling.table import Array


def feasible_slopes(x: Array, lower: Array, upper: Array) -> tuple[float, float] | None:
    """The exact range of b for which some line a + b x passes through all intervals (closed), by linear programming.

    Ends may be infinite. None where no line does.
    """
    from scipy.optimize import linprog

    below, above = np.isfinite(upper), np.isfinite(lower)
    line = np.column_stack([np.ones_like(x), x])
    rows = np.vstack([line[below], -line[above]])
    limits = np.concatenate([upper[below], -lower[above]])
    ends = []
    for sign in (1.0, -1.0):
        solution = linprog([0.0, sign], rows, limits, bounds=(None, None))
        if solution.status == 2:
            return None
        ends.append(-sign * math.inf if solution.status == 3 else float(solution.x[1]))
    return ends[0], ends[1]


@dataclass(frozen=True)
class SlopeDistribution:
    """Distribution of the slope: nodes ascending and the cumulative probability at each."""

    slopes: Array
    cumulative: Array

    def quantile(self, probability: float) -> float:
        """The slope below which `probability` lies."""
        return float(np.interp(probability, self.cumulative, self.slopes))

    def tail(self, slope: float) -> float:
        """Twice the smaller of the probabilities on either side of `slope`: a two-sided p value."""
        below = float(np.interp(slope, self.slopes, self.cumulative))
        return 2 * min(below, 1 - below)


def slope_distribution(x: Array, lower: Array, upper: Array) -> SlopeDistribution:
    """The slope with level a and noise sigma integrated out, at least 3 of the intervals being bounded on both sides.

    Flat in a and b, and proportional to 1 / (sigma + w/sqrt(12)) in sigma, w the mean width of the bounded intervals.
    As the intervals shrink to points this is Student's t with n - 2 degrees of freedom exactly; for wide intervals the
    second term, the deviation of a uniform variable on an interval of that width, keeps the noise from collapsing to 0.
    """
    from scipy.special import ndtr

    known = np.isfinite(lower) & np.isfinite(upper)
    middle, width = (lower[known] + upper[known]) / 2, upper[known] - lower[known]
    centre, level = np.polyfit(x[known], middle, 1)
    residual = float(np.sqrt(np.mean((middle - level - centre * x[known]) ** 2)))
    rounding = float(width.mean()) / math.sqrt(12)
    unit = (residual + rounding) / math.sqrt(float(np.sum((x[known] - x[known].mean()) ** 2)))
    angle = np.linspace(-math.pi / 2, math.pi / 2, 163)[1:-1]
    slopes = centre + unit * np.tan(angle)
    low_Bn, high_Bn = lower - slopes[:, None] * x, upper - slopes[:, None] * x
    middle_Bn = (low_Bn[:, known] + high_Bn[:, known]) / 2
    origin_B = middle_Bn.mean(axis=1)
    spread_B = np.ptp(middle_Bn, axis=1) + width.max()
    nodes, weights = np.polynomial.legendre.leggauss(40)
    density = np.zeros_like(slopes)
    # A steep line needs a large sigma: sigma runs in units of what each slope leaves unexplained.
    for scale in np.geomspace(1e-3, 1e3, 48):
        sigma_B = scale * (spread_B + rounding)
        reach_B = spread_B + 5 * sigma_B
        level_BA = origin_B[:, None] + reach_B[:, None] * nodes
        mass_BA = np.ones_like(level_BA)
        for low_B, high_B in zip(low_Bn.T, high_Bn.T, strict=True):
            high = ndtr((high_B[:, None] - level_BA) / sigma_B[:, None])
            mass_BA *= high - ndtr((low_B[:, None] - level_BA) / sigma_B[:, None])
        density += (mass_BA @ weights) * reach_B * sigma_B / (sigma_B + rounding)
    density *= 1 / np.cos(angle) ** 2
    pieces = (density[1:] + density[:-1]) / 2
    cumulative = np.concatenate([[0.0], np.cumsum(pieces)])
    return SlopeDistribution(slopes, cumulative / cumulative[-1])
