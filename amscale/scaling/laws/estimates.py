"""The exponent and the floor that each law implies, as rows with intervals and tests, or refusals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import percentile_interval
from amscale.scaling.estimate import EXPONENT, FLOOR, Estimate, Hypothesis, outside
from amscale.scaling.floor import references
from amscale.scaling.laws.chinchilla import Chinchilla, compute_optimum
from amscale.scaling.laws.compare import Comparison, Fitted
from amscale.scaling.laws.fitting import fit_law
from amscale.scaling.laws.law import Rows, rows_of
from amscale.scaling.laws.search import HUBER_LOG, OBJECTIVES
from amscale.scaling.points import Points
from amscale.scaling.power_law import named

_LEAST_R_SQUARED = 0.5
_MOST_AT_BOUND = 0.5
_ROWS_FOR_INFLUENCE = 50
_TEXT = {objective.name: objective.text for objective in OBJECTIVES}


def law_estimates(table: Points, fitted: Sequence[Fitted], hypotheses: Sequence[float]) -> list[Estimate]:
    """Rows for k and for the floor of every law that could be fitted, and refusals for Chinchilla's where it could not.

    Huber's objective stands for each law; squared error is shown beside it where the two disagree, that is where the
    value of one lies outside the interval of the other.
    """
    rows = []
    by_law: dict[str, dict[str, Fitted]] = {}
    for item in fitted:
        by_law.setdefault(item.comparison.law, {})[item.comparison.objective] = item
    for law, items in by_law.items():
        first = items[HUBER_LOG.name]
        shown = [first]
        if first.comparison.refusal is None:
            squared = items["squared"]
            described = _unsupported(first.comparison) is None or _unsupported(squared.comparison) is None
            shown += [squared] if described and disagree(first.comparison, squared.comparison) else []
        elif law != Chinchilla().name:
            continue
        for item in shown:
            rows += _rows(table, item, hypotheses)
    return rows


def disagree(one: Comparison, other: Comparison) -> bool:
    """Whether k or the floor of one fit lies outside the interval of the other."""
    for a, b in ((one, other), (other, one)):
        for name, value in (("k", a.k), ("floor", a.floor)):
            if value is not None and name in b.intervals and not b.intervals[name][0] <= value <= b.intervals[name][1]:
                return True
    return False


def _rows(table: Points, item: Fitted, hypotheses: Sequence[float]) -> list[Estimate]:
    found = item.comparison
    law = Chinchilla() if item.fit is None else item.fit.law
    shared: dict[str, Any] = {
        "convention": f"{table.convention}; D {'unique tokens' if table.points[0].result else 'as given'}",
        "objective": _TEXT[found.objective],
        "used": found.used,
        "left_out": table.reasons,
    }
    name = f"{law.optimum} ({law.name})", f"loss floor ({law.name})"
    if item.fit is None:
        shared |= {"method": "no fit", "refusal": found.refusal, "remarks": (law.formula,)}
        return [
            Estimate(estimand=name[0], group=EXPONENT, **shared),
            Estimate(estimand=name[1], group=FLOOR, **shared),
        ]
    shared["method"] = "no interval"
    if found.intervals:
        shared["method"] = f"percentile interval, {found.bootstrap}, {found.resamples} refits"
    parameters = ", ".join(f"{key} {value:.4g}" for key, value in found.parameters.items())
    text = f"{law.formula}: {parameters}; objective {found.value:.6g}"
    shared["remarks"] = (text, *found.flags, *_influence(table, item))
    shared["details"] = {"law": law.name, "objective": found.objective}
    estimates = []
    if law.optimum:
        estimates.append(_exponent(name[0], table, item, hypotheses, shared))
    if found.floor is not None:
        estimates.append(_floor(name[1], table, item, shared))
    return estimates


def _unsupported(found: Comparison) -> str | None:
    if found.r_squared is not None and found.r_squared < _LEAST_R_SQUARED:
        return f"R² {found.r_squared:.3g}: the law does not describe these points"
    return None


def _undetermined(found: Comparison) -> str | None:
    if (found.refits_at_a_bound or 0) > _MOST_AT_BOUND:
        return f"{found.refits_at_a_bound:.0%} of the refits end at a bound: these points do not determine the law"
    return None


def _exponent(name: str, table: Points, item: Fitted, hypotheses: Sequence[float], shared: dict[str, Any]) -> Estimate:
    found = item.comparison
    reason = _unsupported(found)
    reason = reason or _undetermined(found)
    if reason:
        return Estimate(estimand=name, group=EXPONENT, **shared, refusal=reason)
    tests: tuple[Hypothesis, ...] = ()
    if "k" in found.intervals:
        tests = tuple(outside(named(k), k, found.intervals["k"], "bootstrap interval") for k in hypotheses)
    details = dict(shared["details"])
    if isinstance(item.fit.law, Chinchilla) and item.resampled is not None:  # type: ignore[union-attr]
        details["N_opt"] = _compute_optima(table, item)
    return Estimate(
        estimand=name,
        group=EXPONENT,
        value=found.k,
        interval=found.intervals.get("k"),
        hypotheses=tests,
        **{**shared, "details": details},
    )


def _compute_optima(table: Points, item: Fitted) -> list[dict[str, Any]]:
    """N_opt(C) = G·(C/6)^a with its interval at 9 budgets over the points' range and one decade beyond."""
    C = table.flops
    budgets = np.geomspace(C.min(), 10 * C.max(), 9)
    natural = item.resampled.natural  # type: ignore[union-attr]
    optima = []
    for budget in budgets:
        sizes = compute_optimum(natural.T, budget)
        value = float(compute_optimum(item.fit.natural, budget))  # type: ignore[union-attr]
        optima.append({"C": float(budget), "N": value, "interval": percentile_interval(sizes)})
    return optima


