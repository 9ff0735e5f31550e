"""Resampling: rows, residuals and seeds."""

import math

import numpy as np

from amscale.scaling.table import Array


def percentile_interval(values: Array) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of the finite values."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, 0.025)), float(np.quantile(finite, 0.975))


def row_weights(rows: int, resamples: int, random: np.random.Generator) -> Array:
    """How often each row is drawn, shape (resamples, rows): a bootstrap over trials."""
    return random.multinomial(rows, np.full(rows, 1 / rows), size=resamples).astype(float)


def inflated_residuals(residuals: Array, parameters: int, resamples: int, random: np.random.Generator) -> Array:
    """Residuals drawn for a fixed design, shape (resamples, rows).

    They are scaled by sqrt(n / (n - p)) for the freedom that the fit took, and by the ratio of the 97.5 % points of
    Student's t and the normal, so that a linear law gets about its t interval and a small grid does not look too sure.
    """
    from scipy.stats import norm, t

    n = len(residuals)
    free = n - parameters
    scale = math.sqrt(n / free) * float(t.ppf(0.975, free) / norm.ppf(0.975))
    return scale * random.choice(residuals - residuals.mean(), size=(resamples, n))


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
