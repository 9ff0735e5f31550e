"""Interval-censored regression: y_i = a + b x_i + noise, where y_i is only known to lie in (lower_i, upper_i].

Maximum likelihood is degenerate here: wherever some line passes through all intervals the likelihood reaches 1 as the
noise goes to 0, for a whole set of slopes, and a likelihood-ratio interval then covers far too rarely. Two ranges
replace it: the exact set of noise-free slopes, which is what the grid leaves open, and Student's t interval through the
middles of the intervals, which is what noise leaves open; the place of y_i in its interval is part of that noise.

The power law N = C·D^k: from points by least squares in logs, from D* by interval-censored regression.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amscale.scaling.dstar import DStar, cell_criteria, locate_all
from amscale.scaling.estimate import ACCURACY, Estimate, HypothesisTest, interval_text, outside
from amscale.scaling.points import Array, PointTable

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
    from scipy.special import chdtri, log_ndtr, ndtri, stdtrit

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
        return SlopeDistribution(slope + stdtrit(free, cumulative) * np.sqrt(total / free) * error, cumulative)
    from scipy.stats import qmc  # takes longer to import than the rest to compute

    unit = qmc.Sobol(3, scramble=True, seed=0).random(_DRAWS)
    sigma = np.sqrt(total / chdtri(free, 1 - unit[:, 0]))
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


HYPOTHESES = {
    0.5: "parameters that suffice to memorise next tokens, arXiv 2409.17677",
    1.0: "Chinchilla",
    1.35: "Kaplan's over-fitting guard",
    2.0: "associative memory",
    4.0: "associative memory, width eliminated",
}
"""Competing exponents k in N ∝ D^k."""

_CENSORED = "least squares of ln D*, the middle of its interval, on ln N; likelihood where one end is open"


@dataclass(frozen=True)
class LogLogFit:
    """The fit y = exp(intercept)·x^slope by least squares in logs; `interval` is the 95 % t interval of the slope."""

    slope: float
    intercept: float
    standard_error: float
    interval: tuple[float, float]
    residual_deviation: float
    n: int

    def p_value(self, slope: float) -> float:
        """Return the two-sided p value of `slope`."""
        from scipy.special import stdtr

        if abs(self.slope - slope) <= ACCURACY * abs(slope):
            return 1.0
        if self.standard_error == 0:
            return 0.0
        return float(2 * stdtr(self.n - 2, -abs(self.slope - slope) / self.standard_error))

    def test(self, name: str, slope: float) -> HypothesisTest:
        """Test `slope` by the t interval."""
        rejected = outside(slope, self.interval)
        return HypothesisTest(name=name, value=float(slope), rejected=rejected, how="t interval", p=self.p_value(slope))


def fit_loglog(x: Sequence[float] | Array, y: Sequence[float] | Array) -> LogLogFit:
    """Fit ln y on ln x by least squares.

    Raises:
        ValueError: fewer than 3 points, a value that is not positive, or a single x.
    """
    from scipy.special import stdtrit

    u, v = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(u) < 3 or len(u) != len(v):
        raise ValueError(f"{len(u)} points; an interval needs at least 3")
    if not (np.all(u > 0) and np.all(v > 0) and np.all(np.isfinite(u)) and np.all(np.isfinite(v))):
        raise ValueError("a power law needs positive, finite values")
    u, v = np.log(u), np.log(v)
    square = float(np.sum((u - u.mean()) ** 2))
    if square == 0:
        raise ValueError("all x are equal")
    slope = float(np.sum((u - u.mean()) * (v - v.mean())) / square)
    intercept = float(v.mean() - slope * u.mean())
    deviation = math.sqrt(float(np.sum((v - intercept - slope * u) ** 2)) / (len(u) - 2))
    error = deviation / math.sqrt(square)
    reach = float(stdtrit(len(u) - 2, 0.975)) * error
    return LogLogFit(slope, intercept, error, (slope - reach, slope + reach), deviation, len(u))


def hypothesis_name(k: float) -> str:
    """Return `k = 2 (associative memory)`, or `k = 3` for an exponent without a name."""
    name = HYPOTHESES.get(float(k))
    return f"k = {k:g}" + (f" ({name})" if name else "")


def exponent_from_dstar(
    dstars: Sequence[DStar],
    convention: str,
    criterion: str,
    hypotheses: Sequence[float] = tuple(HYPOTHESES),
    left_out: Sequence[str] = (),
) -> Estimate:
    """Estimate k in N = C·D*^k from censored D*: ln D*_i = a + (1/k) ln N_i + noise, with D*_i in (lower_i, upper_i].

    Two ranges of k are given. The *noise-free range*: every k for which one exact power law passes through all
    intervals, which is what the grid of D leaves open. The *95 % interval*: the 2.5 and 97.5 % points of the slope with
    the noise integrated out (`censored.slope_distribution`), widened to hold the noise-free range; the value is the
    median. A k is rejected when it lies outside that interval. Where the grid is coarse against the noise the
    noise-free range prevails, and the interval covers in more than 95 % of sweeps.
    """
    usable = [dstar for dstar in dstars if dstar.kind != "none"]
    informative = [dstar for dstar in usable if dstar.kind == "interval"]
    shared: dict[str, Any] = {
        "id": "k_dstar",
        "estimand": "k at D*(N), over-fitting threshold",
        "convention": convention,
        "objective": _CENSORED,
        "used": len(usable),
        "left_out": tuple(left_out),
    }
    method = f"D*: {criterion}"
    remarks = _describe(dstars)
    if len(informative) < 3:
        reason = f"D* is known on both sides for {len(informative)} of {len(dstars)} N; at least 3 are needed"
        return Estimate(**shared, method=method, remarks=remarks, reason=reason, details={"dstar": list(dstars)})
    x = np.log([dstar.N for dstar in usable])
    shift = x.mean()
    lower = np.array([math.log(dstar.lower) if dstar.lower else -math.inf for dstar in usable])
    upper = np.log([dstar.upper for dstar in usable])
    return _fit(shared, method, remarks, x - shift, lower, upper, dstars, informative, hypotheses)


def _fit(
    shared: dict[str, Any],
    method: str,
    remarks: tuple[str, ...],
    x: Array,
    lower: Array,
    upper: Array,
    dstars: Sequence[DStar],
    informative: Sequence[DStar],
    hypotheses: Sequence[float],
) -> Estimate:
    feasible = feasible_slopes(x, lower, upper)
    distribution = slope_distribution(x, lower, upper)
    middle = distribution.quantile(0.5)
    slopes = distribution.quantile(0.025), distribution.quantile(0.975)
    if feasible is not None:
        slopes = min(slopes[0], feasible[0]), max(slopes[1], feasible[1])
    details = {
        "dstar": list(dstars),
        "slope_of_ln_D_on_ln_N": middle,
        "slope_interval": slopes,
        "noise_free_range_of_k": None if feasible is None else exponents(feasible),
        "exponent_with_dstar_taken_as_exact": _exact_exponent(informative),
    }
    if middle <= 0:
        reason = "D* does not grow with N over these points: no finite positive exponent"
        return Estimate(**shared, method=method, remarks=remarks, reason=reason, details=details)
    interval = exponents(slopes)
    if feasible is None:
        remarks += ("no exact power law passes through all intervals of D*",)
    else:
        remarks += (f"noise-free range {interval_text(exponents(feasible))}",)
    if math.isinf(interval[1]):
        remarks += ("unbounded above: a D* that does not grow with N is not excluded",)
    return Estimate(
        **shared,
        method=method,
        value=1 / middle,
        interval=interval,
        remarks=remarks,
        tests=tuple(_test(k, slopes, distribution, feasible) for k in hypotheses),
        details=details,
    )


def _exact_exponent(informative: Sequence[DStar]) -> float | None:
    """Return the slope that takes every D* as exact, as the paper does; None where all D* are equal."""
    if len({dstar.upper for dstar in informative}) < 2:
        return None
    return fit_loglog([dstar.upper for dstar in informative], [dstar.N for dstar in informative]).slope


def exponents(slopes: tuple[float, float]) -> tuple[float, float]:
    """Return the range of positive k = 1/slope; a slope of 0 or below leaves k unbounded above."""
    low, high = slopes
    return (1 / high if math.isfinite(high) and high > 0 else 0.0), (1 / low if low > 0 else math.inf)


def _test(
    k: float, slopes: tuple[float, float], distribution: SlopeDistribution, feasible: tuple[float, float] | None
) -> HypothesisTest:
    slope = 1 / k
    inside = slopes[0] <= slope <= slopes[1]
    how = f"{'inside' if inside else 'outside'} the 95 % interval"
    p: float | None = distribution.tail(slope)
    if feasible is not None:
        noise_free = feasible[0] <= slope <= feasible[1]
        how += f", {'inside' if noise_free else 'outside'} the noise-free range"
        p = None if noise_free else p
    return HypothesisTest(name=hypothesis_name(k), value=float(k), rejected=not inside, how=how, p=p)


def _describe(dstars: Sequence[DStar]) -> tuple[str, ...]:
    kinds = [dstar.kind for dstar in dstars]
    remarks = []
    for kind, text in (("left", "every D passes (D* ≤ least D)"), ("right", "no D passes (D* > greatest D)")):
        if kind in kinds:
            remarks.append(f"{kinds.count(kind)} of {len(kinds)} N: {text}")
    remarks += [f"N = {dstar.N:.4g}: {flag}" for dstar in dstars for flag in dstar.flags]
    return tuple(remarks)


FACTORS = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class DStarSetting:
    """k and its interval under one threshold (nats²) and window; None where D* is known on both sides at too few N."""

    threshold: float
    window: float
    k: float | None
    interval: tuple[float, float] | None
    sizes: int


def dstar_sensitivity(
    table: PointTable, window: float, threshold: float, hypotheses: Sequence[float]
) -> list[DStarSetting]:
    """Estimate k under half, once and twice the threshold and the window."""
    cells = table.cells()
    found = []
    for width in tried_windows(window):
        values = {cell: [x.value for x in items] for cell, items in cell_criteria(cells, width)[0].items()}
        for factor in FACTORS:
            dstars = locate_all(values, factor * threshold)
            fit = exponent_from_dstar(dstars, table.convention, "", hypotheses)
            sizes = sum(dstar.kind == "interval" for dstar in dstars)
            found.append(DStarSetting(factor * threshold, width, fit.value, fit.interval, sizes))
    return found


def tried_windows(window: float) -> list[float]:
    """Return half, once and twice a window of the D* criterion."""
    return sorted(
        {min(factor * window, 1.0) if window <= 1 else max(2.0, round(factor * window)) for factor in FACTORS}
    )


def sensitivity_remark(settings: Sequence[DStarSetting]) -> tuple[str, ...]:
    """Return one line: the range of k over the settings, and in how many it is not determined."""
    known = [setting for setting in settings if setting.k is not None]
    if not known:
        return ()
    low, high = (min(known, key=_k), max(known, key=_k))
    union = min(s.interval[0] for s in known if s.interval), max(s.interval[1] for s in known if s.interval)
    text = (
        f"with σ² and window halved and doubled k runs from {low.k:.3g} (σ² {low.threshold:g}, window {low.window:g}) "
        f"to {high.k:.3g} (σ² {high.threshold:g}, window {high.window:g}); their intervals span {interval_text(union)}"
    )
    missing = len(settings) - len(known)
    return (text + (f"; not determined in {missing} of {len(settings)} settings" if missing else ""),)


def _k(setting: DStarSetting) -> float:
    return np.inf if setting.k is None else setting.k


def seed_remark(
    values: dict[tuple[float, float], list[float]], threshold: float, resamples: int, seed: int = 0
) -> tuple[str, ...]:
    """Return a remark on how the noise-free range moves with the seeds drawn, where every cell has at least two."""
    if not values or min(len(items) for items in values.values()) < 2:
        return ()
    random = np.random.default_rng(seed)
    ends = []
    for _ in range(resamples):
        drawn = {cell: list(random.choice(items, len(items))) for cell, items in values.items()}
        dstars = [dstar for dstar in locate_all(drawn, threshold) if dstar.kind == "interval"]
        if len(dstars) >= 3:
            x, lower, upper = (np.log([getattr(d, name) for d in dstars]) for name in ("N", "lower", "upper"))
            feasible = feasible_slopes(x, lower, upper)
            if feasible is not None:
                ends.append(exponents(feasible))
    if len(ends) < resamples / 2:
        return (f"seeds resampled: {len(ends)} of {resamples} draws have a noise-free range",)
    low, high = np.quantile([end[0] for end in ends], 0.025), np.quantile([end[1] for end in ends], 0.975)
    return (f"noise-free range with seeds resampled: {low:.3g} to {high:.3g} ({len(ends)} of {resamples} draws)",)
