"""Refits of a law to resampled trials: the ground of every interval of a law."""

from dataclasses import dataclass

import numpy as np

from amscale.scaling.bootstrap import cell_weights, cells_of, redrawn_residuals
from amscale.scaling.laws.fitting import LawFit, at_bound
from amscale.scaling.laws.law import Problem, Rows
from amscale.scaling.laws.search import SQUARED_LOG, minimise
from amscale.scaling.table import Array

_CELLS_FOR_PAIRS = 50
_ITERATIONS = 120
"""Enough for a refit that starts near its end; one that slides along a bound may stop short of it."""

_CHUNK = 60_000
"""Rows times refits of one batch: what fits in a processor's cache."""


@dataclass(frozen=True)
class Resampled:
    """Refits: `natural` (resamples, P), how they were drawn, and the share that ended at a bound."""

    natural: Array
    how: str
    at_bound: float


def resample_law(fit: LawFit, rows: Rows, resamples: int = 400, seed: int = 0) -> Resampled:
    """Refits of a fit to resampled rows.

    Of many scattered cells (N, D) cells are drawn, and seeds within each. A complete grid is a design and stays as it
    is, and so does a small one, where a draw may lose a whole size: residuals in ln loss are drawn for it, those of a
    cell and those of its seeds apart. Every refit starts from the fit and from points on either side of it, and the
    best end is kept.
    """
    problem = fit.law.problem(rows)
    random = np.random.default_rng(seed)
    cells = cells_of(rows.N, rows.D, rows.flops)
    count = int(cells.max()) + 1
    complete = count == (int(cells_of(rows.N).max()) + 1) * (int(cells_of(rows.D).max()) + 1)
    many = count >= _CELLS_FOR_PAIRS and not complete
    weights, target = np.ones((resamples, len(rows))), np.broadcast_to(rows.loss, (resamples, len(rows)))
    if many:
        weights = cell_weights(cells, resamples, random)
    else:
        fitted = np.log(fit.predict(rows))
        noise = redrawn_residuals(_residuals(fit, rows, problem), cells, len(fit.theta), resamples, random)
        target = np.exp(fitted + noise)
    shift = 0.02 * np.minimum(problem.high - problem.low, 8)
    begin = np.clip(fit.theta + np.outer([0, 1, -1], shift), problem.low, problem.high)
    ends = np.empty((resamples, len(fit.theta)))
    chunk = max(1, _CHUNK // (len(begin) * len(rows)))
    for first in range(0, resamples, chunk):
        part = slice(first, min(first + chunk, resamples))
        size = part.stop - first
        theta, values = minimise(
            problem.predict,
            fit.objective,
            np.repeat(begin, size, axis=0),
            np.tile(target[part], (len(begin), 1)),
            np.tile(weights[part], (len(begin), 1)),
            problem.low,
            problem.high,
            iterations=_ITERATIONS,
            tolerance=1e-6,
        )
        best = np.argmin(values.reshape(len(begin), size), axis=0)
        ends[part] = theta.reshape(len(begin), size, -1)[best, np.arange(size)]
    how = f"{'cells and their seeds' if len(cells) > cells.max() + 1 else 'rows' if many else 'residuals'} resampled"
    how = how if many else how.replace("resampled", "redrawn as normal, deviation drawn too")
    return Resampled(problem.natural(ends), how, float(at_bound(ends, problem).mean()))


def _residuals(fit: LawFit, rows: Rows, problem: Problem) -> Array:
    """ln loss minus the law's, by the least squares in ln loss nearest to the fit.

    A robust fit passes through as many points as it has parameters: its own residuals make the noise look too small.
    """
    theta, _ = minimise(
        problem.predict, SQUARED_LOG, fit.theta[None], rows.loss, np.ones(len(rows)), problem.low, problem.high
    )
    return np.log(rows.loss) - problem.predict(theta)[0][0]
