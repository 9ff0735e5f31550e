"""Rows that stand apart: residuals too large for the others, near-duplicates, and single rows that decide k."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amscale.scaling.laws.fitting import LawFit, fit_law
from amscale.scaling.laws.law import SQUARED_LOG, Rows, minimise
from amscale.scaling.points import Array, Point

_BEYOND = 5.0
"""Residuals beyond this many robust standard deviations are outliers: of 1000 normal ones none in a thousand tables."""

_LEAST_ROWS = 12
_MOST_NAMED = 5
_SAME = 0.03
"""N and D that both differ by less than this share are near-duplicates of a cell."""


@dataclass(frozen=True)
class Outliers:
    """Rows that stand apart.

    Attributes:
        rows: their indices, the largest residual first.
        residuals: of ln loss, of all rows (R,).
        k_without: k without them; None where there are none, or too few rows are left.
        deciding: the row without which k moves most, and k without it; None where k is no ratio of two exponents.
    """

    rows: tuple[int, ...]
    residuals: Array
    k_without: float | None
    deciding: tuple[int, float] | None


def outliers(fit: LawFit, rows: Rows) -> Outliers:
    """Return which rows stand apart from a law that was fitted to all of them, and what k is without them.

    Residuals are those of the robust fit, in units of their median absolute deviation, so that outliers do not hide
    each other. That of a single row is taken by its influence: one Gauss-Newton step without it.
    """
    residuals = np.log(rows.loss) - np.log(fit.predict(rows))
    deviation = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals))))
    found: tuple[int, ...] = ()
    if len(rows) >= _LEAST_ROWS and deviation > 1e-9:
        # A robust fit passes through as many rows as it has parameters, so the deviation of the others is larger.
        deviation *= float(np.sqrt(len(rows) / (len(rows) - len(fit.theta))))
        far = np.flatnonzero(np.abs(residuals) > _BEYOND * deviation)
        far = far[np.argsort(-np.abs(residuals[far]), kind="stable")]
        found = tuple(int(index) for index in far) if len(far) <= len(rows) // 4 else ()
    without = None
    if found:
        kept = rows.take(~np.isin(np.arange(len(rows)), found))
        if not fit.law.unsupported(kept):
            without = fit_law(fit.law, kept, fit.objective).exponent
    return Outliers(found, residuals, without, _deciding(fit, rows))


def _deciding(fit: LawFit, rows: Rows) -> tuple[int, float] | None:
    names = fit.law.exponents
    if names is None or len(rows) < _LEAST_ROWS:
        return None
    problem = fit.law.problem(rows)
    above, below = (problem.names.index(name) for name in names)
    theta, _ = minimise(
        problem.predict, SQUARED_LOG, fit.theta[None], rows.loss, np.ones(len(rows)), problem.low, problem.high
    )
    log_loss, jacobian = (part[0] for part in problem.predict(theta))
    inverse = np.linalg.pinv(jacobian.T @ jacobian)
    leverage = np.einsum("rp,pq,rq->r", jacobian, inverse, jacobian)
    steps = (jacobian @ inverse) * ((np.log(rows.loss) - log_loss) / np.maximum(1 - leverage, 1e-6))[:, None]
    log_k = np.log(theta[0, above] / theta[0, below])
    moved = steps[:, above] / theta[0, above] - steps[:, below] / theta[0, below]
    row = int(np.argmax(np.abs(moved)))
    kept = rows.take(np.arange(len(rows)) != row)
    if fit.law.unsupported(kept):
        return None
    again = fit.law.problem(kept)
    end, _ = minimise(
        again.predict, fit.objective, fit.theta[None], kept.loss, np.ones(len(kept)), again.low, again.high
    )
    k = fit.law.exponent(again.natural(end)[0])
    return None if k is None or not np.isfinite(log_k) else (row, float(k))


def outlier_remarks(
    found: Outliers, points: Sequence[Point], k: float | None, interval: tuple[float, float] | None
) -> tuple[str, ...]:
    """Return a remark on the outliers and what k is without them, and one on a row that decides k."""
    remarks = []
    if found.rows:
        named = [
            f"{points[index].name} ({np.expm1(found.residuals[index]):+.1%})" for index in found.rows[:_MOST_NAMED]
        ]
        more = f" and {len(found.rows) - _MOST_NAMED} more" if len(found.rows) > _MOST_NAMED else ""
        without = "" if found.k_without is None else f"; k without them {found.k_without:.4g}"
        remarks.append(f"outliers, beyond {_BEYOND:g} robust deviations: {', '.join(named)}{more}{without}")
    if found.deciding is not None and k is not None and interval is not None:
        row, without_it = found.deciding
        reach = (interval[1] - k) if without_it > k else (k - interval[0])
        if np.isfinite(reach) and abs(without_it - k) > 0.5 * reach and row not in found.rows:
            remarks.append(f"k rests on {points[row].name}: {without_it:.4g} without it")
    return tuple(remarks)


def near_duplicates(points: Sequence[Point]) -> list[tuple[str, str]]:
    """Return the names of the first points of cells whose N and D differ by less than 3 %, yet not by rounding."""
    first: dict[tuple[float, float], str] = {}
    for point in points:
        first.setdefault((point.N, point.D), point.name)
    cells = np.log(np.array(list(first), dtype=float).reshape(-1, 2))
    if not 1 < len(cells) <= 2000:
        return []
    order = np.lexsort((cells[:, 1], cells[:, 0]))
    names, pairs = list(first.values()), []
    for place, index in enumerate(order):
        for other in order[place + 1 :]:
            if cells[other, 0] - cells[index, 0] > _SAME:
                break
            if abs(cells[other, 1] - cells[index, 1]) < _SAME:
                pairs.append((names[index], names[other]))
    return pairs
