"""Does the loss collapse onto one curve in N/D^k? (arXiv 2405.08707 implies one in N/D².)

For each k the loss of all cells is regressed on ln(N/D^k) by a cubic spline; what it leaves unexplained of a cell that
the spline has not seen, over the variance of the loss, is the score: 0 is a perfect collapse, 1 none.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import row_weights
from amscale.scaling.estimate import Estimate, outside
from amscale.scaling.power_law import named
from amscale.scaling.table import Array, Table

_GRID = np.geomspace(0.05, 20, 61)
_WORST = 0.5
_RIDGE = 1e-9


def spline_columns(u: Array, knots: int) -> Array:
    """Columns of a natural cubic spline in u (R,) with `knots` knots at its quantiles, (R, knots)."""
    v = (u - u.min()) / max(float(np.ptp(u)), 1e-12)
    places = np.unique(np.quantile(v, np.linspace(0, 1, knots)))
    last, before = places[-1], places[-2]

    def piece(knot: float) -> Array:
        cube = np.maximum(v - knot, 0) ** 3 - np.maximum(v - last, 0) ** 3
        return cube / max(last - knot, 1e-12)

    columns = [np.ones_like(v), v] + [piece(knot) - piece(before) for knot in places[:-2]]
    return np.stack(columns, axis=1)


def scores(N: Array, D: Array, loss: Array, k: float, weights: Array) -> Array:
    """Unexplained share of the variance, cross-validated, for each row of `weights` (S, R): (S,).

    A cell is predicted without any of its copies, so that a bootstrap's repeats do not vouch for one another.
    """
    columns = spline_columns(np.log(N) - k * np.log(D), _knots(len(loss)))
    size = columns.shape[1]
    squares = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), -1)
    normal = (weights @ squares).reshape(-1, size, size)
    normal = normal + _RIDGE * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(size)
    inverse = np.linalg.inv(normal)
    moment = (weights * loss) @ columns
    fitted = np.matmul(inverse, moment[..., None])[..., 0] @ columns.T
    leverage = weights * (inverse.reshape(len(weights), -1) @ squares.T)
    residual = (loss - fitted) / np.maximum(1 - leverage, 0.02)
    mean = (weights * loss).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    return (weights * residual**2).sum(1) / np.maximum((weights * (loss - mean) ** 2).sum(1), 1e-300)


def _knots(cells: int) -> int:
    return int(np.clip(cells // 3, 3, 8))


def exponent_from_collapse(table: Table, hypotheses: Sequence[float], resamples: int, seed: int = 0) -> Estimate:
    """k of the best collapse of the loss on N/D^k, percentile interval by bootstrap over cells.

    Best means the least score over k from 0.05 to 20. Refused where even that leaves half of the variance (there is
    then no curve in N/D^k), and where the best k is at an end of that range. A loss that falls in both N and D has
    no such curve, whatever the k of its optimum.
    """
    cells = table.losses()
    N, D = np.array(list(cells), dtype=float).reshape(-1, 2).T
    loss = np.array(list(cells.values()))
    shared: dict[str, Any] = {
        "estimand": "k of the best collapse of loss on N/D^k",
        "convention": table.convention,
        "objective": "cross-validated unexplained variance",
        "method": f"natural cubic spline of the loss in ln(N/D^k), {_knots(len(loss))} knots; "
        f"percentile interval, cells resampled, {resamples} draws",
        "used": len(loss),
        "left_out": table.reasons,
    }
    if len(loss) < 9 or len(set(N)) < 3 or len(set(D)) < 3:
        reason = f"{len(loss)} cells, {len(set(N))} N and {len(set(D))} D; at least 9, 3 and 3 are needed"
        return Estimate(**shared, refusal=reason)
    grid = np.unique(np.concatenate([_GRID, [k for k in hypotheses if _GRID[0] < k < _GRID[-1]]]))
    curve = np.array([scores(N, D, loss, k, np.ones((1, len(loss))))[0] for k in grid])
    best, least = float(grid[np.argmin(curve)]), float(curve.min())
    named_scores = {f"{k:g}": float(np.interp(k, grid, curve)) for k in hypotheses}
    remarks: tuple[str, ...] = (
        "unexplained at k: " + ", ".join(f"{k} {value:.3f}" for k, value in named_scores.items()),
    )
    remarks += (f"least {least:.3f} at k {best:.3g}",)
    shared["details"] = {"k": grid, "unexplained": curve, "unexplained_at": named_scores, "least": least}
    if least > _WORST:
        return Estimate(
            **shared, remarks=remarks, refusal=f"the loss does not collapse: {least:.0%} unexplained at best"
        )
    if best in (grid[0], grid[-1]):
        reason = f"the best k is at the edge of the range searched, {_GRID[0]:g} to {_GRID[-1]:g}"
        return Estimate(**shared, remarks=remarks, refusal=reason)
    weights = row_weights(len(loss), resamples, np.random.default_rng(seed))
    ends = np.argmin([scores(N, D, loss, k, weights) for k in grid], axis=0)
    low, high = (int(end) for end in np.quantile(ends, [0.025, 0.975], method="nearest"))
    # The least of a grid is known up to its neighbours.
    interval = (float(grid[low - 1]) if low > 1 else 0.0, float(grid[high + 1]) if high < len(grid) - 2 else np.inf)
    tests = tuple(outside(named(k), k, interval, "bootstrap interval") for k in hypotheses)
    return Estimate(**shared, value=best, interval=interval, remarks=remarks, hypotheses=tests)
