"""Memorisation capacity (Morris et al. 2025, arXiv 2505.24832).

    M(N, D) = D·(h - train loss) / ln 2 bits,    C(N) = max over D of M(N, D)

h is the known entropy of the corpus, nats per token, and D its unique tokens: M is what a model knows of its training
text beyond what the source allows. C ∝ N means that D needs N ∝ D; if D needed N ∝ D², C would grow as √N.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amscale.scaling.estimate import CAPACITY, Estimate
from amscale.scaling.points import Point, PointTable
from amscale.scaling.power_law import fit_loglog

MORRIS = 3.6
"""Bits per parameter that the paper measured, GPT-style models in half precision."""

_BITS = {"id": "capacity_bits_per_parameter", "estimand": "bits per parameter, C/N"}
_SLOPE = {"id": "capacity_slope", "estimand": "slope of ln C on ln N"}


@dataclass(frozen=True)
class Capacity:
    """M in bits over the D of one N, and C = `bits`, None where the greatest M is at an end of the grid."""

    N: float
    total: float
    D: tuple[float, ...]
    memorised: tuple[float, ...]
    bits: float | None
    reason: str = ""


def train_loss(point: Point) -> tuple[float, str] | None:
    """Return the final training loss, nats per token, and its key: without dropout, or of the last batches."""
    if point.result is None:
        return None
    for key in ("train_evaluated", "train_last"):
        value = getattr(point.result.losses, key)
        if value is not None and math.isfinite(value):
            return float(value), key
    return None


def memorised_bits(point: Point) -> float | None:
    """Return M of one run in bits; None where its entropy or its training loss is not known."""
    entropy, loss = point.result.data.entropy_per_token if point.result else None, train_loss(point)
    return None if entropy is None or loss is None else point.D * (entropy - loss[0]) / math.log(2)


def capacities(table: PointTable) -> list[Capacity]:
    """Return C of every N, ascending, from the mean over the seeds of a cell."""
    rows: dict[float, list[tuple[float, float, float]]] = {}
    for (N, D), points in table.cells().items():
        values = [bits for point in points if (bits := memorised_bits(point)) is not None]
        if values:
            total = points[0].result.parameters.total if points[0].result else math.nan
            rows.setdefault(N, []).append((D, float(np.mean(values)), float(total)))
    return [_capacity(N, row) for N, row in rows.items()]


def _capacity(N: float, row: Sequence[tuple[float, float, float]]) -> Capacity:
    D, memorised = tuple(d for d, _, _ in row), tuple(m for _, m, _ in row)
    best = int(np.argmax(memorised))
    reason = ""
    if memorised[best] <= 0:
        reason = "no training loss below the entropy: nothing memorised"
    elif best == len(D) - 1:
        reason = f"memorised bits still rise at the largest D: at least {memorised[best]:.4g}"
    elif best == 0:
        reason = f"memorised bits fall from the smallest D on: at least {memorised[best]:.4g}"
    return Capacity(N, row[0][2], D, memorised, None if reason else memorised[best], reason)


def capacity_estimates(table: PointTable) -> list[Estimate]:
    """Estimate the bits per parameter and the slope of ln C on ln N; empty for a table without results.

    Both have t intervals over the N whose M has its maximum inside the grid of D.
    """
    points = [point for point in table.points if point.result]
    if not points:
        return []
    kinds = {pair[1] for point in points if (pair := train_loss(point)) is not None}
    found = capacities(table)
    inside = [item for item in found if item.bits is not None]
    dropped = tuple(f"N = {item.N:.4g}: {item.reason}" for item in found if item.reason)
    shared: dict[str, Any] = {
        "convention": f"{table.convention}; D unique tokens",
        "objective": "C(N) = max over D of D·(h - train loss)/ln 2",
        "used": len(inside),
        "left_out": table.reasons + dropped,
        "group": CAPACITY,
        "details": {"capacities": found, "train_loss": sorted(kinds)},
        "remarks": _remarks(points, kinds, inside),
    }
    if not found:
        reason = "the entropy of the corpus is not known, or no training loss is"
        return [Estimate(**name, method="t interval over N", reason=reason, **shared) for name in (_BITS, _SLOPE)]
    return [_bits(inside, found, shared), _slope(inside, found, shared)]


def _remarks(points: Sequence[Point], kinds: set[str], inside: Sequence[Capacity]) -> tuple[str, ...]:
    text = {
        "train_evaluated": "train loss over the training set, without dropout",
        "train_last": "train loss of the last batches, with dropout as in training (no evaluation of the training set)",
    }
    remarks = tuple(text[kind] for kind in sorted(kinds))
    epochs = [point.result.data.epochs for point in points if point.result]
    short = sum(number < 20 for number in epochs if number is not None)
    if short:
        remarks += (f"{short} of {len(points)} runs saw their data fewer than 20 times: trained longer, C may rise",)
    totals = [item.bits / item.total for item in inside if item.bits is not None and item.total > 0]
    if totals:
        remarks += (f"{np.exp(np.mean(np.log(totals))):.3g} bits per parameter of all; {MORRIS} in Morris et al. 2025",)
    return remarks


def _bits(inside: Sequence[Capacity], found: Sequence[Capacity], shared: dict[str, Any]) -> Estimate:
    from scipy.special import stdtrit

    method = "geometric mean over N, t interval"
    if not inside:
        reason = f"no N of {len(found)} has its greatest M inside the grid of D"
        return Estimate(**_BITS, method=method, reason=reason, **shared)
    logs = np.log([item.bits / item.N for item in inside])  # type: ignore[operator]
    interval = None
    if len(logs) > 1:
        reach = float(stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / math.sqrt(len(logs)))
        interval = float(np.exp(logs.mean() - reach)), float(np.exp(logs.mean() + reach))
    value = float(np.exp(logs.mean()))
    return Estimate(**_BITS, method=method, value=value, interval=interval, **shared)


def _slope(inside: Sequence[Capacity], found: Sequence[Capacity], shared: dict[str, Any]) -> Estimate:
    method = "least squares in logs, t interval"
    if len(inside) < 3:
        reason = f"C is known for {len(inside)} of {len(found)} N; at least 3 are needed"
        return Estimate(**_SLOPE, method=method, reason=reason, **shared)
    fit = fit_loglog([item.N for item in inside], [item.bits for item in inside])  # type: ignore[misc]
    tests = tuple(
        fit.test(text, value) for text, value in (("C ∝ N (N ∝ D)", 1.0), ("C ∝ √N (what N ∝ D² would need)", 0.5))
    )
    return Estimate(**_SLOPE, method=method, value=fit.slope, interval=fit.interval, tests=tests, **shared)