def _floor(name: str, table: Points, item: Fitted, shared: dict[str, Any]) -> Estimate:
    found = item.comparison
    reason = _unsupported(found)
    # A floor pushed against the bound of the search, or a fit that mostly ends at bounds, is no measurement of a floor.
    if reason is None and "ln E at its lower bound" in found.flags:
        reason = "the floor is at the lower bound of the search: these points do not determine it"
    reason = reason or _undetermined(found)
    if reason:
        return Estimate(estimand=name, group=FLOOR, **shared, refusal=reason)
    tests: tuple[Hypothesis, ...] = ()
    if "floor" in found.intervals:
        figures = {key: value for key, value in references(table).items() if key in {"1", "entropy"}}
        tests = tuple(
            outside(
                f"floor = {key}" + (f" ({value:.4g})" if key != "1" else ""),
                value,
                found.intervals["floor"],
                "bootstrap interval",
            )
            for key, value in figures.items()
        )
    return Estimate(
        estimand=name, group=FLOOR, value=found.floor, interval=found.intervals.get("floor"), hypotheses=tests, **shared
    )


def _influence(table: Points, item: Fitted) -> tuple[str, ...]:
    """Parameters of Chinchilla's law that leave their own interval without the highest 2 % of the losses."""
    rows: Rows = rows_of(table)
    found = item.comparison
    if len(rows) < _ROWS_FOR_INFLUENCE or not found.intervals or not isinstance(item.fit.law, Chinchilla):  # type: ignore[union-attr]
        return ()
    number = max(1, round(0.02 * len(rows)))
    kept = rows.take(np.argsort(rows.loss, kind="stable")[: len(rows) - number])
    if item.fit.law.unsupported(kept):  # type: ignore[union-attr]
        return ()
    other = fit_law(item.fit.law, kept, item.fit.objective).parameters  # type: ignore[union-attr]
    moved = [
        f"{name} {value:.4g} to {other[name]:.4g}"
        for name, value in found.parameters.items()
        if not found.intervals[name][0] <= other[name] <= found.intervals[name][1] or not 0.5 < other[name] / value < 2
    ]
    return (f"without the {number} highest losses: " + ", ".join(moved),) if moved else ()
