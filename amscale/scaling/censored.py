"""Interval-censored regression: y_i = a + b x_i + noise, where y_i is only known to lie in (lower_i, upper_i].

Maximum likelihood is degenerate here: wherever some line passes through all intervals the likelihood reaches 1 as the
noise goes to 0, for a whole set of slopes, and a likelihood-ratio interval then covers far too rarely. Two ranges
replace it: the exact set of noise-free slopes, which is what the grid leaves open, and Student's t interval through the
middles of the intervals, which is what noise leaves open; the place of y_i in its interval is part of that noise.
"""

from dataclasses import dataclass

import numpy as np

from amscale.scaling.points import Array

_DRAWS = 4096


def feasible_slopes(x: Array, lower: Array, upper: Array) -> tuple[float, float] | None:
    """Return the exact range of b for which some line a + b x passes through all (closed) intervals, or None.

    A level a exists for a slope if and only if lower_i - b x_i <= upper_j - b x_j for every pair i, j: every pair with
    different x bounds b on one side. The ends may be infinite.
    """
    run = x[:, None] - x[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = (lower[:, None] - upper[None, :]) / run
    equal = run == 0
    if np.any((lower[:, None] > upper[None, :]) & equal):
        return None
    low, high = (
        float(np.max(bound, where=run > 0, initial=-np.inf)),
        float(np.min(bound, where=run < 0, initial=np.inf)),
    )
    return (low, high) if low <= high else None


@dataclass(frozen=True)
class SlopeDistribution:
    """Distribution of the slope: nodes ascending and the cumulative probability at each."""

    slopes: Array
    cumulative: Array

    def quantile(self, probability: float) -> float:
        """Return the slope at a cumulative probability."""
        return float(np.interp(probability, self.cumulative, self.slopes))

    def tail(self, slope: float) -> float:
        """Return twice the smaller of the probabilities on either side of `slope`: a two-sided p value."""
        below = float(np.interp(slope, self.slopes, self.cumulative, left=0.0, right=1.0))
        return 2 * min(below, 1 - below)


def slope_distribution(x: Array, lower: Array, upper: Array) -> SlopeDistribution:
    """Return the slope's distribution, level and noise integrated out (flat in a, b and ln sigma).

    At least 3 intervals must be bounded.

    Bounded intervals enter by their middle, weighed by width (`_variances`), so that without others this is Student's t
    with n - 2 degrees of freedom; an interval that is open on one side enters by the probability of its side. The
    deviation is no less than what the unknown place in an interval adds, width/sqrt(12): where a few middles lie on a
    line by chance, the residuals alone would be too small.
    """
    from scipy.special import log_ndtr, ndtri
    from scipy.stats import chi2, qmc, t

    known = np.isfinite(lower) & np.isfinite(upper)
    free, width = int(known.sum()) - 2, upper[known] - lower[known]
    middle = (lower[known] + upper[known]) / 2
    weights = 1 / _variances(x[known], middle, width)
    centre = float(weights @ x[known] / weights.sum())
    level, slope, total = _line(x[known] - centre, middle, weights)
    total = max(total, free * float(np.mean(width**2)) / 12)
    error = 1 / np.sqrt(weights @ (x[known] - centre) ** 2)
    if known.all():
        cumulative = (np.arange(_DRAWS) + 0.5) / _DRAWS
        return SlopeDistribution(slope + t.ppf(cumulative, free) * np.sqrt(total / free) * error, cumulative)
    unit = qmc.Sobol(3, scramble=True, seed=0).random(_DRAWS)
    sigma = np.sqrt(total / chi2.ppf(unit[:, 0], free))
    slopes = slope + sigma * ndtri(unit[:, 1]) * error
    levels = level + sigma * ndtri(unit[:, 2]) / np.sqrt(weights.sum())
    line = levels[:, None] + slopes[:, None] * (x[~known] - centre)
    beyond = np.where(np.isfinite(lower[~known]), line - lower[~known], upper[~known] - line)
    inside = log_ndtr(beyond / sigma[:, None]).sum(axis=1)
    order = np.argsort(slopes, kind="stable")
    share = np.exp(inside - inside.max())[order]
    return SlopeDistribution(slopes[order], (np.cumsum(share) - share / 2) / share.sum())


def _variances(x: Array, middle: Array, width: Array) -> Array:
    """Return the variance of each middle about the line, scaled to mean 1: noise, and width²/12 for its interval.

    The noise is what an unweighted line leaves beyond the latter; intervals of one width weigh alike whatever it is.
    """
    place = width**2 / 12
    total = _line(x - x.mean(), middle, np.ones_like(x))[2]
    noise = max(0.0, total / (len(x) - 2) - float(place.mean()))
    return (noise + place) / (noise + place.mean())


def _line(x: Array, y: Array, weights: Array) -> tuple[float, float, float]:
    """Return level, slope and weighted residual sum of squares of y on x, whose weighted mean is 0."""
    level, slope = float(weights @ y / weights.sum()), float(weights @ (x * y) / (weights @ x**2))
    return level, slope, float(weights @ (y - level - slope * x) ** 2)
