"""Levenberg-Marquardt over a batch of starts and resamples, with analytic derivatives.

A robust loss is minimised by reweighting: its quadratic majoriser at the present residuals is a weighted sum of
squares.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from amscale.scaling.points import Array

Predict = Callable[[Array], tuple[Array, Array]]
"""theta (S, P) -> ln loss (S, R) and its derivatives (S, R, P)."""

DELTA = 1e-3


@dataclass(frozen=True)
class Objective:
    """What is minimised: a sum over rows of Huber(DELTA) or of squares, on ln loss or on the loss itself (`raw`)."""

    name: str
    text: str
    robust: bool
    raw: bool

    def residuals(self, log_loss: Array, target: Array) -> Array:
        """Return residuals (S, R) for `log_loss` (S, R) and observed losses `target`, which broadcasts."""
        return np.exp(log_loss) - target if self.raw else log_loss - np.log(target)

    def value(self, residuals: Array) -> Array:
        """Return the contribution of each row."""
        if not self.robust:
            return residuals**2
        size = np.abs(residuals)
        return np.where(size <= DELTA, 0.5 * size**2, DELTA * (size - 0.5 * DELTA))

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
    target, weights = np.broadcast_to(target, rows), np.broadcast_to(weights, rows)
    values = np.full(len(theta), np.inf)
    active = np.arange(len(theta))
    damping = np.full(len(theta), 1e-2)
    stalled = np.zeros(len(theta), dtype=int)
    log_loss, jacobian = predict(theta)
    values = (weights * objective.value(objective.residuals(log_loss, target))).sum(1)
    for _ in range(iterations):
        step = _step(objective, log_loss, jacobian, target[active], weights[active], damping[active])
        trial = np.clip(theta[active] + step, low, high)
        new_log_loss, new_jacobian = predict(trial)
        new = (weights[active] * objective.value(objective.residuals(new_log_loss, target[active]))).sum(1)
        better = new < values[active]
        gain = np.where(better, values[active] - new, 0.0)
        small = gain <= tolerance * values[active]
        stalled[active] = np.where(small, stalled[active] + 1, 0)
        damping[active] = np.clip(damping[active] * np.where(better, 0.2, 8.0), 1e-12, 1e12)
        moved = active[better]
        theta[moved], values[moved] = trial[better], new[better]
        log_loss = np.where(better[:, None], new_log_loss, log_loss)
        jacobian = np.where(better[:, None, None], new_jacobian, jacobian)
        going = stalled[active] < 5
        if not going.all():
            active, log_loss, jacobian = active[going], log_loss[going], jacobian[going]
        if not active.size:
            break
    return theta, values


def _step(
    objective: Objective, log_loss: Array, jacobian: Array, target: Array, weights: Array, damping: Array
) -> Array:
    residuals = objective.residuals(log_loss, target)
    if objective.raw:
        jacobian = jacobian * np.exp(log_loss)[..., None]
    weighted = (weights * objective.weight(residuals))[..., None] * jacobian
    normal = np.matmul(weighted.transpose(0, 2, 1), jacobian)
    gradient = np.matmul(weighted.transpose(0, 2, 1), residuals[..., None])
    scale = np.einsum("spp->sp", normal)
    scale = np.maximum(scale, 1e-12 * scale.max(axis=1, keepdims=True) + 1e-300)
    normal = normal + (damping[:, None] * scale)[..., None] * np.eye(normal.shape[-1])
    return -np.linalg.solve(normal, gradient)[..., 0]
