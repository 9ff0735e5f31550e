"""Levenberg-Marquardt over a batch of starts and resamples, with analytic derivatives.

A robust loss is minimised by reweighting: its quadratic majoriser at the present residuals is a weighted sum of
squares.

The interface of a law of the loss, and the rows that it is fitted to.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from amscale.scaling.bootstrap import cells_of
from amscale.scaling.points import Array, PointTable
from amscale.settings import counted

Predict = Callable[[Array], tuple[Array, Array]]
"""theta (S, P) -> ln loss (S, R) and its derivatives (S, R, P)."""

DELTA = 1e-3

_PATIENCE = 5
"""Steps in a row without a gain after which a search ends."""

_COMPACT = 0.8
"""Searches that have ended are set aside when at most this share of those carried is still going."""


@dataclass(frozen=True)
class Objective:
    """What is minimised: a sum over rows of Huber(DELTA) or of squares, on ln loss or on the loss itself (`raw`)."""

    name: str
    text: str
    robust: bool
    raw: bool

    def residuals(self, log_loss: Array, target: Array) -> Array:
        """Return residuals (S, R) for `log_loss` (S, R) and observed losses `target`, which broadcasts."""
        return self.beyond(log_loss, self.observed(target))

    def observed(self, target: Array) -> Array:
        """Return observed losses as the residuals are taken from them."""
        return target if self.raw else np.log(target)

    def beyond(self, log_loss: Array, observed: Array) -> Array:
        """Return residuals (S, R) for `log_loss` (S, R) and what `observed` returned."""
        return np.exp(log_loss) - observed if self.raw else log_loss - observed

    def value(self, residuals: Array) -> Array:
        """Return the contribution of each row."""
        if not self.robust:
            return residuals**2
        size = np.abs(residuals)
        inner = np.minimum(size, DELTA)
        return inner * (size - 0.5 * inner)

    def weight(self, residuals: Array) -> Array:
        """Return the weights of the quadratic majoriser: value'(r) / r, up to a constant factor."""
        if not self.robust:
            return np.ones_like(residuals)
        return DELTA / np.maximum(np.abs(residuals), DELTA)


HUBER_LOG = Objective("huber_log", f"sum of Huber(δ={DELTA:g}) on ln loss", robust=True, raw=False)
SQUARED_LOG = Objective("squared_log", "sum of squares on ln loss", robust=False, raw=False)
SQUARED = Objective("squared", "sum of squares on loss", robust=False, raw=True)
OBJECTIVES = (HUBER_LOG, SQUARED_LOG, SQUARED)


def minimise(
    predict: Predict,
    objective: Objective,
    starts: Array,
    target: Array,
    weights: Array,
    low: Array,
    high: Array,
    iterations: int = 400,
    tolerance: float = 1e-9,
) -> tuple[Array, Array]:
    """Search from every start; return the ends, theta (S, P), and the objective there, (S,).

    Args:
        starts: (S, P). target: (R,) or (S, R), observed losses. weights: (R,) or (S, R), how often each row counts.
        low, high: (P,), bounds that every step is clipped to.
    """
    theta = np.clip(starts, low, high)
    rows = len(theta), np.shape(target)[-1]
    values = np.empty(len(theta))
    active = np.arange(len(theta))
    # What belongs to the active searches, kept together until many of them have ended: a copy costs as much as a step.
    now, weights = theta.copy(), np.broadcast_to(weights, rows)
    observed = np.broadcast_to(objective.observed(target), rows)
    damping, stalled = np.full(len(theta), 1e-2), np.zeros(len(theta), dtype=int)
    log_loss, jacobian = predict(now)
    residuals = objective.beyond(log_loss, observed)
    value = _weighted_sum(weights, objective.value(residuals))
    for _ in range(iterations):
        trial = np.clip(now + _step(objective, log_loss, residuals, jacobian, weights, damping), low, high)
        new_log_loss, new_jacobian = predict(trial)
        new_residuals = objective.beyond(new_log_loss, observed)
        new = _weighted_sum(weights, objective.value(new_residuals))
        better = new < value
        gain = np.where(better, value - new, 0.0)
        stalled = np.where(gain <= tolerance * value, stalled + 1, 0)
        damping = np.clip(damping * np.where(better, 0.2, 8.0), 1e-12, 1e12)
        if better.all():
            now, value, log_loss, residuals, jacobian = trial, new, new_log_loss, new_residuals, new_jacobian
        else:
            for kept, found in ((now, trial), (value, new), (log_loss, new_log_loss), (residuals, new_residuals)):
                kept[better] = found[better]
            jacobian[better] = new_jacobian[better]
        going = stalled < _PATIENCE
        if going.sum() <= _COMPACT * len(going):
            theta[active], values[active] = now, value
            active, stalled = active[going], stalled[going]
            now, value, damping, jacobian = (x[going] for x in (now, value, damping, jacobian))
            observed, weights, log_loss, residuals = (x[going] for x in (observed, weights, log_loss, residuals))
        if not active.size:
            break
    theta[active], values[active] = now, value
    return theta, values


