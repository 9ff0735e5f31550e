"""Errors that all runs of one size share: a model that trains badly shifts every run of it, and no D averages it out.

Residuals of cells are taken as u + e, u one for each size and e one for each cell. How large u is against e is not
known; it is drawn from what the residuals leave open, with even odds beforehand that there is none.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amscale.scaling.points import Array

_RATIOS = np.geomspace(0.2, 20.0, 41)
"""Deviations of u over that of e that are weighed against none, evenly in their logarithm."""

_LEAST_SIZES, _MOST_SIZES = 4, 300

MANY_SIZES = 20
"""Sizes from which whole sizes can be drawn, and from which a smooth residual in ln N is told from a shared error."""

_SMOOTH = 4


@dataclass(frozen=True)
class SizeEffect:
    """What residuals say of an error shared by the runs of a size.

    Attributes:
        sizes: the number of each row's size (R,).
        ratios: deviations of u over that of e, from 0 on.
        odds: the probability of each.
        scales: by what the deviation of e is less at each than without u.
    """

    sizes: NDArray[np.intp]
    ratios: Array
    odds: Array
    scales: Array

    @property
    def probability(self) -> float:
        """Return the probability that there is such an error."""
        return float(self.odds[1:].sum())

    def add(self, noise: Array, deviation: float, random: np.random.Generator) -> Array:
        """Return residuals (B, R) with the shared error added, its ratio drawn for each of the B.

        Args:
            noise: residuals of e alone, as large as if there were no u.
            deviation: that of e, if there were no u.
            random: draws.
        """
        drawn = random.choice(len(self.ratios), size=len(noise), p=self.odds)
        scale = self.scales[drawn][:, None]
        shared = random.normal(size=(len(noise), int(self.sizes.max()) + 1))[:, self.sizes]
        return scale * (noise + deviation * self.ratios[drawn][:, None] * shared)


def size_effect(N: Array, cells: NDArray[np.intp], residuals: Array, jacobian: Array) -> SizeEffect | None:
    """Weigh an error shared by size against none; None where sizes, or cells beyond the law's parameters, are too few.

    The residuals of cells are projected off the law's derivatives, so that what a law absorbs is not taken for its
    error; the deviation of e is integrated out.

    Args:
        N: of the rows (R,).
        cells: the number of each row's cell (R,).
        residuals: of ln loss by least squares (R,).
        jacobian: derivatives of ln loss (R, P).
    """
    counts = np.bincount(cells)
    first = np.unique(cells, return_index=True)[1]
    _, sizes = np.unique(np.round(np.log(N), 6), return_inverse=True)
    number = int(sizes.max()) + 1
    if number >= MANY_SIZES:
        # So many sizes tell an error of each from a form that a law lacks, which is smooth in ln N.
        x = np.log(N) - np.log(N).mean()
        jacobian = np.hstack([jacobian, np.vander(x / np.abs(x).max(), _SMOOTH + 1)])
    basis, scale, _ = np.linalg.svd(jacobian[first], full_matrices=False)
    basis = basis[:, scale > 1e-10 * scale[0]]
    free = len(first) - basis.shape[1]
    if not _LEAST_SIZES <= number <= min(_MOST_SIZES, len(first) - 1) or free < 3:
        return None

    def beyond(columns: Array) -> Array:
        return columns - basis @ (basis.T @ columns)

    y = beyond(np.bincount(cells, residuals) / counts)
    member = beyond((sizes[first][:, None] == np.arange(number)).astype(float))
    shares, vectors = np.linalg.eigh(member.T @ member)
    kept = shares > 1e-8 * max(float(shares.max()), 1e-8)
    shares, squares = shares[kept], (vectors[:, kept].T @ (member.T @ y)) ** 2 / shares[kept]
    rest = max(float(y @ y - squares.sum()), 0.0)
    ratios = np.append(0.0, _RATIOS)
    spread = 1 + ratios[:, None] ** 2 * shares
    sums = np.maximum(rest + (squares / spread).sum(axis=1), 1e-300)
    log_odds = -0.5 * np.log(spread).sum(axis=1) - 0.5 * free * np.log(sums)
    log_odds[1:] -= np.log(len(_RATIOS))
    odds = np.exp(log_odds - log_odds.max())
    return SizeEffect(sizes, ratios, odds / odds.sum(), np.sqrt(sums / sums[0]))
