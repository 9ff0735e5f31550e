"""Rows of several kinds, as of two corpora: laws over all of them together would hold for none."""

import numpy as np
from numpy.typing import NDArray

from amscale.scaling.bootstrap import cells_of
from amscale.scaling.estimate import Estimate
from amscale.scaling.points import Array, PointTable

_LEVEL = 1e-3
"""Level of the F test of a column's effect on ln loss: below it the rows are not fitted together."""


def unlike_rows(table: PointTable) -> str:
    """Return which column of labels tells rows of different losses apart at one N and D, or an empty text.

    Labels are what the points carry in `labels`. The effect of each on ln loss is tested beside one level for each cell
    (N, D) where cells hold several kinds, else beside a surface of the second degree in ln N and ln D.
    """
    names = dict.fromkeys(name for point in table.points for name, _ in point.labels)
    for name in names:
        values = [dict(point.labels).get(name, "") for point in table.points]
        kinds, number = np.unique(values, return_inverse=True)
        if len(kinds) < 2:
            continue
        p, shift = _effect(table, number)
        if p < _LEVEL:
            shown = ", ".join(kinds[:3]) + (f", … {len(kinds)} kinds" if len(kinds) > 3 else "")
            return (
                f"the rows are of several {name!r} ({shown}), whose losses at one N and D differ by {shift:.2g} % "
                f"(p {p:.1g}): a law over all of them holds for none; --by {name} fits each, "
                f"--where '{name}={kinds[0]}' one"
            )
    return ""


def estimates_of_kinds(table: PointTable, reason: str) -> list[Estimate]:
    """Return the row that says why rows of several kinds have no common exponent and no common law."""
    estimand = "exponent k and laws in N and D"
    names = {"id": "k_all_kinds", "estimand": estimand, "objective": "", "method": ""}
    convention, used = table.convention, len(table.points)
    return [Estimate(**names, convention=convention, used=used, left_out=table.reasons, reason=reason)]


def _effect(table: PointTable, number: NDArray[np.intp]) -> tuple[float, float]:
    """Return the p value of a kind's effect on ln loss, and the largest difference between kinds in per cent."""
    from scipy.special import fdtrc

    y = np.log(table.loss)
    kinds = (number[:, None] == np.arange(1, number.max() + 1)).astype(float)
    tokens = table.tokens
    cells = cells_of(table.N, table.D, table.flops, *([] if tokens is None else [tokens]))
    counts = np.bincount(cells)
    shared = np.zeros(len(counts), dtype=bool)
    order = np.lexsort((number, cells))
    same = cells[order][1:] == cells[order][:-1]
    shared[cells[order][1:][same & (number[order][1:] != number[order][:-1])]] = True
    if shared.any():
        inside = shared[cells]
        y, kinds, cells = y[inside], kinds[inside], np.unique(cells[inside], return_inverse=True)[1]
        counts = np.bincount(cells)

        def without_cells(column: Array) -> Array:
            return column - (np.bincount(cells, column) / counts)[cells]

        y, free = without_cells(y), len(y) - len(counts)
        kinds = np.apply_along_axis(without_cells, 0, kinds)
        base = np.zeros((len(y), 0))
    else:
        u, v = np.log(table.N), np.log(table.D)
        u, v = u - u.mean(), v - v.mean()
        base = np.stack([u**i * v**j for i in range(3) for j in range(3 - i)], axis=1)
        free = len(y) - int(np.linalg.matrix_rank(base))
    before, _ = _squares(base, y)
    after, coefficients = _squares(np.hstack([base, kinds]), y)
    effects = int(np.linalg.matrix_rank(np.hstack([base, kinds])) - np.linalg.matrix_rank(base)) if kinds.size else 0
    left = free - effects
    if left < 1 or effects < 1:
        return 1.0, 0.0
    levels = np.append(coefficients[base.shape[1] :], 0.0)
    ratio = (before - after) / effects / max(after / left, 1e-20)
    return float(fdtrc(effects, left, ratio)), 100 * float(np.expm1(np.ptp(levels)))


def _squares(columns: Array, y: Array) -> tuple[float, Array]:
    """Return the residual sum of squares of y on columns (R, P), and the coefficients."""
    coefficients = np.zeros(columns.shape[1])
    if columns.size:
        coefficients = np.asarray(np.linalg.lstsq(columns, y, rcond=None)[0], dtype=np.float64)
    return float(np.sum((y - columns @ coefficients) ** 2)), coefficients
