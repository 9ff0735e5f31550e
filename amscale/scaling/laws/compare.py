"""Compare laws on the same points: objective, R², AICc, held-out error, intervals by refits to resampled points."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from amscale.scaling.bootstrap import cell_weights, cells_of, percentile_interval, redrawn_residuals, with_interpolation
from amscale.scaling.design import no_variation
from amscale.scaling.estimate import FitRecord
from amscale.scaling.laws import all_laws
from amscale.scaling.laws.adequacy import misfits, poor_fit
from amscale.scaling.laws.fitting import LawFit, at_bound, fit_law, gaussian_aicc
from amscale.scaling.laws.law import (
    HUBER_LOG,
    OBJECTIVES,
    SQUARED,
    SQUARED_LOG,
    Law,
    Objective,
    Problem,
    Rows,
    minimise,
)
from amscale.scaling.points import Array
from amscale.scaling.size_effect import MANY_SIZES, size_effect

HELD_OUT = ("N", "D", "C")
"""Axes whose largest values are held out in turn."""

HELD_OUT_FACTOR = 1.02
"""Values of an axis within this factor of the largest are held out with it."""

_LEAST_CELLS_DRAWN = 50
"""With fewer cells residuals are redrawn instead of cells."""

_ITERATIONS = 120
"""Enough for a refit that starts near its end; one that slides along a bound may stop short of it."""

_CHUNK = 60_000
"""Rows times refits of one batch: what fits in a processor's cache."""


@dataclass(frozen=True)
class Resampled:
    """Refits of a law: parameters `natural` (resamples, P), how points were drawn, and the share of ends at a bound.

    `floorless` (resamples,) are those whose floor ended at the least that the search allows: they have none.
    """

    natural: Array
    how: str
    at_bound: float
    floorless: NDArray[np.bool_]


def resample_law(fit: LawFit, rows: Rows, resamples: int = 400, seed: int = 0) -> Resampled:
    """Refit a law to resampled rows.

    Of 50 or more scattered cells (N, D), cells are drawn, and seeds within each. A complete grid is a design and is
    kept, and so is a small one, where a draw may lose a whole size: residuals in ln loss are drawn for it, of cells and
    of their seeds separately, and in tuned cells the optimum is found anew. An error that all runs of one size share is
    drawn with the probability that the residuals give it. Every refit starts at the fit and at points
    on either side of it; the best end is kept.
    """
    problem = fit.law.problem(rows)
    random = np.random.default_rng(seed)
    cells = cells_of(rows.N, rows.D, rows.flops)
    count = int(cells.max()) + 1
    complete = count == (int(cells_of(rows.N).max()) + 1) * (int(cells_of(rows.D).max()) + 1)
    residuals, jacobian = linear_residuals(fit, rows, problem)
    effect = size_effect(rows.N, cells, residuals, jacobian)
    shared = 0.0 if effect is None else effect.probability
    sizes = 0 if effect is None else int(effect.sizes.max()) + 1
    few = shared > 0.5 and sizes < MANY_SIZES
    many = count >= _LEAST_CELLS_DRAWN and not complete and not few
    weights, target = np.ones((resamples, len(rows))), np.broadcast_to(rows.loss, (resamples, len(rows)))
    if many:
        weights = cell_weights(cells, resamples, random)
        if effect is not None and shared > 0.5:
            whole = random.random(resamples) < shared
            weights[whole] = cell_weights(effect.sizes, int(whole.sum()), random)
    else:
        fitted = np.log(fit.predict(rows))
        noise = redrawn_residuals(residuals, cells, len(fit.theta), resamples, random)
        if effect is not None:
            means = np.bincount(cells, residuals) / np.bincount(cells)
            deviation = math.sqrt(float(np.sum((means - means.mean()) ** 2)) / (count - len(fit.theta)))
            noise = effect.add(noise, deviation, random)
        if rows.deviations is not None:
            noise = with_interpolation(noise, rows.deviations)
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
    if shared > 0.5:
        how += f", with an error shared by the runs of one N (probability {shared:.2f})"
    floor = [index for index, name in enumerate(problem.names) if name == fit.law.floor_parameter]
    floorless = np.any(ends[:, floor] - problem.low[floor] < 1e-6, axis=1)
    return Resampled(problem.natural(ends), how, float(at_bound(ends, problem, fit.law.spared).mean()), floorless)


