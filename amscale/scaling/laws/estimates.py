"""The exponent and the floor of each law, with intervals and tests, or why they are not determined."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import cells_of, percentile_interval
from amscale.scaling.design import no_curvature, no_variation, not_told_apart, one_value
from amscale.scaling.estimate import EXPONENT, FLOOR, FORM, Estimate, HypothesisTest, interval_test, outside
from amscale.scaling.floor import references
from amscale.scaling.laws.adequacy import profile
from amscale.scaling.laws.compare import Comparison, Fitted, Resampled, linear_residuals
from amscale.scaling.laws.fitting import LawFit, fit_law
from amscale.scaling.laws.law import HUBER_LOG, OBJECTIVES, SQUARED, SQUARED_LOG, rows_of
from amscale.scaling.outliers import outlier_remarks, outliers
from amscale.scaling.points import PointTable
from amscale.scaling.power_law import hypothesis_name
from amscale.scaling.residual_trend import residual_trend

_MOST_AT_BOUND = 0.5
_HULL = "hull of profile likelihood and percentile interval"
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
        if first.misfit is None and disagree(first.comparison, squared.comparison):
            estimates += _estimates(table, squared, hypotheses)
    return _recommended(estimates, by_law)


def _recommended(estimates: list[Estimate], by_law: Mapping[str, Mapping[str, Fitted]]) -> list[Estimate]:
    """Return the estimates, those of the recommended law marked in their details.

    Of the laws that determine k, those within 2 of the least AICc are as good; of these it is the one of the least
    error on the largest C, by a fit to the other points.
    """
    determined = [item.details["id"] for item in estimates if item.group == EXPONENT and item.value is not None]
    scores = {}
    for id in determined:
        squares, huber = by_law[id][SQUARED_LOG.name].comparison, by_law[id][HUBER_LOG.name].comparison
        ahead = huber.held_out.get("C")
        scores[id] = (squares.aicc, ahead if isinstance(ahead, float) else math.inf)
    scored = {id: score for id, score in scores.items() if score[0] is not None}
    if not scored:
        return estimates
    least = min(score for score, _ in scored.values() if score is not None)
    close = {id: ahead for id, (score, ahead) in scored.items() if score is not None and score <= least + 2}
    chosen = min(close, key=lambda id: (close[id], scored[id][0]))
    return [
        item.model_copy(update={"details": item.details | {"recommended": True}})
        if item.details.get("id") == chosen and item.details["objective"] == HUBER_LOG.name
        else item
        for item in estimates
    ]


def disagree(one: Comparison, other: Comparison) -> bool:
    """Return whether k or the floor of one fit is outside the interval of the other."""
    for a, b in ((one, other), (other, one)):
        for name, value in (("k", a.k), ("floor", a.floor)):
            if value is not None and name in b.intervals and outside(value, b.intervals[name]):
                return True
    return False


def _estimates(table: PointTable, item: Fitted, hypotheses: Sequence[float]) -> list[Estimate]:
    """Return the rows of one law under one objective."""
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
    shared["details"] = {"id": found.id, "law": law.name, "objective": found.objective}
    estimates, design = [], _design(table, item) or None
    if law.optimum:
        estimates.append(_exponent(table, item, hypotheses, exponent | shared, design or item.misfit))
    if found.floor is not None:
        estimates.append(_floor(table, item, floor | shared, design or item.misfit))
    for parameter, (name, value) in law.tested.items():
        form = {"id": f"{parameter}_{suffix}", "estimand": f"{parameter} ({law.name})", "group": FORM}
        estimates.append(_parameter(found, parameter, name, value, form | shared, design or item.misfit))
    return estimates


def _parameter(
    found: Comparison, parameter: str, name: str, value: float, shared: dict[str, Any], misfit: str | None
) -> Estimate:
    """Return the row of a parameter that has a hypothesis."""
    if reason := misfit or _undetermined(found):
        return Estimate(**shared, reason=reason)
    interval = found.intervals.get(parameter)
    tests = () if interval is None else (interval_test(name, value, interval, "bootstrap interval"),)
    return Estimate(**shared, value=found.parameters[parameter], interval=interval, tests=tests)


def _undetermined(found: Comparison) -> str | None:
    if (found.refits_at_a_bound or 0) > _MOST_AT_BOUND:
        return f"{found.refits_at_a_bound:.0%} of the refits end at a bound: these points do not determine the law"
    return None


def _at_bound(item: Fitted) -> str | None:
    """Return which parameter ended at a bound of its search that leaves the exponent open; see `Law.spared`."""
    spared = {f"{name} at its {side} bound" for name, side in item.law.spared}
    for flag in item.comparison.flags:
        if " at its " in flag and flag not in spared:
            return f"{flag} of the search: these points do not determine the law"
    return None


def _design(table: PointTable, item: Fitted) -> str:
    """Return why the table cannot determine a law in both N and D (or the tokens seen), or an empty text."""
    assert item.fit is not None
    rows, natural = rows_of(table), item.fit.natural
    predicted = item.law.loss(natural, rows)

    def depends(**changed: Any) -> bool:
        return not np.allclose(item.law.loss(natural, replace(rows, **changed)), predicted)

    amounts = [rows.D] if depends(D=2 * rows.D) else []
    if rows.tokens is not None and depends(tokens=2 * rows.tokens):
        amounts.append(rows.tokens)
    reasons = [not_told_apart(rows.N, amount) for amount in amounts]
    return reasons[0] if depends(N=2 * rows.N) and reasons and all(reasons) else ""


def _exponent(
    table: PointTable, item: Fitted, hypotheses: Sequence[float], shared: dict[str, Any], misfit: str | None
) -> Estimate:
    found, rows = item.comparison, rows_of(table)
    reason = misfit or _at_bound(item) or _undetermined(found)
    if reason := reason or no_curvature(rows.N, rows.D, rows.loss, found.rmse):
        return Estimate(**shared, reason=reason)
    interval = found.intervals.get("k")
    tests: tuple[HypothesisTest, ...] = ()
    if item.fit is not None and interval is not None:
        likelihood = profile(item.fit, rows)
        if likelihood is not None:
            if likelihood.reason:
                return Estimate(**shared, reason=likelihood.reason)
            low, high = likelihood.interval
            interval = min(interval[0], low), max(interval[1], high)
            shared = shared | {"method": shared["method"].replace("percentile interval", _HULL)}
        how = "bootstrap interval" if likelihood is None else "interval"
        tests = tuple(interval_test(hypothesis_name(k), k, interval, how) for k in hypotheses)
    optima = [] if item.fit is None or item.resampled is None else _compute_optima(table, item.fit, item.resampled)
    shared = shared | {"details": shared["details"] | ({"N_opt": optima} if optima else {})}
    if item.fit is not None and item.fit.objective is HUBER_LOG:
        apart = outliers(item.fit, rows)
        residuals, jacobian = linear_residuals(item.fit, rows, item.fit.law.problem(rows))
        trend = residual_trend(rows.N, cells_of(rows.N, rows.D, rows.flops), residuals, jacobian)
        if trend is not None:
            shared["details"] |= {"residual_trend": trend}
            shared["remarks"] = (*shared["remarks"], *filter(None, (trend.remark(),)))
        shared["remarks"] = (*shared["remarks"], *outlier_remarks(apart, table.points, found.k, interval))
        names = [table.points[index].name for index in apart.rows]
        shared["details"] |= {"outliers": names, "k_without_outliers": apart.k_without}
    return Estimate(**shared, value=found.k, interval=interval, tests=tests)


def _compute_optima(table: PointTable, fit: LawFit, resampled: Resampled) -> list[dict[str, Any]]:
    """Return N_opt(C) with its interval at 9 budgets, from the least C of the points to 10 times their largest."""
    C = table.flops
    optima = []
    for budget in np.geomspace(C.min(), 10 * C.max(), 9).tolist():
        N, sizes = (fit.law.compute_optimum(natural, budget) for natural in (fit.natural, resampled.natural))
        if N is not None and sizes is not None:
            optima.append({"C": budget, "N": float(N), "interval": percentile_interval(sizes)})
    return optima


def _floor(table: PointTable, item: Fitted, shared: dict[str, Any], misfit: str | None) -> Estimate:
    found = item.comparison
    same = one_value(table.N, table.D)
    reason = f"{same}: what more of the other one would leave there is no floor" if same else None
    reason = reason or misfit or _at_bound(item)
    # A floor at the bound of the search, or a fit that mostly ends at bounds, does not measure a floor.
    if reason is None and f"{item.law.floor_parameter} at its lower bound" in found.flags:
        most = f", and show none above {found.intervals['floor'][1]:.4g}" if "floor" in found.intervals else ""
        reason = f"the floor is at the lower bound of the search: these points do not determine it{most}"
    reason = reason or _undetermined(found)
    least = float(table.loss.min())
    if reason is None and found.floor is not None and found.floor > least:
        reason = f"{found.floor:.4g} is above {least:.4g}, a loss that was measured: it is no floor"
    entropy, interval = references(table).get("entropy"), found.intervals.get("floor")
    # The losses are of unseen text, whose mean lies within a few tenths of a percent of its source's entropy.
    if reason is None and entropy is not None and interval is not None and interval[1] < 0.99 * entropy:
        reason = (
            f"its interval, {interval[0]:.4g} to {interval[1]:.4g}, ends below {entropy:.4g}, the entropy of the text, "
            "which no loss on unseen text passes: the law does not hold that far"
        )
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
