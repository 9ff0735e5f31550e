"""Optimal sizes at fixed D (N_opt), and of least compute at fixed loss (iso-loss).

Each gives the exponent of a power law through its optima, with an interval (Hoffmann et al. 2022, approach 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import cells_of, percentile_interval, redrawn_residuals
from amscale.scaling.design import equal_losses, no_exponent, no_minimum
from amscale.scaling.estimate import Estimate, interval_test
from amscale.scaling.isoflop import compute_exponent
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
    if reason := no_minimum(table):
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