def linear_residuals(fit: LawFit, rows: Rows, problem: Problem) -> tuple[Array, Array]:
    """Return ln loss minus the law's (R,), after least squares in ln loss from the fit on, and its derivatives (R, P).

    A robust fit passes through as many points as it has parameters: its own residuals make the noise look too small.
    """
    theta, _ = minimise(
        problem.predict, SQUARED_LOG, fit.theta[None], rows.loss, np.ones(len(rows)), problem.low, problem.high
    )
    log_loss, jacobian = problem.predict(theta)
    return np.log(rows.loss) - log_loss[0], jacobian[0]


class Comparison(FitRecord):
    """One law under one objective.

    Attributes:
        id: id of the law.
        law: its name.
        used: number of rows.
        parameters: fitted parameters by name.
        value: the objective at them.
        k: exponent of N ∝ D^k; None where the law has none.
        floor: least loss that the law allows, nats per token; None where it has none.
        intervals: 95 % intervals of each parameter, of `k` and of `floor`, by `bootstrap`.
        rmse: root mean square error of ln loss.
        held_out: the same on the rows of the largest N, D or C by a fit to the others, or why that cannot be done.
        flags: what is wrong with the fit.
        condition: condition number of the scaled derivatives.
        starts_at_optimum: share of the starts that reach the least objective.
        refits_at_a_bound: share of the refits that end at a bound other than the limits of the law and that of a floor.
        reason: why there is no fit; None where there is one.
    """

    id: str
    law: str
    formula: str
    objective: str
    used: int
    parameters: dict[str, float] = Field(default_factory=dict)
    value: float | None = None
    k: float | None = None
    floor: float | None = None
    intervals: dict[str, tuple[float, float]] = Field(default_factory=dict)
    r_squared: float | None = None
    rmse: float | None = None
    aicc: float | None = None
    held_out: dict[str, float | str] = Field(default_factory=dict)
    flags: tuple[str, ...] = ()
    condition: float | None = None
    starts: int = 0
    starts_at_optimum: float | None = None
    bootstrap: str = ""
    resamples: int = 0
    refits_at_a_bound: float | None = None
    reason: str | None = Field(default=None, alias="refusal")


@dataclass(frozen=True)
class Fitted:
    """A comparison with its law, the fit and the refits behind it, and why the law does not describe the points."""

    law: Law
    comparison: Comparison
    fit: LawFit | None = None
    resampled: Resampled | None = None
    misfit: str | None = None


def aicc(fit: LawFit, rows: Rows) -> float | None:
    """Return Akaike's criterion, corrected for few points, under independent Gaussian errors of one unknown deviation.

    The errors are of the loss for squares on loss, and of ln loss for squares on ln loss; the Jacobian makes the two
    comparable. None for a robust objective, which is no likelihood, and where n ≤ p + 2.
    """
    n, p = len(rows), len(fit.theta) + 1
    if fit.objective.robust or n - p - 1 <= 0 or fit.value <= 0:
        return None
    return gaussian_aicc(fit.value, rows, p, raw=fit.objective.raw)


def held_out_error(law: Law, rows: Rows, objective: Objective, axis: str) -> float | str:
    """Return the root mean square error of ln loss on the rows of the largest N, D or C by a fit to the others.

    Where the others are too few, return the reason.
    """
    values = {"N": rows.N, "D": rows.D, "C": rows.flops}[axis]
    out = values * HELD_OUT_FACTOR >= values.max()
    reason = law.unsupported(rows.take(~out)) if not out.all() else f"all rows have one {axis}"
    if reason:
        return reason
    fit = fit_law(law, rows.take(~out), objective)
    return _overflow(fit) or _rmse(fit.predict(rows.take(out)), rows.loss[out])


def _overflow(fit: LawFit) -> str:
    """Return which parameters grew beyond every number, as where a term does not show in the points, or nothing."""
    names = [name for name, value in fit.parameters.items() if not math.isfinite(value)]
    return "; ".join([f"{' and '.join(names)} grew beyond every number", *fit.flags]) if names else ""


def _rmse(predicted: np.ndarray, loss: np.ndarray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(np.mean((np.log(predicted) - np.log(loss)) ** 2)))


Progress = Callable[[Sequence[Comparison]], None]
"""What is told of the laws while intervals are still found: those that have one already have it."""


