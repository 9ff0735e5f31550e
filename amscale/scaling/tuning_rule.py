"""What tuned cells say: how the best settings follow N and D, and what k would be with one setting for all."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import percentile_interval
from amscale.scaling.estimate import interval_text
from amscale.scaling.laws.compare import Fitted, resample_law
from amscale.scaling.laws.fitting import fit_law
from amscale.scaling.laws.law import HUBER_LOG, SQUARED_LOG, Law, rows_of
from amscale.scaling.points import Array, PointTable
from amscale.scaling.tuning import Tuning, at_value
from amscale.scaling.tuning_policies import tables_of_policies
from amscale.scaling.tuning_surface import short
from amscale.settings import counted, format_size

_RESAMPLES = 200
_MOST_VALUES = 10
_MOST_CELLS = 3


@dataclass(frozen=True)
class FittedRule:
    """The best value of one setting, value = coefficient·(N/N0)^a·(D/D0)^b, by least squares in logarithms.

    Cells at an edge are left out; each cell counts by the error of its optimum and the scatter about the rule. An
    exponent is 0 and has no interval where all cells have one N, or one D.
    """

    axis: str
    coefficient: float
    N0: float
    D0: float
    a: float
    b: float
    a_interval: tuple[float, float] | None
    b_interval: tuple[float, float] | None
    cells: int

    def expression(self) -> str:
        """Return the rule as a configuration has it."""
        text = f"{self.coefficient:.4g}"
        for name, unit, power, interval in (
            ("N", self.N0, self.a, self.a_interval),
            ("D", self.D0, self.b, self.b_interval),
        ):
            if interval is not None:
                text += f" * ({name} / {format_size(unit)}) ** {power:.3f}"
        return text

    def value(self, N: float, D: float) -> float:
        """Return the setting for a cell."""
        return self.coefficient * (N / self.N0) ** self.a * (D / self.D0) ** self.b

    def describe(self) -> str:
        """Return `learning_rate ∝ N^-0.35 (-0.36 to -0.34) D^0.01 (…), from 30 cells`."""
        parts = [
            f"{name}^{power:.3f} ({'no interval' if math.isnan(interval[0]) else interval_text(interval)})"
            for name, power, interval in (("N", self.a, self.a_interval), ("D", self.b, self.b_interval))
            if interval is not None
        ]
        return f"{short(self.axis)} ∝ {' '.join(parts)}, from {counted(self.cells, 'cell')} with the best value inside"


@dataclass(frozen=True)
class Variant:
    """k of one law with tuned cells, with one `value` for all, or with a policy; None where it is not determined."""

    what: str
    k: float | None
    interval: tuple[float, float] | None
    value: float | None = None
    reason: str = ""

    def describe(self) -> str:
        """Return `tuned cells 0.73 (0.66 to 0.78)`."""
        if self.k is None:
            return f"{self.what} not determined ({self.reason})"
        return f"{self.what} {self.k:.3g}" + (f" ({interval_text(self.interval)})" if self.interval else "")


def _range(what: str, items: Sequence[Variant]) -> str:
    """Return `one batch for all .98 to 1.4 (256: .98, 512: 1.4)`."""
    known = [item.k for item in items if item.k is not None]
    if not known:
        return f"{what} not determined"
    each = ", ".join(f"{item.value:.3g}: {'–' if item.k is None else format(item.k, '.3g')}" for item in items)
    ends = f"{min(known):.3g} to {max(known):.3g}" if len(known) > 1 else f"{known[0]:.3g}"
    return f"{what} {ends} ({each})"


@dataclass(frozen=True)
class TuningSummary:
    """The tuned cells of a fit, the rules through their optima, and k with other settings."""

    tuning: Tuning
    rules: tuple[FittedRule, ...]
    unfitted: tuple[str, ...]
    """Why an axis has no rule, one sentence each."""
    law: str
    """The law of `sensitivity`; empty where no law gives k."""
    sensitivity: tuple[Variant, ...]

    def lines(self) -> list[str]:
        """Return what a user should read of it, one paragraph each."""
        found = self.tuning
        deviation = found.deviation
        noise = "not known: a second seed or a fourth value would tell" if deviation is None else f"{deviation:.2g}"
        lines = [
            f"tuned: {', '.join(map(short, found.axes))} in {counted(len(found.cells), 'cell')} of "
            f"{counted(len(found.runs.points), 'run')}, seeds averaged first; noise of ln loss {noise}"
        ]
        lines += [f"at an edge: {cell.describe()}" for cell in found.at_edge[:_MOST_CELLS]]
        if len(found.at_edge) > _MOST_CELLS:
            lines.append(f"at an edge: {len(found.at_edge) - _MOST_CELLS} further cells; fit.json lists them")
        for axis in found.axes:
            if lowest := [cell for cell in found.cells if axis in cell.at_least]:
                value = format_size(lowest[0].settings[axis])
                lines.append(
                    f"at the least there can be: {short(axis)} {value} of {len(lowest)} of {len(found.cells)} cells"
                )
        if apart := found.off_centre:
            named = "; ".join(
                f"N = {format_size(cell.N)}, D = {format_size(cell.D)}: "
                + ", ".join(
                    f"{short(axis)} {cell.settings[axis]:.3g}, next {value:.3g}"
                    for axis, value in cell.off_centre.items()
                )
                for cell in apart[:_MOST_CELLS]
            )
            lines.append(
                f"off the centre: the optimum of {len(apart)} of {len(found.cells)} cells is in an outer quarter of "
                f"the values run, where few runs bound it: {named}" + (", …" if len(apart) > _MOST_CELLS else "")
            )
        not_inside = [cell for cell in found.cells if cell.reason]
        if not_inside:
            lines.append(f"not interpolated: {counted(len(not_inside), 'cell')} ({not_inside[0].reason})")
        lines += [f"rule: {rule.describe()}" for rule in self.rules]
        lines += [f"no rule: {sentence}" for sentence in self.unfitted]
        if self.rules:
            pairs = ", ".join(f"{short(rule.axis)}: {rule.expression()}" for rule in self.rules)
            lines.append(f"as configuration for larger cells: train: {{{pairs}}}")
        if self.sensitivity:
            lines.append(f"sensitivity: k by {self.law}: {'; '.join(self._groups())}")
        return lines

    def _groups(self) -> list[str]:
        """Return the variants of `sensitivity` in words, the values of one axis together."""
        groups: dict[str, list[Variant]] = {}
        for item in self.sensitivity:
            groups.setdefault(item.what, []).append(item)
        return [
            _range(what, items) if items[0].value is not None else items[0].describe() for what, items in groups.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return it for fit.json."""
        return self.tuning.to_dict() | {
            "rules": [asdict(rule) | {"expression": rule.expression()} for rule in self.rules],
            "unfitted": list(self.unfitted),
            "law": self.law,
            "lines": self.lines(),
            "sensitivity": [asdict(item) for item in self.sensitivity],
        }


