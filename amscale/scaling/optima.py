"""Optimal sizes: at fixed D (N_opt), at fixed compute (iso-FLOP), and of least compute at fixed loss (iso-loss).

Each gives the exponent of a power law through its optima, with an interval (Hoffmann et al. 2022, approaches 1 and 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import cells_of, percentile_interval, redrawn_residuals
from amscale.scaling.design import equal_losses, no_exponent, no_variation, not_told_apart
from amscale.scaling.estimate import Estimate, interval_test
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.fitting import fit_law
from amscale.scaling.laws.law import SQUARED_LOG, Rows
from amscale.scaling.points import Array, PointTable
from amscale.scaling.power_law import fit_loglog, hypothesis_name

_NEIGHBOURS = 2
"""Sizes on either side of the least loss that enter the parabola: over decades of N the loss is not parabolic."""


@dataclass(frozen=True)
class Optimum:
    """N of least loss at one D; None where there is no interior minimum, with the `reason`."""

    D: float
    N: float | None
    loss: float | None
    sizes: int
    least_observed: float
    reason: str = ""


def optimum(D: float, N: Sequence[float] | Array, loss: Sequence[float] | Array) -> Optimum:
    """Return the vertex of a parabola in ln N through the size of least loss and up to two sizes on either side.

    Only an interior minimum counts: beyond an edge of the grid the optimum may be anywhere.
    """
    order = np.argsort(N)
    sizes, losses = np.asarray(N, dtype=float)[order], np.asarray(loss, dtype=float)[order]
    best = int(np.argmin(losses))
    least = float(sizes[best])
    if len(sizes) < 3:
        return Optimum(D, None, None, len(sizes), least, f"{len(sizes)} sizes; a minimum needs 3")
    if equal_losses(losses):
        return Optimum(D, None, None, len(sizes), least, "the same loss at every N: no minimum")
    if best in (0, len(sizes) - 1):
        edge = "smallest" if best == 0 else "largest"
        return Optimum(D, None, None, len(sizes), least, f"least loss at the {edge} N: no interior minimum")
    near = slice(max(0, best - _NEIGHBOURS), best + _NEIGHBOURS + 1)
    centre = np.log(sizes[best])
    u = np.log(sizes[near]) - centre
    curvature, slope, level = np.polyfit(u, losses[near], 2)
    vertex = -slope / (2 * curvature) if curvature > 0 else np.nan
    if not (curvature > 0 and u[0] <= vertex <= u[-1]):
        return Optimum(D, None, None, len(sizes), least, "the parabola has no minimum inside its sizes")
    return Optimum(D, float(np.exp(centre + vertex)), float(level - slope**2 / (4 * curvature)), len(sizes), least)


def optima(table: PointTable) -> list[Optimum]:
    """Return the optimum at every D, ascending, from the mean loss over seeds at the best length of training."""
    rows: dict[float, list[tuple[float, float]]] = {}
    for (N, D), loss in table.losses().items():
        rows.setdefault(D, []).append((N, loss))
    return [optimum(D, [N for N, _ in row], [loss for _, loss in row]) for D, row in sorted(rows.items())]


def exponent_from_optima(table: PointTable, hypotheses: Sequence[float]) -> Estimate:
    """Estimate k of N_opt = C·D^k by least squares in logs over the D with an interior minimum; t interval."""
    found = optima(table)
    interior = [item for item in found if item.N is not None]
    too_few = sum(item.sizes < 3 for item in found)
    dropped: tuple[str, ...] = (f"{too_few} D with fewer than 3 sizes",) if too_few else ()
    dropped += tuple(f"D = {item.D:.4g}: {item.reason}" for item in found if item.N is None and item.sizes >= 3)
    shared: dict[str, Any] = {
        "id": "k_nopt",
        "estimand": "k at N_opt(D), least loss at fixed D",
        "convention": table.convention,
        "objective": "least squares of ln N_opt on ln D",
        "method": "N_opt: parabola of validation loss in ln N, up to 5 sizes",
        "used": len(interior),
        "left_out": table.reasons + dropped,
    }
    details = {"optima": found}
    if reason := no_exponent(table):
        return Estimate(**shared, reason=reason, details=details)
    if len(interior) < 3:
        reason = f"an interior minimum in N at {len(interior)} of {len(found)} D; at least 3 are needed"
        return Estimate(**shared, reason=reason, details=details)
    fit = fit_loglog([item.D for item in interior], [item.N for item in interior])  # type: ignore[misc]
    if fit.slope <= 0:
        return Estimate(**shared, reason="N_opt does not grow with D", details=details)
    tests = tuple(fit.test(hypothesis_name(k), k) for k in hypotheses)
    remark = (f"{len(found) - len(interior)} of {len(found)} D dropped",) if dropped else ()
    return Estimate(
        **shared,
        value=fit.slope,
        interval=fit.interval,
        remarks=remark,
        tests=tests,
        details={**details, "coefficient": float(np.exp(fit.intercept)), "residual_deviation": fit.residual_deviation},
    )


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
    if equal_losses(np.array(budget.loss)):
        return without("the same loss at every N: no minimum")
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
    if reason := no_variation(table.loss) or not_told_apart(table.N, table.flops / (6 * table.N)):
        return Estimate(**shared, reason=reason, details=details)
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


_LEVELS = 7
_RESAMPLES = 200


@dataclass(frozen=True)
class Contour:
    """N and D of one loss (sizes,), N ascending; N and C = 6·N·D at its least compute, or why there is none."""

    loss: float
    N: tuple[float, ...]
    D: tuple[float, ...]
    optimum: float | None
    C: float | None
    reason: str = ""


def contours(N: Array, D: Array, loss: Array) -> list[Contour]:
    """Return contours at 7 losses between the least and the greatest of cells (cells,), by interpolation in ln D.

    Along D the loss enters by its running minimum, so that noise cannot make a contour double.
    """
    sizes = np.unique(N)
    lines = []
    for size in sizes:
        inside = size == N
        order = np.argsort(D[inside])
        lines.append((np.log(D[inside][order]), np.minimum.accumulate(loss[inside][order])))
    ends = np.quantile(loss, [0.05, 0.9])
    found = []
    for level in np.geomspace(ends[0], ends[1], _LEVELS):
        reached = [
            (float(size), float(np.exp(np.interp(-level, -losses, logs))))
            for size, (logs, losses) in zip(sizes, lines, strict=True)
            if losses[-1] <= level <= losses[0] and len(losses) > 1
        ]
        found.append(_contour(float(level), reached))
    return found


def _contour(level: float, reached: list[tuple[float, float]]) -> Contour:
    N, D = tuple(n for n, _ in reached), tuple(d for _, d in reached)
    if len(N) < 3:
        return Contour(level, N, D, None, None, f"{len(N)} sizes reach it; a minimum needs 3")
    compute = np.log(6 * np.array(N) * np.array(D))
    least = optimum(level, N, compute)
    if least.N is None or least.loss is None:
        return Contour(level, N, D, None, None, least.reason.replace("loss", "compute"))
    if least.loss < compute.min() - 1:
        return Contour(level, N, D, None, None, "no parabola describes it")
    return Contour(level, N, D, least.N, float(np.exp(least.loss)))


def _slope(found: Sequence[Contour]) -> float | None:
    """Return a of N ∝ C^a over contours with an interior minimum; None for fewer than 3, or within a doubling of C."""
    interior = [(item.C, item.optimum) for item in found if item.optimum is not None]
    if len(interior) < 3:
        return None
    C, N = np.log(np.array(interior, dtype=float)).T
    return float(np.polyfit(C, N, 1)[0]) if np.ptp(C) > np.log(2) else None


def exponent_from_contours(table: PointTable, hypotheses: Sequence[float], seed: int = 0) -> Estimate:
    """Estimate k = a/(1 - a) from the sizes of least compute, N ∝ C^a, corrected for bias by parametric bootstrap.

    Neighbouring contours share runs, and a parabola leans: a t interval would be too narrow and the slope biased.
    200 surfaces of Chinchilla's law with noise, whose a is known, go through the same steps on the same grid; their
    mean error is subtracted, and the interval is a basic bootstrap interval.
    """
    cells = table.losses()
    N, D = np.array(list(cells), dtype=float).reshape(-1, 2).T
    loss = np.array(list(cells.values()))
    found = contours(N, D, loss)
    interior = [item for item in found if item.optimum is not None]
    dropped = tuple(f"loss {item.loss:.4g}: {item.reason}" for item in found if item.reason)
    shared: dict[str, Any] = {
        "id": "k_isoloss",
        "estimand": "k at least C on iso-loss contours",
        "convention": f"{table.convention}; C = 6ND",
        "objective": "least squares of ln N on ln C, k = a/(1 - a)",
        "method": f"{_LEVELS} contours, parabola of ln C in ln N; basic bootstrap, {_RESAMPLES} surfaces, "
        "bias-corrected",
        "used": len(interior),
        "left_out": table.reasons + dropped,
        "details": {"contours": found},
    }
    if reason := no_exponent(table):
        return Estimate(**shared, reason=reason)
    slope = _slope(found)
    if slope is None:
        reason = f"an interior minimum of compute on {len(interior)} of {len(found)} contours; "
        return Estimate(**shared, reason=reason + "at least 3 over a doubling of C are needed")
    law, rows = Chinchilla(), Rows(N, D, loss, None, 6 * N * D)
    reason = law.unsupported(rows)
    if reason:
        return Estimate(**shared, reason=f"no interval: {reason}")
    fit = fit_law(law, rows, SQUARED_LOG)
    fitted = np.log(fit.predict(rows))
    random = np.random.default_rng(seed)
    noise = redrawn_residuals(np.log(loss) - fitted, cells_of(N, D), 5, _RESAMPLES, random)
    slopes = [_slope(contours(N, D, row)) for row in np.exp(fitted + noise)]
    kept = np.array([value for value in slopes if value is not None])
    if len(kept) < 0.8 * _RESAMPLES:
        return Estimate(**shared, reason=f"the contours have optima in only {len(kept)} of {_RESAMPLES} resamples")
    exponent = fit.exponent or 0.0
    errors = kept - exponent / (1 + exponent)
    least, most = percentile_interval(errors)
    low, middle, high = slope - most, slope - float(errors.mean()), slope - least
    if middle <= 0:
        return Estimate(**shared, reason="N does not grow with C along the optima")
    interval = max(0.0, compute_exponent(low)), compute_exponent(high)
    shared["details"] |= {"slope_on_C": slope, "mean_error": float(errors.mean())}
    return Estimate(
        **shared,
        value=compute_exponent(middle),
        interval=interval,
        remarks=(f"N ∝ C^{middle:.3f} ({low:.3f} to {high:.3f})",),
        tests=tuple(interval_test(hypothesis_name(k), k, interval, "bootstrap interval") for k in hypotheses),
    )