def compare(
    rows: Rows,
    resamples: int,
    laws: Mapping[str, Law] | None = None,
    intervals: bool = True,
    progress: Progress | None = None,
) -> list[Fitted]:
    """Fit laws by their id, by default every one, under every objective; refit those that describe the points.

    Args:
        intervals: whether to refit them for intervals, and to find held-out errors.
        progress: is told of the laws that describe the points once all are fitted, and after every refit.
    """
    chosen = all_laws() if laws is None else laws
    reasons = {id: no_variation(rows.loss) or law.unsupported(rows) for id, law in chosen.items()}

    def fitted(id: str, objective: Objective) -> Fitted:
        if reasons[id]:
            return _not_fitted(id, chosen[id], rows, objective, reasons[id])
        return _fitted(id, chosen[id], rows, objective)

    def refitted(item: Fitted) -> Fitted:
        item = _with_held_out(item, rows)
        if item.fit is None or item.fit.objective not in _REFITTED or item.misfit is not None:
            return item
        return _refitted(item, rows, resamples)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = list(pool.map(fitted, *zip(*product(chosen, OBJECTIVES), strict=True)))
        misfit = misfits(rows, found)
        found = [replace(item, misfit=poor_fit(item.comparison) or misfit.get(item.comparison.id)) for item in found]
        if not intervals:
            return found
        _tell(progress, found)
        for index, item in enumerate(pool.map(refitted, found)):
            if item is not found[index]:
                found[index] = item
                _tell(progress, found)
    return found


def _tell(progress: Progress | None, found: Sequence[Fitted]) -> None:
    if progress is not None:
        progress([item.comparison for item in found if item.fit is not None and item.misfit is None])


_REFITTED = (HUBER_LOG, SQUARED)
"""Objectives that have intervals: squares on ln loss serve to compare laws."""


def _not_fitted(id: str, law: Law, rows: Rows, objective: Objective, reason: str) -> Fitted:
    comparison = Comparison(
        id=id, law=law.name, formula=law.formula, objective=objective.name, used=len(rows), reason=reason
    )
    return Fitted(law, comparison)


def _fitted(id: str, law: Law, rows: Rows, objective: Objective) -> Fitted:
    fit = fit_law(law, rows, objective)
    if reason := _overflow(fit):
        return _not_fitted(id, law, rows, objective, reason)
    predicted = fit.predict(rows)
    total = float(np.sum((rows.loss - rows.loss.mean()) ** 2))
    comparison = Comparison(
        id=id,
        law=law.name,
        formula=law.formula,
        objective=objective.name,
        used=len(rows),
        parameters=fit.parameters,
        value=fit.value,
        k=fit.exponent,
        floor=fit.floor,
        r_squared=1 - float(np.sum((rows.loss - predicted) ** 2)) / total if total > 0 else None,
        rmse=_rmse(predicted, rows.loss),
        aicc=aicc(fit, rows),
        flags=fit.flags,
        condition=fit.condition,
        starts=fit.starts,
        starts_at_optimum=fit.share,
    )
    return Fitted(law, comparison, fit)


def _with_held_out(item: Fitted, rows: Rows) -> Fitted:
    """Return a fit by Huber's objective with its held-out errors; any other as it is."""
    if item.fit is None or item.fit.objective is not HUBER_LOG:
        return item
    held_out = {axis: held_out_error(item.law, rows, HUBER_LOG, axis) for axis in HELD_OUT}
    return replace(item, comparison=item.comparison.model_copy(update={"held_out": held_out}))


def _refitted(item: Fitted, rows: Rows, resamples: int) -> Fitted:
    """Return a fit with its refits and the intervals by them."""
    assert item.fit is not None
    law, resampled = item.law, resample_law(item.fit, rows, resamples)
    columns = dict(zip(law.parameters, resampled.natural.T, strict=True))
    floor = law.floor(resampled.natural)
    columns |= {"k": law.exponent(resampled.natural)}
    columns |= {"floor": None if floor is None else np.where(resampled.floorless, 0.0, floor)}
    update = {
        "intervals": {name: percentile_interval(values) for name, values in columns.items() if values is not None},
        "flags": item.comparison.flags + _resampling_flags(resampled),
        "bootstrap": resampled.how,
        "resamples": resamples,
        "refits_at_a_bound": resampled.at_bound,
    }
    return replace(item, comparison=item.comparison.model_copy(update=update), resampled=resampled)


def _resampling_flags(resampled: Resampled) -> tuple[str, ...]:
    if resampled.at_bound <= 0.01:
        return ()
    return (f"{resampled.at_bound:.0%} of the refits end at a bound",)