def summarise(tuning: Tuning, fitted: Sequence[Fitted]) -> TuningSummary:
    """Return rules and sensitivity of tuned cells.

    Args:
        tuning: the tuned cells.
        fitted: laws that were fitted to them.
    """
    rules, unfitted = [], []
    for axis in tuning.axes:
        found = fit_rule(tuning, axis)
        if isinstance(found, FittedRule):
            rules.append(found)
        else:
            unfitted.append(f"{short(axis)}: {found}")
    law = _law(fitted)
    variants = sensitivity(tuning, law) if law else ()
    return TuningSummary(tuning, tuple(rules), tuple(unfitted), law.name if law else "", variants)


def fit_rule(tuning: Tuning, axis: str) -> FittedRule | str:
    """Return the rule of one axis through the optima of the cells, or why there is none."""
    from scipy.special import stdtrit

    cells = [cell for cell in tuning.cells if axis in cell.inside]
    N, D = (np.array([getattr(cell, name) for cell in cells], dtype=float) for name in "ND")
    places = {"a": np.log(N), "b": np.log(D)}
    used = [name for name, place in places.items() if len(place) and np.ptp(place) > 1e-9]
    if len(cells) < len(used) + 2 or not used:
        return f"the best value is inside what was run in {len(cells)} cells; a rule needs at least {len(used) + 2}"
    units = {"a": _rounded(N), "b": _rounded(D)}
    design = np.stack([np.ones(len(cells)), *(places[name] - math.log(units[name]) for name in used)], axis=1)
    y = np.log([cell.settings[axis] for cell in cells])
    errors = np.array([cell.setting_errors.get(axis, 0.0) for cell in cells])
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return "N and D of the cells with the best value inside do not vary apart"
    solution, covariance = _weighted(design, y, errors)
    reach = float(stdtrit(len(cells) - design.shape[1], 0.975)) * np.sqrt(np.diag(covariance))
    power = dict.fromkeys("ab", 0.0) | {name: float(solution[i]) for i, name in enumerate(used, 1)}
    interval: dict[str, tuple[float, float] | None] = dict.fromkeys("ab", None)
    interval |= {n: (float(solution[i] - reach[i]), float(solution[i] + reach[i])) for i, n in enumerate(used, 1)}
    return FittedRule(
        axis,
        float(np.exp(solution[0])),
        units["a"],
        units["b"],
        power["a"],
        power["b"],
        interval["a"],
        interval["b"],
        len(cells),
    )


