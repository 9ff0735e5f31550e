"""The k with which the loss collapses best onto one curve in N/D^k (arXiv 2405.08707 implies one in N/D²).

For each k the loss of all cells is regressed on ln(N/D^k) by a cubic spline; what it leaves unexplained of a cell that
the spline has not seen, over the variance of the loss, is the score: 0 is a perfect collapse, 1 none.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import bias_corrected_interval, cells_of, redrawn_residuals
from amscale.scaling.design import no_exponent
from amscale.scaling.estimate import Estimate, interval_test
from amscale.scaling.points import Array, PointTable
from amscale.scaling.power_law import hypothesis_name

_GRID = np.geomspace(0.05, 20, 61)
_WORST = 0.5
_LEAST_SCALE = 1e-9


def spline_columns(u: Array, knots: int) -> Array:
    """Return the columns (R, knots) of a natural cubic spline in u (R,) with knots at its quantiles."""
    v = (u - u.min()) / max(float(np.ptp(u)), 1e-12)
    places = np.unique(np.quantile(v, np.linspace(0, 1, knots)))
    last, before = places[-1], places[-2]

    def piece(knot: float) -> Array:
        cube = np.maximum(v - knot, 0) ** 3 - np.maximum(v - last, 0) ** 3
        return cube / max(last - knot, 1e-12)

    columns = [np.ones_like(v), v] + [piece(knot) - piece(before) for knot in places[:-2]]
    return np.stack(columns, axis=1)


def scores(N: Array, D: Array, loss: Array, k: float) -> Array:
    """Return the cross-validated share of the variance (S,) that stays unexplained of each row of `loss` (S, R)."""
    fitted, leverage = _smooth(N, D, loss, k)
    residual = (loss - fitted) / np.maximum(1 - leverage, 0.02)
    about_mean = loss - loss.mean(axis=1, keepdims=True)
    return np.sum(residual**2, axis=1) / np.maximum(np.sum(about_mean**2, axis=1), 1e-300)


def _smooth(N: Array, D: Array, loss: Array, k: float) -> tuple[Array, Array]:
    """Return the spline's values (S, R) for `loss` (S, R), and the leverage of each cell (R,)."""
    basis, scale, _ = np.linalg.svd(spline_columns(np.log(N) - k * np.log(D), _knots(len(N))), full_matrices=False)
    basis = basis[:, scale > _LEAST_SCALE * scale[0]]
    return (loss @ basis) @ basis.T, np.sum(basis**2, axis=1)


def best_exponents(N: Array, D: Array, loss: Array) -> Array:
    """Return the k of least score (S,) for each row of `loss` (S, R), within the range searched.

    Between its neighbours on the grid the least is that of a parabola in ln k.
    """
    curve_KS = np.stack([scores(N, D, loss, k) for k in _GRID])
    least = np.argmin(curve_KS, axis=0)
    inner = np.clip(least, 1, len(_GRID) - 2)
    before, here, after = (np.take_along_axis(curve_KS, (inner + i)[None], axis=0)[0] for i in (-1, 0, 1))
    bend = before - 2 * here + after
    shift = np.clip(np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=bend > 0), -1, 1)
    step = np.log(_GRID[1] / _GRID[0])
    return np.where(inner == least, _GRID[inner] * np.exp(step * shift), _GRID[least])


def _knots(cells: int) -> int:
    return int(np.clip(cells // 3, 3, 8))


def exponent_from_collapse(table: PointTable, hypotheses: Sequence[float], resamples: int, seed: int = 0) -> Estimate:
    """Estimate the k of least score, from 0.05 to 20; interval by residuals redrawn on the grid, bias-corrected.

    It is not determined where even the best k leaves half of the variance unexplained, or is at an end of the range.
    A loss that falls in both N and D has no curve in N/D^k, whatever the k of its optimum.
    """
    cells = table.losses()
    N, D = np.array(list(cells), dtype=float).reshape(-1, 2).T
    loss = np.array(list(cells.values()))
    shared: dict[str, Any] = {
        "id": "k_collapse",
        "estimand": "k of the best collapse of loss on N/D^k",
        "convention": table.convention,
        "objective": "cross-validated unexplained variance",
        "method": f"natural cubic spline of the loss in ln(N/D^k), {_knots(len(loss))} knots; "
        f"bias-corrected percentile interval, residuals redrawn as normal, deviation drawn too, {resamples} draws",
        "used": len(loss),
        "left_out": table.reasons,
    }
    if reason := no_exponent(table):
        return Estimate(**shared, reason=reason)
    if len(loss) < 9 or len(set(N)) < 3 or len(set(D)) < 3:
        reason = f"{len(loss)} cells, {len(set(N))} N and {len(set(D))} D; at least 9, 3 and 3 are needed"
        return Estimate(**shared, reason=reason)
    best = float(best_exponents(N, D, loss[None])[0])
    grid = np.unique(np.concatenate([_GRID, [best], [k for k in hypotheses if _GRID[0] < k < _GRID[-1]]]))
    curve = np.array([scores(N, D, loss[None], k)[0] for k in grid])
    least = float(curve.min())
    scores_at = {f"{k:g}": float(np.interp(k, grid, curve)) for k in hypotheses}
    remarks: tuple[str, ...] = ("unexplained at k: " + ", ".join(f"{k} {value:.3f}" for k, value in scores_at.items()),)
    remarks += (f"least {least:.3f} at k {best:.3g}",)
    shared["details"] = {"k": grid, "unexplained": curve, "unexplained_at": scores_at, "least": least}
    if least > _WORST:
        return Estimate(
            **shared, remarks=remarks, reason=f"the loss does not collapse: {least:.0%} unexplained at best"
        )
    if best in (_GRID[0], _GRID[-1]):
        reason = f"the best k is at the edge of the range searched, {_GRID[0]:g} to {_GRID[-1]:g}"
        return Estimate(**shared, remarks=remarks, reason=reason)
    fitted = _smooth(N, D, loss[None], best)[0][0]
    parameters = _knots(len(loss)) + 1
    noise = redrawn_residuals(loss - fitted, cells_of(N, D), parameters, resamples, np.random.default_rng(seed))
    low, high = bias_corrected_interval(best_exponents(N, D, fitted + noise), best)
    interval = (low if low > _GRID[0] else 0.0, high if high < _GRID[-1] else np.inf)
    tests = tuple(interval_test(hypothesis_name(k), k, interval, "bootstrap interval") for k in hypotheses)
    return Estimate(**shared, value=best, interval=interval, remarks=remarks, tests=tests)
