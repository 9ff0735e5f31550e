"""What a law must pass before it may speak of k and of a floor.

A law describes the points where its error is no more than the seeds' own noise explains, and no more than that of the
best law. The points determine its k where the profile likelihood rises on both sides of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from amscale.scaling.bootstrap import cells_of
from amscale.scaling.laws.fitting import LawFit, gaussian_aicc
from amscale.scaling.laws.law import SQUARED_LOG, Problem, Rows, minimise
from amscale.scaling.points import Array
from amscale.scaling.size_effect import size_effect

if TYPE_CHECKING:
    from amscale.scaling.laws.compare import Comparison, Fitted

_LEAST_R_SQUARED = 0.5

_LEVEL = 0.01
"""Level of the test of lack of fit against the seeds' noise."""

_LEAST_SEEDS = 4
"""Degrees of freedom that the seeds' noise must have to be tested against."""

NO_SUPPORT = 10.0
"""AICc above the best law's from which a law has no support (Burnham & Anderson 2002, section 2.6)."""

_LARGER_ERROR = 1.25
"""Error, as a multiple of the best law's, below which a law describes the points about as well."""

_LARGER_THAN_SURFACE = 1.5
"""The same for a polynomial surface. On the digitised points of Hoffmann et al. 2022 the best law has 1.3 times the
error of a surface; on iso-FLOP valleys whose skew drifts, which no law here describes, 1.7 times."""

_SHARED = 0.9
"""Probability of an error shared by the runs of a size from which the lack of fit is tested within sizes."""

_PROFILE = np.geomspace(0.05, 20.0, 25)
"""Exponents k at which the profile likelihood is taken."""

_ROUNDING = 1e-9
"""Error of ln loss that is always taken to be there: runs without noise would divide by zero."""

_STARTS = 5
"""Starts of a law's own from which the profile is searched, besides the fit."""

_ROBUST = 3.0
"""Residuals beyond this many robust standard deviations count less in the profile."""


def _cells(rows: Rows) -> NDArray[np.intp]:
    """Return the number of each row's cell: seeds of a cell agree in N, D and the tokens seen."""
    return cells_of(rows.N, rows.D, rows.flops, *([] if rows.tokens is None else [rows.tokens]))


def poor_fit(comparison: "Comparison") -> str | None:
    """Return why a fit does not describe the points at all: it explains less than half of their variance."""
    if comparison.r_squared is not None and comparison.r_squared < _LEAST_R_SQUARED:
        return f"R² {comparison.r_squared:.3g}: the law does not describe these points"
    return None


def misfits(rows: Rows, fitted: "Sequence[Fitted]") -> dict[str, str]:
    """Return why laws do not describe the points, by their id; laws that do are left out."""
    squares = {
        item.comparison.id: item
        for item in fitted
        if item.comparison.objective == SQUARED_LOG.name and item.fit is not None
    }
    found: dict[str, str] = {}
    for id, item in squares.items():
        assert item.fit is not None
        if reason := _against_seeds(item.fit, rows):
            found[id] = reason
    scored = {id: item.comparison for id, item in squares.items() if item.comparison.aicc is not None}
    if not scored:
        return found
    first = min(scored.values(), key=lambda comparison: comparison.aicc or 0.0)
    others = [(first.aicc or 0.0, first.rmse or 0.0, _LARGER_ERROR, f"the law “{first.law}”")]
    if surface := _surface(rows):
        others.append((*surface, _LARGER_THAN_SURFACE, "a polynomial surface in ln N and ln D"))
    for id, comparison in scored.items():
        for aicc, rmse, allowed, name in others:
            behind = (comparison.aicc or 0.0) - aicc
            times = (comparison.rmse or 0.0) / max(rmse, 1e-12)
            if behind > NO_SUPPORT and times > allowed:
                found.setdefault(id, f"its error is {times:.3g} times that of {name} (AICc {behind:.0f} higher)")
    return found


