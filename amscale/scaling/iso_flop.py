"""The size of least loss at a fixed compute budget, N_opt(C), and the power law through it (Hoffmann et al. 2022, 2).

At a fixed budget the loss over ln N is no parabola, and one fitted to a grid whose middle is not the optimum finds a
vertex that leans towards the middle (the published exponents differ by it). Here it is E + A·N^-α + B·N^β with E, A, B
of each budget and the exponents common to all: what Chinchilla's law becomes at a fixed C, but with k left free.
A run whose FLOPs C_i are not quite the budget's C enters with B·(N·C/C_i)^β.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from amscale.scaling.estimate import Estimate, interval_test
from amscale.scaling.points import Array, PointTable
from amscale.scaling.power_law import fit_loglog, hypothesis_name

_WIDTH = 1.25
_LEAST_SIZES = 4


@dataclass(frozen=True)
class Budget:
    """The runs of one budget of C FLOPs: N, loss and FLOPs of each, and their optimum or why there is none.

    `shape` holds E, A, B of E + A·n^-α + B·n^β with n = N over the geometric mean of the sizes.
    """

    C: float
    N: tuple[float, ...]
    loss: tuple[float, ...]
    flops: tuple[float, ...]
    optimum: float | None = None
    shape: tuple[float, ...] = ()
    reason: str = ""

    @property
    def sizes(self) -> int:
        """The number of different N."""
        return len(set(self.N))


def budgets(table: PointTable) -> list[Budget]:
    """Bin points by FLOPs, ascending: the window of a factor 1.25 with the most different sizes, then the next."""
    order = np.argsort(table.flops, kind="stable")
    C, N, loss = table.flops[order], table.N[order], table.loss[order]
    free = np.ones(len(C), dtype=bool)
    found = []
    while free.any():
        index = np.flatnonzero(free)
        ends = np.searchsorted(C[index], C[index] * _WIDTH * (1 + 1e-9), side="right")
        counts = [len(set(N[index[first:end]])) for first, end in enumerate(ends)]
        first = int(np.argmax(counts))
        chosen = index[first : ends[first]]
        free[chosen] = False
        centre = float(np.exp(np.log(C[chosen]).mean()))
        sizes, losses, flops = (tuple(column[chosen].tolist()) for column in (N, loss, C))
        found.append(Budget(centre, sizes, losses, flops))
    return sorted(found, key=lambda budget: budget.C)


def fit_budgets(found: Sequence[Budget]) -> tuple[list[Budget], tuple[float, float] | None]:
    """Return the budgets with their optima, and the common exponents (α, β), None where the runs are too few."""
    usable = [b for b in found if b.sizes >= _LEAST_SIZES]
    free = sum(len(b.N) for b in usable) - 3 * len(usable) - 2
    exponents = _exponents(usable) if usable and free >= 1 else None
    return [_with_optimum(b, exponents) for b in found], exponents


def _columns(budget: Budget, exponents: Sequence[float] | Array) -> Array:
    u = np.log(budget.N) - np.mean(np.log(budget.N))
    excess = np.log(budget.flops) - np.log(budget.C)
    return np.stack([np.ones_like(u), np.exp(-exponents[0] * u), np.exp(exponents[1] * (u - excess))], axis=1)


def _exponents(usable: Sequence[Budget]) -> tuple[float, float]:
    """Fit α and β by least squares, the levels of each budget following linearly (variable projection)."""
    from scipy.optimize import minimize

    def unexplained(logs: Array) -> float:
        total = 0.0
        for budget in usable:
            columns, loss = _columns(budget, np.exp(logs)), np.array(budget.loss)
            total += float(np.sum((loss - columns @ np.linalg.lstsq(columns, loss, rcond=None)[0]) ** 2))
        return total

    grid = np.log(np.geomspace(0.08, 1.3, 7))
    start = min(((a, b) for a in grid for b in grid), key=lambda pair: unexplained(np.array(pair)))
    bounds = [(np.log(0.05), np.log(2.0))] * 2
    end = minimize(unexplained, start, method="Nelder-Mead", bounds=bounds, options={"xatol": 1e-4, "maxfev": 300}).x
    return float(np.exp(end[0])), float(np.exp(end[1]))


def _with_optimum(budget: Budget, exponents: tuple[float, float] | None) -> Budget:
    def without(reason: str) -> Budget:
        return replace(budget, reason=reason)

    if budget.sizes < _LEAST_SIZES:
        return without(f"{budget.sizes} sizes; {_LEAST_SIZES} are needed")
    if exponents is None:
        return without("too few runs at this and the other budgets for a curve")
    best = budget.N[int(np.argmin(budget.loss))]
    if best in (min(budget.N), max(budget.N)):
        return without(f"least loss at the {'smallest' if best == min(budget.N) else 'largest'} N: no interior minimum")
    E, A, B = np.linalg.lstsq(_columns(budget, exponents), np.array(budget.loss), rcond=None)[0]
    alpha, beta = exponents
    if A <= 0 or B <= 0:
        return without("the curve has no minimum")
    logs = np.log(budget.N)
    vertex = float(logs.mean() + np.log(alpha * A / (beta * B)) / (alpha + beta))
    if not logs.min() <= vertex <= logs.max():
        return without("the minimum of the curve is outside its sizes")
    return replace(budget, optimum=float(np.exp(vertex)), shape=(float(E), float(A), float(B)))


def compute_exponent(slope: float) -> float:
    """Return k of N ∝ D^k from a of N ∝ C^a with C ∝ N·D: k = a/(1 - a), infinite from a = 1 on."""
    return slope / (1 - slope) if slope < 1 else np.inf


def exponent_from_budgets(table: PointTable, hypotheses: Sequence[float]) -> Estimate:
    """Estimate k = a/(1 - a) from N_opt ∝ C^a by least squares in logs over budgets with an interior minimum."""
    found, exponents = fit_budgets(budgets(table))
    interior = [item for item in found if item.optimum is not None]
    too_small = sum(item.sizes < _LEAST_SIZES for item in found)
    dropped: tuple[str, ...] = (f"{too_small} budgets with fewer than {_LEAST_SIZES} sizes",) if too_small else ()
    dropped += tuple(f"C = {b.C:.3g}: {b.reason}" for b in found if b.reason and b.sizes >= _LEAST_SIZES)
    shared: dict[str, Any] = {
        "id": "k_isoflop",
        "estimand": "k at N_opt(C), iso-FLOP optimum",
        "convention": f"{table.convention}; C training FLOPs, D = C/(6N)",
        "objective": "least squares of ln N_opt on ln C, k = a/(1 - a)",
        "method": "at each budget E + A·N^-α + B·N^β, α and β common to all budgets; t interval",
        "used": len(interior),
        "left_out": table.reasons + dropped,
    }
    details: dict[str, Any] = {"budgets": found, "curve_exponents": exponents}
    if len(interior) < 3:
        reason = f"an interior minimum in N at {len(interior)} of {len(found)} budgets; at least 3 are needed"
        return Estimate(**shared, reason=reason, details=details)
    fit = fit_loglog([item.C for item in interior], [item.optimum for item in interior])  # type: ignore[misc]
    details |= {"slope_on_C": fit.slope, "slope_interval": fit.interval, "coefficient": float(np.exp(fit.intercept))}
    if fit.slope <= 0:
        return Estimate(**shared, reason="N_opt does not grow with C", details=details)
    interval = max(0.0, compute_exponent(fit.interval[0])), compute_exponent(fit.interval[1])
    remark: tuple[str, ...] = (f"N_opt ∝ C^{fit.slope:.3f} ({fit.interval[0]:.3f} to {fit.interval[1]:.3f})",)
    if dropped:
        remark += (f"{len(found) - len(interior)} of {len(found)} budgets dropped",)
    return Estimate(
        **shared,
        value=compute_exponent(fit.slope),
        interval=interval,
        remarks=remark,
        tests=tuple(interval_test(hypothesis_name(k), k, interval, "t interval") for k in hypotheses),
        details=details,
    )
