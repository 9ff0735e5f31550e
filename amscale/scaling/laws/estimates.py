"""The exponent and the floor of each law, with intervals and tests, or why they are not determined."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import percentile_interval
from amscale.scaling.design import above_the_losses, no_curvature, no_variation, not_told_apart, one_value
from amscale.scaling.estimate import EXPONENT, FLOOR, Estimate, HypothesisTest, interval_test, outside
from amscale.scaling.floor import references
from amscale.scaling.laws.compare import Comparison, Fitted, Resampled
from amscale.scaling.laws.fitting import LawFit, fit_law
from amscale.scaling.laws.law import HUBER_LOG, OBJECTIVES, SQUARED, rows_of
from amscale.scaling.points import Array, PointTable
from amscale.scaling.power_law import hypothesis_name

_LEAST_R_SQUARED = 0.5
_MOST_AT_BOUND = 0.5
_ROWS_FOR_OUTLIERS = 50
_TEXT = {objective.name: objective.text for objective in OBJECTIVES}


def law_estimates(table: PointTable, fitted: Sequence[Fitted], hypotheses: Sequence[float]) -> list[Estimate]:
    """Return k and the floor of every law that could be fitted, and of those laws that say why they could not.

    They are by Huber's objective. Those by squares on loss, whose ids end in `_squared`, follow where the two
    objectives disagree: where the value of one is outside the interval of the other.
    """
    estimates = []
    by_law: dict[str, dict[str, Fitted]] = {}
    for item in fitted:
        by_law.setdefault(item.comparison.id, {})[item.comparison.objective] = item
    for items in by_law.values():
        first, squared = items[HUBER_LOG.name], items[SQUARED.name]
        if first.comparison.reason is not None:
            reported = first.law.reported_unfitted or no_variation(table.loss)
            estimates += _estimates(table, first, hypotheses) if reported else []
            continue
        estimates += _estimates(table, first, hypotheses)
        described = _poor_fit(first.comparison) is None or _poor_fit(squared.comparison) is None
        if described and disagree(first.comparison, squared.comparison):
            estimates += _estimates(table, squared, hypotheses)
    return estimates


def disagree(one: Comparison, other: Comparison) -> bool:
    """Return whether k or the floor of one fit is outside the interval of the other."""
    for a, b in ((one, other), (other, one)):
        for name, value in (("k", a.k), ("floor", a.floor)):
            if value is not None and name in b.intervals and outside(value, b.intervals[name]):
                return True
    return False


def _estimates(table: PointTable, item: Fitted, hypotheses: Sequence[float]) -> list[Estimate]:
    found, law = item.comparison, item.law
    suffix = found.id if found.objective == HUBER_LOG.name else f"{found.id}_{found.objective}"
    shared: dict[str, Any] = {
        "convention": f"{table.convention}; D {'unique tokens' if table.points[0].result else 'as given'}",
        "objective": _TEXT[found.objective],
        "used": found.used,
        "left_out": table.reasons,
    }
    exponent = {"id": f"k_{suffix}", "estimand": f"{law.optimum} ({law.name})", "group": EXPONENT}
    floor = {"id": f"floor_{suffix}", "estimand": f"loss floor ({law.name})", "group": FLOOR}
    if item.fit is None:
        shared |= {"method": "no fit", "reason": found.reason, "remarks": (law.formula,)}
        has_floor = law.floor(np.ones(len(law.parameters))) is not None
        both = ((exponent, law.optimum), (floor, has_floor))
        return [Estimate(**names, **shared) for names, wanted in both if wanted]
    shared["method"] = "no interval"
    if found.intervals:
        shared["method"] = f"percentile interval, {found.bootstrap}, {found.resamples} refits"
    parameters = ", ".join(f"{key} {value:.4g}" for key, value in found.parameters.items())
    text = f"{law.formula}: {parameters}; objective {found.value:.6g}"
    shared["remarks"] = (text, *found.flags, *_outliers(table, found, item.fit))
    shared["details"] = {"law": law.name, "objective": found.objective}
    estimates = []
    if law.optimum:
        estimates.append(_exponent(table, item, hypotheses, exponent | shared))
    if found.floor is not None:
        estimates.append(_floor(table, item, floor | shared))
    return estimates


def _poor_fit(found: Comparison) -> str | None:
    if found.r_squared is not None and found.r_squared < _LEAST_R_SQUARED:
        return f"R² {found.r_squared:.3g}: the law does not describe these points"
    return None


def _undetermined(found: Comparison) -> str | None:
    if (found.refits_at_a_bound or 0) > _MOST_AT_BOUND:
        return f"{found.refits_at_a_bound:.0%} of the refits end at a bound: these points do not determine the law"
    return None


def _at_bound(item: Fitted) -> str | None:
    """Return which parameter ended at a bound of its search; a floor at its lower one leaves the exponent as it is."""
    for flag in item.comparison.flags:
        if " at its " in flag and flag != f"{item.law.floor_parameter} at its lower bound":
            return f"{flag} of the search: these points do not determine the law"
    return None


def _design(table: PointTable, item: Fitted) -> str:
    """Return why the table cannot determine a law in both N and D (or the tokens seen), or an empty text."""
    assert item.fit is not None
    rows, natural = rows_of(table), item.fit.natural
    predicted = item.law.loss(natural, rows)

    def depends(**changed: Array) -> bool:
        return not np.allclose(item.law.loss(natural, replace(rows, **changed)), predicted)

    amounts = [rows.D] if depends(D=2 * rows.D) else []
    if rows.tokens is not None and depends(tokens=2 * rows.tokens):
        amounts.append(rows.tokens)
    reasons = [not_told_apart(rows.N, amount) for amount in amounts]
    return reasons[0] if depends(N=2 * rows.N) and reasons and all(reasons) else ""


def _exponent(table: PointTable, item: Fitted, hypotheses: Sequence[float], shared: dict[str, Any]) -> Estimate:
    found = item.comparison
    reason = _design(table, item) or _poor_fit(found) or _at_bound(item) or _undetermined(found)
    reason = reason or no_curvature(table.N, table.D, table.loss, found.rmse)
    if reason:
        return Estimate(**shared, reason=reason)
    tests: tuple[HypothesisTest, ...] = ()
    if "k" in found.intervals:
        interval = found.intervals["k"]
        tests = tuple(interval_test(hypothesis_name(k), k, interval, "bootstrap interval") for k in hypotheses)
    optima = [] if item.fit is None or item.resampled is None else _compute_optima(table, item.fit, item.resampled)
    shared = shared | {"details": shared["details"] | ({"N_opt": optima} if optima else {})}
    return Estimate(**shared, value=found.k, interval=found.intervals.get("k"), tests=tests)


def _compute_optima(table: PointTable, fit: LawFit, resampled: Resampled) -> list[dict[str, Any]]:
    """Return N_opt(C) with its interval at 9 budgets, from the least C of the points to 10 times their largest."""
    C = table.flops
    optima = []
    for budget in np.geomspace(C.min(), 10 * C.max(), 9).tolist():
        N, sizes = (fit.law.compute_optimum(natural, budget) for natural in (fit.natural, resampled.natural))
        if N is not None and sizes is not None:
            optima.append({"C": budget, "N": float(N), "interval": percentile_interval(sizes)})
    return optima


def _floor(table: PointTable, item: Fitted, shared: dict[str, Any]) -> Estimate:
    found = item.comparison
    same = one_value(table.N, table.D)
    reason = f"{same}: what more of the other one would leave there is no floor" if same else None
    reason = reason or _design(table, item) or _poor_fit(found) or _at_bound(item)
    # A floor at the bound of the search, or a fit that mostly ends at bounds, does not measure a floor.
    if reason is None and f"{item.law.floor_parameter} at its lower bound" in found.flags:
        reason = "the floor is at the lower bound of the search: these points do not determine it"
    reason = reason or _undetermined(found) or above_the_losses(table, found.intervals.get("floor"))
    if reason:
        return Estimate(**shared, reason=reason)
    tests: tuple[HypothesisTest, ...] = ()
    if "floor" in found.intervals:
        figures = {key: value for key, value in references(table).items() if key in {"1", "entropy"}}
        tests = tuple(
            interval_test(
                f"floor = {key}" + (f" ({value:.4g})" if key != "1" else ""),
                value,
                found.intervals["floor"],
                "bootstrap interval",
            )
            for key, value in figures.items()
        )
    return Estimate(**shared, value=found.floor, interval=found.intervals.get("floor"), tests=tests)


def _outliers(table: PointTable, found: Comparison, fit: LawFit) -> tuple[str, ...]:
    """Return a remark on the parameters that leave their interval in a fit without the highest 2 % of the losses."""
    rows = rows_of(table)
    if len(rows) < _ROWS_FOR_OUTLIERS or not found.intervals or not fit.law.checks_outliers:
        return ()
    number = max(1, round(0.02 * len(rows)))
    kept = rows.take(np.argsort(rows.loss, kind="stable")[: len(rows) - number])
    if fit.law.unsupported(kept):
        return ()
    other = fit_law(fit.law, kept, fit.objective).parameters
    moved = [
        f"{name} {value:.4g} to {other[name]:.4g}"
        for name, value in found.parameters.items()
        if not found.intervals[name][0] <= other[name] <= found.intervals[name][1] or not 0.5 < other[name] / value < 2
    ]
    return (f"without the {number} highest losses: " + ", ".join(moved),) if moved else ()
