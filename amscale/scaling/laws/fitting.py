"""The fit of one law under one objective, and what may be wrong with it."""

import math
from dataclasses import dataclass

import numpy as np

from amscale.scaling.laws.law import Law, Objective, Problem, Rows, minimise
from amscale.scaling.points import Array

_MOST_ROWS = 5_000
"""With more rows, this many drawn at random choose the best starts, which then go on with all rows."""

_FINALISTS = 2


@dataclass(frozen=True)
class LawFit:
    """The fit of a law.

    Attributes:
        parameters: natural parameters by name.
        value: the objective at them.
        condition: condition number of the scaled derivatives.
        share: share of the `starts` that end at the least objective.
        flags: what is wrong with the fit.
        theta: the search's internal parameters (P,).
    """

    law: Law
    objective: Objective
    parameters: dict[str, float]
    value: float
    condition: float
    share: float
    starts: int
    flags: tuple[str, ...]
    theta: Array

    @property
    def natural(self) -> Array:
        """Natural parameters (P,), in the order of the law's `parameters`."""
        return np.array(list(self.parameters.values()))

    @property
    def exponent(self) -> float | None:
        """k of N ∝ D^k; None where the law has none."""
        k = self.law.exponent(self.natural)
        return None if k is None else float(k)

    @property
    def floor(self) -> float | None:
        """Least loss that the law allows, nats per token; None where it has none."""
        E = self.law.floor(self.natural)
        return None if E is None else float(E)

    def predict(self, rows: Rows) -> Array:
        """Return the predicted loss (R,), nats per token."""
        return self.law.loss(self.natural, rows)


def fit_law(law: Law, rows: Rows, objective: Objective) -> LawFit:
    """Fit a law by the least objective over all starts of its search."""
    problem = law.problem(rows)
    if len(rows) <= _MOST_ROWS:
        tried = len(problem.starts)
        theta, ends = _search(problem, objective, rows, problem.starts)
        values = ends
    else:
        some = np.sort(np.random.default_rng(0).choice(len(rows), _MOST_ROWS, replace=False))
        part = rows.take(some)
        begun = law.problem(part)
        tried = len(begun.starts)
        theta, values = _search(begun, objective, part, begun.starts)
        # theta is about the means of the part: a start for the means of all rows, which the search then moves.
        finalists = theta[np.argsort(values)[:_FINALISTS]]
        theta, ends = _search(problem, objective, rows, finalists, 1e-6)
    best = int(np.argmin(ends))
    _, jacobian = problem.predict(theta[best : best + 1])
    scaled = jacobian[0] / np.maximum(np.linalg.norm(jacobian[0], axis=0), 1e-300)
    condition = float(np.linalg.cond(scaled))
    share = float(np.mean(values <= values.min() * (1 + 1e-3) + 1e-15))
    natural = problem.natural(theta[best : best + 1])[0]
    flags = _flags(theta[best], problem, condition, share)
    parameters = dict(zip(law.parameters, map(float, natural), strict=True))
    return LawFit(law, objective, parameters, float(ends[best]), condition, share, tried, flags, theta[best])


def _search(
    problem: Problem, objective: Objective, rows: Rows, starts: Array, tolerance: float = 1e-9
) -> tuple[Array, Array]:
    weights = np.ones(len(rows))
    low, high = problem.low, problem.high
    return minimise(problem.predict, objective, starts, rows.loss, weights, low, high, tolerance=tolerance)


def at_bound(theta: Array, problem: Problem, spared: frozenset[tuple[str, str]] = frozenset()) -> Array:
    """Return whether any parameter of theta (S, P) is at a bound that is not spared, (S,)."""
    counted = [np.array([(name, side) not in spared for name in problem.names]) for side in ("lower", "upper")]
    low, high = theta - problem.low < 1e-6, problem.high - theta < 1e-6
    return np.any((low & counted[0]) | (high & counted[1]), axis=1)


def _flags(theta: Array, problem: Problem, condition: float, share: float) -> tuple[str, ...]:
    flags = []
    for index, name in enumerate(problem.names):
        for bound, side in ((problem.low[index], "lower"), (problem.high[index], "upper")):
            if abs(theta[index] - bound) < 1e-6:
                flags.append(f"{name} at its {side} bound")
    if condition > 1e3:
        flags.append(f"ill-conditioned: condition number {condition:.2g}")
    if share < 0.05:
        flags.append(f"only {share:.0%} of the starts reach the least objective")
    return tuple(flags)


def gaussian_aicc(squares: float, rows: Rows, parameters: int, raw: bool = False) -> float:
    """Return AICc from a sum of squares of ln loss, or of the loss where `raw`; the deviation counts as a parameter."""
    n, p = len(rows), parameters
    jacobian = 0.0 if raw else 2 * float(np.log(rows.loss).sum())
    return n * math.log(2 * math.pi * squares / n) + n + jacobian + 2 * p + 2 * p * (p + 1) / (n - p - 1)
