"""A trend of a law's residuals with N beyond the errors that the runs of a size share.

A law that lacks a form, or sizes that are trained worse the larger they are, leave residuals that bend with ln N.
Errors shared by the runs of a size scatter about such a bend, and are what it is tested against: the cells of one size
are not independent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amscale.scaling.points import Array
from amscale.settings import format_size

_LEVEL = 0.01
_MOST_SIZES = 300
_LEAST_SIZES_LEFT = 3
"""Degrees of freedom between sizes beyond the law's: fewer tell no bend from scatter."""


@dataclass(frozen=True)
class ResidualTrend:
    """The bend of residuals with ln N: its p value, and the mean residual of the least, a middle and the largest N."""

    p: float
    means: tuple[tuple[float, float], ...]

    def remark(self) -> str:
        """Return the trend in words, empty where it may be chance."""
        if self.p >= _LEVEL:
            return ""
        named = ", ".join(f"{mean:+.2%} at N = {format_size(N)}" for N, mean in self.means)
        return (
            f"residuals bend with N beyond the scatter of the sizes (p {self.p:.2g}): {named} in the mean; the law "
            "lacks a form, or sizes are trained unlike"
        )


def residual_trend(N: Array, cells: NDArray[np.intp], residuals: Array, jacobian: Array) -> ResidualTrend | None:
    """Test the residuals' bend with ln N against their scatter from size to size; None where sizes are too few.

    Residuals of cells are projected off the law's derivatives. Of what is left between sizes, one degree of freedom is
    the bend (ln N)², the others are scatter: an F test of 1 and the number of these.

    Args:
        N: of the rows (R,).
        cells: the number of each row's cell (R,).
        residuals: of ln loss by least squares (R,).
        jacobian: derivatives of ln loss (R, P).
    """
    from scipy.special import fdtrc

    first = np.unique(cells, return_index=True)[1]
    means = np.bincount(cells, residuals) / np.bincount(cells)
    x = np.log(N[first])
    _, sizes = np.unique(np.round(x, 6), return_inverse=True)
    if int(sizes.max()) >= _MOST_SIZES:
        return None
    basis, scale, _ = np.linalg.svd(jacobian[first], full_matrices=False)
    basis = basis[:, scale > 1e-10 * scale[0]]

    def beyond(columns: Array) -> Array:
        return columns - basis @ (basis.T @ columns)

    member = beyond((sizes[:, None] == np.arange(int(sizes.max()) + 1)).astype(float))
    between, strength, _ = np.linalg.svd(member, full_matrices=False)
    between = between[:, strength > 0.05 * max(float(strength.max()), 1e-12)]
    bend = between.T @ beyond((x - x.mean()) ** 2)
    if between.shape[1] < _LEAST_SIZES_LEFT or float(bend @ bend) < 1e-12:
        return None
    y, free = between.T @ beyond(means), between.shape[1] - 1
    explained = float(bend @ y) ** 2 / float(bend @ bend)
    rest = max(float(y @ y) - explained, 1e-300)
    shown = (0, int(sizes.max()) // 2, int(sizes.max()))
    at = tuple((float(np.exp(x[sizes == size][0])), float(means[sizes == size].mean())) for size in shown)
    return ResidualTrend(float(fdtrc(1, free, explained / rest * free)), at)
