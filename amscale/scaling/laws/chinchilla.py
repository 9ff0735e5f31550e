"""Chinchilla's law L = E + A/N^α + B/D^β (Hoffmann et al. 2022, approach 3; Besiroglu et al. 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import inflated_residuals, percentile_interval, row_weights
from amscale.scaling.estimate import Estimate, Hypothesis
from amscale.scaling.floor import references
from amscale.scaling.laws.search import HUBER_LOG, SQUARED, Objective, Predict, minimise
from amscale.scaling.power_law import named
from amscale.scaling.table import Array, Table

PARAMETERS = ("ln A", "α", "ln B", "β", "ln E")
_ROWS_FOR_PAIRS = 50
_CHUNK = 250


@dataclass(frozen=True)
class Chinchilla:
    """A fit: the parameters, the objective there, and what is wrong with it (`flags`)."""

    A: float
    B: float
    E: float
    alpha: float
    beta: float
    value: float
    objective: Objective
    condition: float
    starts_at_optimum: float
    flags: tuple[str, ...]
    theta: Array

    @property
    def exponent(self) -> float:
        """k = β/α of the compute-optimal N ∝ D^k."""
        return self.beta / self.alpha


@dataclass(frozen=True)
class Resampled:
    """Refits: `values` (resamples, 5) of A, B, E, α, β, how they were drawn, and the share that ended at a bound."""

    values: Array
    how: str
    at_bound: float


@dataclass(frozen=True)
class _Problem:
    """The rows, with ln N and ln D about their means so that levels and slopes are told apart."""

    x: Array
    y: Array
    x_mean: float
    y_mean: float
    loss: Array
    low: Array
    high: Array

    def predict(self) -> Predict:
        def function(theta: Array) -> tuple[Array, Array]:
            a, alpha, b, beta, e = (theta[:, i, None] for i in range(5))
            size, data = a - alpha * self.x, b - beta * self.y
            top = np.maximum(np.maximum(size, data), e)
            parts = np.stack([np.exp(size - top), np.exp(data - top), np.exp(e - top)])
            total = parts.sum(0)
            p, q, r = parts / total
            return top + np.log(total), np.stack([p, -self.x * p, q, -self.y * q, r], axis=-1)

        return function

    def natural(self, theta: Array) -> Array:
        """(S, 5) of A, B, E, α, β."""
        a, alpha, b, beta, e = theta.T
        return np.stack(
            [np.exp(a + alpha * self.x_mean), np.exp(b + beta * self.y_mean), np.exp(e), alpha, beta], axis=1
        )


def _problem(N: Array, D: Array, loss: Array) -> _Problem:
    x, y = np.log(N), np.log(D)
    least, most = np.log(loss.min()), np.log(loss.max())
    low = np.array([least - 12, 1e-3, least - 12, 1e-3, least - 7])
    high = np.array([most + 3, 4.0, most + 3, 4.0, most])
    return _Problem(x - x.mean(), y - y.mean(), float(x.mean()), float(y.mean()), loss, low, high)


def _starts(problem: _Problem) -> Array:
    """A grid over (α, β); A, B and E follow by linear least squares and are kept positive."""
    alpha, beta = (grid.ravel() for grid in np.meshgrid(np.geomspace(0.05, 1.6, 7), np.geomspace(0.05, 1.6, 7)))
    columns = np.stack(
        [
            np.exp(-alpha[:, None] * problem.x),
            np.exp(-beta[:, None] * problem.y),
            np.ones((len(alpha), len(problem.x))),
        ],
        axis=-1,
    )
    solution = np.matmul(np.linalg.pinv(columns), problem.loss[:, None])[..., 0]
    levels = np.log(np.maximum(solution, 1e-3 * problem.loss.min()))
    return np.stack([levels[:, 0], alpha, levels[:, 1], beta, levels[:, 2]], axis=1)


def fit_chinchilla(
    N: Array, D: Array, loss: Array, objective: Objective = HUBER_LOG, starts: Array | None = None
) -> Chinchilla:
    """The least objective over all starts; N parameters, D tokens, loss in nats, each of shape (rows,)."""
    problem = _problem(N, D, loss)
    predict = problem.predict()
    begin = _starts(problem) if starts is None else starts
    theta, values = minimise(predict, objective, begin, loss, np.ones(len(loss)), problem.low, problem.high)
    best = int(np.argmin(values))
    A, B, E, alpha, beta = (float(value) for value in problem.natural(theta[best : best + 1])[0])
    _, jacobian = predict(theta[best : best + 1])
    scaled = jacobian[0] / np.maximum(np.linalg.norm(jacobian[0], axis=0), 1e-300)
    condition = float(np.linalg.cond(scaled))
    share = float(np.mean(values <= values[best] * (1 + 1e-3) + 1e-15))
    flags = _flags(theta[best], problem, condition, share)
    return Chinchilla(A, B, E, alpha, beta, float(values[best]), objective, condition, share, flags, theta[best])


def _flags(theta: Array, problem: _Problem, condition: float, share: float) -> tuple[str, ...]:
    flags = []
    for index, name in enumerate(PARAMETERS):
        for bound, side in ((problem.low[index], "lower"), (problem.high[index], "upper")):
            if abs(theta[index] - bound) < 1e-6:
                flags.append(f"{name} at its {side} bound")
    if condition > 1e3:
        flags.append(f"ill-conditioned: condition number {condition:.2g}")
    if share < 0.05:
        flags.append(f"only {share:.0%} of the starts reach the least objective")
    return tuple(flags)


def bootstrap_chinchilla(
    N: Array, D: Array, loss: Array, fit: Chinchilla, resamples: int = 400, seed: int = 0
) -> Resampled:
    """Refits of a fit.

    Rows are drawn where there are many; on a small grid, where a draw may lose a whole size, residuals in ln loss are.
    Every refit starts from the fit and from the same point with a lower and a higher floor, and the best end is kept.
    """
    problem = _problem(N, D, loss)
    random = np.random.default_rng(seed)
    rows = len(loss)
    pairs = rows >= _ROWS_FOR_PAIRS
    weights, target = np.ones((resamples, rows)), np.broadcast_to(loss, (resamples, rows))
    if pairs:
        weights = row_weights(rows, resamples, random)
    else:
        fitted = problem.predict()(fit.theta[None])[0][0]
        noise = inflated_residuals(np.log(loss) - fitted, len(PARAMETERS), resamples, random)
        target = np.exp(fitted + noise)
    shifts = np.array([[0.0] * 5, [0.3, 0.1, 0.3, 0.1, 0.1], [-0.3, -0.1, -0.3, -0.1, -0.3]])
    begin = np.clip(fit.theta + shifts, problem.low, problem.high)
    ends = np.empty((resamples, 5))
    for first in range(0, resamples, _CHUNK):
        chunk = slice(first, min(first + _CHUNK, resamples))
        size = chunk.stop - first
        theta, values = minimise(
            problem.predict(),
            fit.objective,
            np.repeat(begin, size, axis=0),
            np.tile(target[chunk], (3, 1)),
            np.tile(weights[chunk], (3, 1)),
            problem.low,
            problem.high,
            tolerance=1e-6,
        )
        best = np.argmin(values.reshape(3, size), axis=0)
        ends[chunk] = theta.reshape(3, size, 5)[best, np.arange(size)]
    at_bound = np.any(np.isclose(ends, problem.low, atol=1e-6) | np.isclose(ends, problem.high, atol=1e-6), axis=1)
    how = "rows resampled" if pairs else "residuals resampled, t-inflated"
    return Resampled(problem.natural(ends), how, float(at_bound.mean()))


def chinchilla_estimates(table: Table, hypotheses: Sequence[float], resamples: int) -> list[Estimate]:
    """Rows for the exponent β/α and for the floor E under both objectives; refusals where there is no ground."""
    reason = _refusal(table)
    return [row for objective in (HUBER_LOG, SQUARED) for row in _rows(table, objective, hypotheses, resamples, reason)]


def _refusal(table: Table) -> str:
    cells, sizes, amounts = len(table.cells()), len(set(table.N)), len(set(table.D))
    if cells < 8 or len(table.points) < 8:
        return f"{cells} cells for 5 parameters; at least 8 are needed"
    if sizes < 3 or amounts < 3:
        return f"{sizes} N and {amounts} D; an exponent with a floor needs at least 3 of each"
    return ""


def _rows(
    table: Table, objective: Objective, hypotheses: Sequence[float], resamples: int, reason: str
) -> list[Estimate]:
    shared: dict[str, Any] = {
        "convention": f"{table.convention}; D {'unique tokens' if table.points[0].result else 'as given'}",
        "objective": f"{objective.text}, {objective.parametrisation}",
        "used": len(table.points),
        "left_out": table.reasons,
    }
    names = ("k = β/α, parametric optimum of Chinchilla's law", "loss floor E of Chinchilla's law")
    method = "49 starts, Levenberg-Marquardt"
    if reason:
        return [Estimate(estimand=name, method=method, refusal=reason, **shared) for name in names]
    fit = fit_chinchilla(table.N, table.D, table.loss, objective)
    resampled = bootstrap_chinchilla(table.N, table.D, table.loss, fit, resamples)
    samples, how = resampled.values, resampled.how
    intervals = {
        name: percentile_interval(samples[:, index]) for index, name in enumerate(("A", "B", "E", "alpha", "beta"))
    }
    shared["details"] = {
        "fit": fit,
        "intervals": intervals,
        "bootstrap": how,
        "resamples": resamples,
        "refits_at_a_bound": resampled.at_bound,
    }
    shared["remarks"] = (
        f"A {fit.A:.5g}, B {fit.B:.5g}, E {fit.E:.5g}, α {fit.alpha:.4f}, β {fit.beta:.4f}, objective {fit.value:.6g}",
        *fit.flags,
        *((f"{resampled.at_bound:.0%} of the refits end at a bound",) if resampled.at_bound > 0.01 else ()),
        *_influence(table, fit, intervals),
    )
    method += f"; percentile interval, {how}, {resamples} refits"
    ratio = percentile_interval(samples[:, 4] / samples[:, 3])
    tests = tuple(_outside(named(k), k, ratio) for k in hypotheses)
    figures = {name: value for name, value in references(table).items() if name in {"1", "entropy"}}
    floor_tests = tuple(_outside(f"floor = {name}", value, intervals["E"]) for name, value in figures.items())
    shared["method"] = method
    return [
        Estimate(estimand=names[0], value=fit.exponent, interval=ratio, hypotheses=tests, **shared),
        Estimate(estimand=names[1], value=fit.E, interval=intervals["E"], hypotheses=floor_tests, **shared),
    ]


def _outside(name: str, value: float, interval: tuple[float, float]) -> Hypothesis:
    inside = interval[0] <= value <= interval[1]
    return Hypothesis(name, float(value), not inside, f"{'inside' if inside else 'outside'} the bootstrap interval")


def _influence(table: Table, fit: Chinchilla, intervals: dict[str, tuple[float, float]]) -> tuple[str, ...]:
    """Parameters that leave their own interval when the highest 2 % of the losses are left out."""
    rows = len(table.points)
    if rows < _ROWS_FOR_PAIRS:
        return ()
    number = max(1, round(0.02 * rows))
    kept = np.argsort(table.loss, kind="stable")[: rows - number]
    other = fit_chinchilla(table.N[kept], table.D[kept], table.loss[kept], fit.objective)
    moved = [
        f"{name} {getattr(fit, name):.4g} to {getattr(other, name):.4g}"
        for name, (low, high) in intervals.items()
        if not low <= getattr(other, name) <= high or not 0.5 < getattr(other, name) / getattr(fit, name) < 2
    ]
    return (f"without the {number} highest losses: " + ", ".join(moved),) if moved else ()
