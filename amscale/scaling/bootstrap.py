"""Resampling: cells, residuals and seeds."""

import numpy as np
from numpy.typing import NDArray

from amscale.scaling.points import Array


def percentile_interval(values: Array) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of the finite values; unbounded where more than half are not finite.

    Of B values and one more from the same distribution the last is below the k-th smallest with probability
    k/(B + 1): the quantiles are taken so that this holds. (The usual ones, at 1 + p·(B - 1), hold 94 % for B = 200.)
    """
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values):
        return -np.inf, np.inf
    low, high = np.quantile(finite, [0.025, 0.975], method="weibull")
    return float(low), float(high)


def bias_corrected_interval(values: Array, estimate: float) -> tuple[float, float]:
    """The percentile interval with its points moved by twice the median bias of `values` about `estimate`.

    z0 being the normal quantile of the share of values below the estimate, the points are those of 2 z0 -+ 1.96
    (Efron 1981).
    """
    from scipy.special import ndtr, ndtri

    below = np.sum(values < estimate) + 0.5 * np.sum(values == estimate) + 0.5
    points = ndtr(2 * ndtri(below / (len(values) + 1)) + ndtri([0.025, 0.975]))
    low, high = np.quantile(values, points, method="weibull")
    return float(low), float(high)


def cells_of(*columns: Array) -> NDArray[np.intp]:
    """The cell of each row, numbered from 0, shape (rows,): rows of one cell agree in every column to 6 digits."""
    logs = np.round(np.log(np.stack(columns)) * 1e6)
    order = np.lexsort(logs)
    new = np.any(np.diff(logs[:, order], axis=1) != 0, axis=0)
    cells = np.empty(logs.shape[1], dtype=np.intp)
    cells[order] = np.concatenate([np.zeros(min(1, len(order)), dtype=np.intp), np.cumsum(new)])
    return cells


def cell_weights(cells: NDArray[np.intp], resamples: int, random: np.random.Generator) -> Array:
    """How often each row is drawn, shape (resamples, rows): cells with replacement, then seeds within each drawn cell.

    Where no cell has two rows this is the plain bootstrap over trials.
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
    """Residuals drawn for a fixed design, shape (resamples, rows): one per cell, and one per seed within its cell.

    Those of the n cells are normal, their deviation being drawn too, from what n - p degrees of freedom leave open: a
    linear law gets its Student t interval, and a small grid does not look too sure. (A few residuals drawn as they are
    have no tails, and where few cells decide a parameter its interval is too short.) Those of the seeds are drawn from
    the residuals and sum to 0 in each cell, whose own has their mean already.
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


def seed_interval(
    values: dict[tuple[float, float], list[float]], threshold: float, resamples: int, seed: int = 0
) -> tuple[str, ...]:
    """A remark on how far D* moves with the seeds of each cell, where every cell has at least two."""
    from amscale.scaling.censored import feasible_slopes
    from amscale.scaling.dstar import locate_all
    from amscale.scaling.power_law import exponents

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