def _weighted_sum(weights: Array, values: Array) -> Array:
    """Return the sum over rows (S,) of values (S, R) times weights (S, R)."""
    return np.einsum("sr,sr->s", weights, values)


def _step(
    objective: Objective, log_loss: Array, residuals: Array, jacobian: Array, weights: Array, damping: Array
) -> Array:
    """Return the damped Gauss-Newton step (S, P) of the quadratic majoriser at the present residuals.

    A search that began where the loss is beyond every number gets none, NaN, and stays there.
    """
    with np.errstate(invalid="ignore"):  # such a residual times the weight 0
        return _damped_step(objective, log_loss, residuals, jacobian, weights, damping)


def _damped_step(
    objective: Objective, log_loss: Array, residuals: Array, jacobian: Array, weights: Array, damping: Array
) -> Array:
    share = weights * objective.weight(residuals) if objective.robust else weights
    if objective.raw:
        slope = np.exp(log_loss)
        gradient = np.matmul(jacobian.transpose(0, 2, 1), (share * slope * residuals)[..., None])
        share = share * slope**2
    else:
        gradient = np.matmul(jacobian.transpose(0, 2, 1), (share * residuals)[..., None])
    normal = np.matmul((share[..., None] * jacobian).transpose(0, 2, 1), jacobian)
    scale = np.einsum("spp->sp", normal)
    scale = np.maximum(scale, 1e-12 * scale.max(axis=1, keepdims=True) + 1e-300)
    normal = normal + (damping[:, None] * scale)[..., None] * np.eye(normal.shape[-1])
    return -np.linalg.solve(normal, gradient)[..., 0]


def derivatives(columns: list[Array]) -> Array:
    """Return the derivatives (S, R, P) from (S, R) for each parameter, in the layout that is read fastest."""
    searches, rows = np.broadcast_shapes(*(column.shape for column in columns))
    found = np.empty((searches, len(columns), rows))
    for index, column in enumerate(columns):
        found[:, index] = column
    return found.transpose(0, 2, 1)


@dataclass(frozen=True)
class Rows:
    """Columns of equal length: N parameters, D unique tokens, loss in nats per token, and what else is known.

    `tokens` counts the tokens seen until the loss was measured, None where unknown; `flops` is the training compute C.
    `deviations` are those of `PointTable`: what the interpolation of tuned cells leaves open (resamples, rows).
    `even_guess` is the loss of an even choice among all tokens, ln of the vocabulary; None where that is not known.
    """

    N: Array
    D: Array
    loss: Array
    tokens: Array | None
    flops: Array
    deviations: Array | None = None
    even_guess: float | None = None

    def __len__(self) -> int:
        return len(self.loss)

    def take(self, chosen: NDArray[Any]) -> "Rows":
        """Return the chosen rows, by index or mask."""
        tokens = None if self.tokens is None else self.tokens[chosen]
        deviations = None if self.deviations is None else self.deviations[:, chosen]
        return Rows(
            self.N[chosen], self.D[chosen], self.loss[chosen], tokens, self.flops[chosen], deviations, self.even_guess
        )


def rows_of(table: PointTable) -> Rows:
    """Return the points of a table as columns; C is 6 N times the tokens seen (or D) where the table has none."""
    sizes = {point.result.shape.vocabulary if point.result else None for point in table.points}
    vocabulary = sizes.pop() if len(sizes) == 1 else None
    even_guess = math.log(vocabulary) if vocabulary and vocabulary > 1 else None
    return Rows(table.N, table.D, table.loss, table.tokens, table.flops, table.deviations, even_guess)


@dataclass(frozen=True)
class Problem:
    """One law on one set of rows, in the internal parameters theta that the search moves.

    Attributes:
        predict: theta (S, P) to ln loss (S, R) and its derivatives (S, R, P).
        begin: makes the starts (S, P); called late, since on many rows they take the most memory.
        low, high: bounds of theta (P,).
        names: names of theta.
        natural: theta (S, P) to the law's parameters (S, P).
    """

    predict: Predict
    begin: Callable[[], Array]
    low: Array
    high: Array
    names: tuple[str, ...]
    natural: Callable[[Array], Array]

    @cached_property
    def starts(self) -> Array:
        """Starts of the search (S, P)."""
        return self.begin()


