"""N_opt(D): the size of least validation loss at a fixed number of unique tokens, and the power law through it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amscale.scaling.estimate import Estimate
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
    if len(interior) < 3:
        reason = f"an interior minimum in N at {len(interior)} of {len(found)} D; at least 3 are needed"
        return Estimate(**shared, reason=reason, details=details)
    fit = fit_loglog([item.D for item in interior], [item.N for item in interior])  # type: ignore[misc]
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