def _surface(rows: Rows) -> tuple[float, float] | None:
    """Return AICc and root mean square error of ln loss of the best polynomial surface of degree 1 to 3.

    It stands for no theory: a law that is far behind it misses something that the points show. None where the rows are
    fewer than three for each of its coefficients.
    """
    x, y = (np.log(column) - np.log(column).mean() for column in (rows.N, rows.D))
    target, found = np.log(rows.loss), []
    for degree in (1, 2, 3):
        columns = np.stack([x**i * y**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=1)
        coefficients, _, rank, _ = np.linalg.lstsq(columns, target, rcond=1e-9)
        if len(rows) < 3 * columns.shape[1]:
            break
        squares = float(np.sum((target - columns @ coefficients) ** 2))
        if squares > 0:
            found.append((gaussian_aicc(squares, rows, int(rank) + 1), math.sqrt(squares / len(rows))))
    return min(found, default=None)


def _against_seeds(fit: LawFit, rows: Rows) -> str:
    """Return what the F test of lack of fit against the seeds' noise says where it rejects the law."""
    from scipy.special import fdtrc

    cells, residuals = _cells(rows), np.log(rows.loss) - np.log(fit.predict(rows))
    counts = np.bincount(cells)
    free, seeds = len(counts) - len(fit.theta), len(rows) - len(counts)
    if free < 1 or seeds < _LEAST_SEEDS:
        return ""
    between = float(np.sum(np.bincount(cells, residuals) ** 2 / counts))
    noise = (float(np.sum(residuals**2)) - between) / seeds
    if not noise > 0:
        return ""
    ratio = between / free / noise
    p = float(fdtrc(free, seeds, ratio))
    if p >= _LEVEL or _within_sizes(fit, rows, cells, residuals, noise, seeds) >= _LEVEL:
        return ""
    return (
        f"lack of fit: its error on cells is {math.sqrt(ratio):.3g} times what the seeds' noise explains "
        f"(F {ratio:.3g} on {free} and {seeds}, p {p:.1g})"
    )


def _within_sizes(
    fit: LawFit, rows: Rows, cells: NDArray[np.intp], residuals: Array, noise: float, seeds: int
) -> float:
    """Return the p value of the lack of fit within sizes, 0 where the runs of one size share no error.

    An error that all runs of a size share is none of the law; the intervals hold it (`scaling.size_effect`).
    """
    from scipy.special import fdtrc

    jacobian = fit.law.problem(rows).predict(fit.theta[None])[1][0]
    effect = size_effect(rows.N, cells, residuals, jacobian)
    if effect is None or effect.probability < _SHARED:
        return 0.0
    counts, first = np.bincount(cells), np.unique(cells, return_index=True)[1]
    weights = np.sqrt(counts)
    member = (effect.sizes[first][:, None] == np.arange(effect.sizes.max() + 1)).astype(float)
    columns = np.hstack([jacobian[first], member]) * weights[:, None]
    y = np.bincount(cells, residuals) / counts * weights
    coefficients, _, rank, _ = np.linalg.lstsq(columns, y, rcond=1e-9)
    free = len(counts) - int(rank)
    if free < 1:
        return 0.0
    return float(fdtrc(free, seeds, float(np.sum((y - columns @ coefficients) ** 2)) / free / noise))


@dataclass(frozen=True)
class Profile:
    """Where the profile likelihood of k is, at the 5 % level, as good as at its best: 0 and infinity are open ends."""

    interval: tuple[float, float]

    @property
    def reason(self) -> str:
        """Why k is not determined, or an empty text."""
        low, high = self.interval
        if math.isinf(high) and low == 0:
            return "every k describes these points as well (profile likelihood): N and D are not told apart"
        if math.isinf(high):
            return f"every k above {low:.3g} describes these points as well (profile likelihood)"
        return f"every k below {high:.3g} describes these points as well (profile likelihood)" if low == 0 else ""


def profile(fit: LawFit, rows: Rows) -> Profile | None:
    """Return the profile likelihood of k, under least squares in ln loss of the cells with outliers weighted down.

    None where the law's k is no ratio of two exponents. An interval that reaches past 0.05 or 20 is open there.
    """
    from scipy.special import fdtri

    names = fit.law.exponents
    if names is None:
        return None
    cells, residuals = _cells(rows), np.log(rows.loss) - np.log(fit.predict(rows))
    counts = np.bincount(cells)
    free = len(counts) - len(fit.theta)
    if free < 1:
        return Profile((0.0, math.inf))
    means = np.bincount(cells, residuals) / counts
    scale = 1.4826 * float(np.median(np.abs(means - np.median(means)))) + 1e-12
    weights = (np.minimum(1.0, _ROBUST * scale / np.maximum(np.abs(means), 1e-300)) ** 2)[cells]
    within = float(weights @ (residuals - means[cells]) ** 2)  # what no law explains
    problem = fit.law.problem(rows)
    own = problem.starts
    starts = np.vstack([fit.theta, own[np.random.default_rng(0).permutation(len(own))[:_STARTS]]])
    ends, best = minimise(problem.predict, SQUARED_LOG, starts, rows.loss, weights, problem.low, problem.high)
    above, below = (problem.names.index(name) for name in names)
    end = ends[int(np.argmin(best))]
    log_k = np.sort(np.append(np.log(_PROFILE), np.log(end[above] / end[below])))

    def excess(log_k: Array) -> Array:
        """Return by how much the sum of squares at each k exceeds its least, as multiples of what 5 % allow."""
        sums = _at_each(problem, above, below, np.vstack([end, starts]), rows, weights, log_k)
        least = max(min(float(best.min()), float(sums.min())) - within, _ROUNDING**2 * len(rows))
        return (sums - within - least) / least * free / float(fdtri(1, free, 0.95)) - 1

    return Profile(_where_below(log_k, excess))


def _at_each(
    problem: Problem, above: int, below: int, starts: Array, rows: Rows, weights: Array, log_k: Array
) -> Array:
    """Return the least weighted sum of squares with ln k held at each value, (K,)."""
    kept = [index for index in range(starts.shape[1]) if index != above]
    place = kept.index(below)

    def whole(theta: Array) -> Array:
        full = np.empty((len(theta), len(problem.low)))
        full[:, kept] = theta[:, :-1]
        full[:, above] = np.exp(theta[:, -1]) * theta[:, place]
        return full

    def predict(theta: Array) -> tuple[Array, Array]:
        log_loss, jacobian = problem.predict(whole(theta))
        columns = jacobian[..., kept].copy()
        columns[..., place] += np.exp(theta[:, -1])[:, None] * jacobian[..., above]
        # The last parameter, ln k, is held: its derivative is given as 0, so that no step moves it.
        return log_loss, np.concatenate([columns, np.zeros((*log_loss.shape, 1))], axis=-1)

    held = np.repeat(log_k, len(starts))
    begin = np.tile(starts[:, kept], (len(log_k), 1))
    middle = np.sqrt(np.tile(starts[:, above] * starts[:, below], len(log_k)))
    begin[:, place] = middle * np.exp(-held / 2)
    begin = np.column_stack([begin, held])
    low, high = np.append(problem.low[kept], log_k.min() - 1), np.append(problem.high[kept], log_k.max() + 1)
    # Either exponent may have to leave its bounds for a k at the end of the grid; the bound of the other then moves.
    low[place], high[place] = problem.low[below] / 20, problem.high[below] * 5
    _, sums = minimise(predict, SQUARED_LOG, begin, rows.loss, weights, low, high, iterations=120, tolerance=1e-7)
    return sums.reshape(len(log_k), len(starts)).min(axis=1)


def _where_below(log_k: Array, excess: Callable[[Array], Array]) -> tuple[float, float]:
    """Return the outermost k at which the excess is 0; where it is below 0 at an end of the grid, that end is open."""
    values = excess(log_k)
    inside = np.flatnonzero(values <= max(0.0, float(values.min())))
    first, last = int(inside[0]), int(inside[-1])
    low, high = 0.0, math.inf
    if first > 0:
        low = _crossing(log_k[first - 1], log_k[first], excess)
    if last < len(log_k) - 1:
        high = _crossing(log_k[last + 1], log_k[last], excess)
    return low, high


def _crossing(outside: float, inside: float, excess: Callable[[Array], Array]) -> float:
    """Return k where the excess is 0 between two values of ln k, by a line through the two points of a finer grid."""
    log_k = np.linspace(outside, inside, 9)
    values = excess(log_k)
    at = max(int(np.flatnonzero(values <= 0)[0]) if np.any(values <= 0) else len(log_k) - 1, 1)
    share = values[at - 1] / (values[at - 1] - values[at]) if values[at] <= 0 < values[at - 1] else 1.0
    return float(np.exp(log_k[at - 1] + share * (log_k[at] - log_k[at - 1])))