class Law(ABC):
    """A law of the loss in N and D: a class without arguments, one in a file, registered by a name that is its id.

    The id appears in those of its estimates, `k_<id>` and `floor_<id>`. Natural parameters are arrays (..., P) whose
    last axis is in the order of `parameters`.

    Attributes:
        name: name in tables.
        formula: the law as text.
        parameters: names of the natural parameters.
        optimum: what the exponent means under this law, such as "k = β/α, parametric optimum"; empty where the law has
            no exponent, and it then has no row for k.
        exponents: the names, among the search's parameters, of the two exponents whose ratio is k: the first over the
            second. With them the profile likelihood tells whether the rows determine k; None where k is something else.
        tested: parameters that have a hypothesis and a row for it: its name in words, and its value.
        floor_parameter: name of the floor among the search's parameters (`Problem.names`): a fit that ends at its lower
            bound does not determine the floor.
        limits: bounds of the search at which the law is a simpler one, such as ("ln R_N*", "upper"): they are no fault
            of a fit, and leave its exponent and its floor as they are.
        reported_unfitted: whether its exponent and floor have rows, with the reason, where the law cannot be fitted.
        checks_outliers: whether to refit without the highest 2 % of the losses and remark on what changes.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]
    optimum: ClassVar[str] = ""
    exponents: ClassVar[tuple[str, str] | None] = None
    floor_parameter: ClassVar[str] = "ln E"
    limits: ClassVar[tuple[tuple[str, str], ...]] = ()
    tested: ClassVar[Mapping[str, tuple[str, float]]] = {}
    reported_unfitted: ClassVar[bool] = False
    checks_outliers: ClassVar[bool] = False

    @property
    def spared(self) -> frozenset[tuple[str, str]]:
        """The bounds, by parameter and side, at which a fit still determines the exponent."""
        return frozenset((*self.limits, (self.floor_parameter, "lower")))

    @abstractmethod
    def unsupported(self, rows: Rows) -> str:
        """Return why these rows cannot determine the law, or an empty text; see `too_few`."""

    @abstractmethod
    def problem(self, rows: Rows) -> Problem:
        """Return the search for the parameters: predictions with derivatives, starts and bounds."""

    @abstractmethod
    def loss(self, natural: Array, rows: Rows) -> Array:
        """Return the predicted loss (R,), nats per token, for parameters (P,); `rows.loss` is not read."""

    def exponent(self, natural: Array) -> Array | None:
        """Return k of N ∝ D^k, shape (...), or None where the law has no exponent."""
        return None

    def floor(self, natural: Array) -> Array | None:
        """Return the least loss that the law allows, shape (...), or None where it has no floor."""
        return None

    def compute_optimum(self, natural: Array, flops: float | Array) -> Array | None:
        """Return the N of least loss at C = 6ND FLOPs, shape (...), or None where the law has no such formula."""
        return None


def too_few(rows: Rows, parameters: int, sizes: int = 0, amounts: int = 0) -> str:
    """Return why rows are too few for a law: cells fewer than parameters + 3, or different N or D fewer than needed."""
    cells = int(cells_of(rows.N, rows.D, rows.flops).max(initial=-1)) + 1
    if cells < parameters + 3:
        return f"{counted(cells, 'cell')} for {parameters} parameters; at least {parameters + 3} are needed"
    N, D = len(np.unique(rows.N)), len(np.unique(rows.D))
    if sizes and sizes > N:
        return f"{N} different N; an exponent in N with a floor needs at least {sizes}"
    if amounts and amounts > D:
        return f"{D} different D; an exponent in D with a floor needs at least {amounts}"
    return ""


def too_few_repeats(rows: Rows, needed: int) -> str:
    """Return why rows cannot determine what repeating data does: the tokens seen are not known, or too few repeat."""
    if rows.tokens is None:
        return "the tokens seen are not known; a table needs a column for them (--tokens_column)"
    repeated = int(np.sum(rows.tokens > 1.5 * rows.D))
    return f"{repeated} rows repeat their data; at least {needed} are needed" if repeated < needed else ""


def log_sum(terms: list[Array]) -> tuple[Array, list[Array]]:
    """Return ln of the sum of the exponentials of `terms`, and the share of each term, all (S, R)."""
    top = terms[0]
    for term in terms[1:]:
        top = np.maximum(top, term)
    parts = [np.exp(term - top) for term in terms]
    total = sum(parts[1:], parts[0])
    return top + np.log(total), [part / total for part in parts]


def levels(columns: Array, target: Array, least: float) -> Array:
    """Return ln of the coefficients (S, K) of `columns` (S, R, K) that fit `target`, (R,) or (S, R), by least squares.

    Coefficients below `least` are raised to it.
    """
    wanted = np.broadcast_to(target, columns.shape[:2])[..., None]
    solution = np.matmul(np.linalg.pinv(columns), wanted)[..., 0]
    return np.log(np.maximum(solution, least))