def _rounded(values: Array) -> float:
    """Return the geometric mean with one significant digit."""
    return float(f"{math.exp(float(np.log(values).mean())):.0e}")


def _weighted(design: Array, y: Array, errors: Array) -> tuple[Array, Array]:
    """Return coefficients and covariance by least squares; scatter beyond the errors is common to all and fitted."""
    scatter, free = 0.0, len(y) - design.shape[1]
    for _ in range(20):
        weights = 1 / (scatter + errors**2 + 1e-12)
        weighted = design * weights[:, None]
        normal = np.linalg.inv(design.T @ weighted)
        solution = normal @ (weighted.T @ y)
        squares = float(np.sum((y - design @ solution) ** 2))
        before, scatter = scatter, max(0.0, squares / free - float(np.mean(errors**2)))
        if abs(scatter - before) <= 1e-6 * max(scatter, 1e-12):
            break
    # What is left about the line widens the intervals, and never narrows them.
    ratio = max(1.0, float(np.sum(weights * (y - design @ solution) ** 2)) / free)
    return solution, ratio * normal


def sensitivity(tuning: Tuning, law: Law) -> tuple[Variant, ...]:
    """Return k of one law with tuned cells, with each single value of an axis that every cell has, with each policy.

    Beside a single value the other axes stay tuned; of many values those in the middle are taken. A policy is computed
    where the runs surround its settings.
    """
    found = [_variant("tuned cells", tuning.table, law)]
    for axis in tuning.axes:
        values = sorted({float(f"{point.settings[axis]:.5g}") for point in tuning.runs.points})
        tables = [(value, at_value(tuning, axis, value)) for value in values]
        shared = [(value, table) for value, table in tables if table is not None]
        extra = max(0, len(shared) - _MOST_VALUES)
        for value, table in shared[extra // 2 : len(shared) - (extra - extra // 2)]:
            found.append(_variant(f"one {short(axis)} for all", table, law, value))
    found += [_variant(f"policy {name}", table, law) for name, table in tables_of_policies(tuning).items()]
    return tuple(found)


def _variant(what: str, table: PointTable, law: Law, value: float | None = None) -> Variant:
    rows = rows_of(table)
    if reason := law.unsupported(rows):
        return Variant(what, None, None, value, reason)
    fit = fit_law(law, rows, HUBER_LOG)
    k = fit.exponent
    if k is None or not math.isfinite(k):
        return Variant(what, None, None, value, "an exponent of 0")
    drawn = law.exponent(resample_law(fit, rows, _RESAMPLES).natural)
    return Variant(what, k, None if drawn is None else percentile_interval(drawn), value)


def _law(fitted: Sequence[Fitted]) -> Law | None:
    """Return the law of k with the least AICc among those that describe the tuned cells."""
    scored = [
        (item.comparison.aicc, item.law)
        for item in fitted
        if item.fit is not None
        and item.misfit is None
        and item.comparison.objective == SQUARED_LOG.name
        and item.comparison.k is not None
        and item.law.exponents is not None
        and item.comparison.aicc is not None
    ]
    return min(scored, key=lambda pair: pair[0])[1] if scored else None
