"""Resampling: cells, residuals and seeds."""

import math

import numpy as np
from numpy.typing import NDArray

from amscale.scaling.points import Array


def percentile_interval(values: Array) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % points of the finite values; infinite ends where more than half are not finite.

    Of B values and one more from the same distribution the last is below the k-th smallest with probability
    k/(B + 1): the quantiles are taken so that this holds. (The usual ones, at 1 + p·(B - 1), hold 94 % for B = 200.)
    """
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values):
        return -np.inf, np.inf
    low, high = np.quantile(finite, [0.025, 0.975], method="weibull")
    return float(low), float(high)


def bias_corrected_interval(values: Array, estimate: float) -> tuple[float, float]:
    """Return the percentile interval with its points moved by twice the median bias of `values` about `estimate`.

    z0 being the normal quantile of the share of values below the estimate, the points are those of 2 z0 -+ 1.96
    (Efron 1981).
    """
    from scipy.special import ndtr, ndtri

    below = np.sum(values < estimate) + 0.5 * np.sum(values == estimate) + 0.5
    points = ndtr(2 * ndtri(below / (len(values) + 1)) + ndtri([0.025, 0.975]))
    low, high = np.quantile(values, points, method="weibull")
    return float(low), float(high)


def cells_of(*columns: Array) -> NDArray[np.intp]:
    """Return the number of each row's cell, from 0, (rows,): rows of a cell agree in every column to 6 digits."""
    logs = np.round(np.log(np.stack(columns)) * 1e6)
    order = np.lexsort(logs)
    new = np.any(np.diff(logs[:, order], axis=1) != 0, axis=0)
    cells = np.empty(logs.shape[1], dtype=np.intp)
    cells[order] = np.concatenate([np.zeros(min(1, len(order)), dtype=np.intp), np.cumsum(new)])
    return cells


def cell_weights(cells: NDArray[np.intp], resamples: int, random: np.random.Generator) -> Array:
    """Draw cells with replacement, then seeds within them; return how often each row is drawn, (resamples, rows).

    Where no cell has two rows this is the bootstrap over rows.
    """
    number = int(cells.max()) + 1
    drawn = random.multinomial(number, np.full(number, 1 / number), size=resamples)
    seeds = np.bincount(cells)
    weights = drawn[:, cells].astype(float)
    for cell in np.flatnonzero(seeds > 1):
        inside = np.flatnonzero(cells == cell)
        weights[:, inside] = random.multinomial(drawn[:, cell] * len(inside), np.full(len(inside), 1 / len(inside)))
    return weights


def redrawn_residuals(
    residuals: Array, cells: NDArray[np.intp], parameters: int, resamples: int, random: np.random.Generator
) -> Array:
    """Draw residuals for a fixed design, (resamples, rows): one for each cell, and one for each seed within its cell.

    Those of the n cells are normal. Their deviation is drawn too, with n - p degrees of freedom, so that a linear law
    gets its Student t interval and a small grid no interval that is too short. (A few residuals drawn as they are have
    no tails.) Those of the seeds are drawn from the residuals and sum to 0 in each cell, which has their mean already.
    """
    seeds = np.bincount(cells)
    means = np.bincount(cells, residuals) / seeds
    number = len(seeds)
    free = number - parameters
    scale = np.sqrt(np.sum((means - means.mean()) ** 2) / random.chisquare(free, size=(resamples, 1)))
    drawn = (scale * random.normal(size=(resamples, number)))[:, cells]
    if number < len(residuals):
        several = seeds[cells] > 1
        within = (residuals - means[cells])[several] / np.sqrt(1 - 1 / seeds[cells][several])
        between = np.where(several, random.choice(within, size=(resamples, len(residuals))), 0.0)
        for cell in np.flatnonzero(seeds > 1):
            inside = cells == cell
            between[:, inside] -= between[:, inside].mean(axis=1, keepdims=True)
        drawn = drawn + between
    return drawn


def with_interpolation(noise: Array, deviations: Array) -> Array:
    """Return residuals (resamples, rows) of which a part is what finding the optimum of each tuned cell anew changes.

    The residuals of a law through tuned cells hold their interpolation errors already: their variance stays the same.
    The errors of interpolation take from it what they explain, at most all, and each cell has its own.

    Args:
        noise: residuals drawn for the rows.
        deviations: changes of ln loss (draws, rows).
    """
    total, explained = float(noise.var()), float(deviations.var(axis=0).mean())
    share = min(1.0, explained / total) if total > 0 else 1.0
    scale = math.sqrt(share * total / explained) if explained > 0 else 0.0
    drawn = deviations[np.arange(len(noise)) % len(deviations)]
    return scale * drawn + math.sqrt(1 - share) * noise
