"""The tables of a report, as headings and rows of text, and what it takes to reproduce the sweep."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from amscale.config import TrainSettings, expand, parse
from amscale.errors import InputError
from amscale.probes.registry import columns_of
from amscale.reporting import capacity_table
from amscale.reporting.conclusion import NOT_DETERMINED, rejections
from amscale.reporting.report_data import ReportData, ReportTrial
from amscale.scaling.estimate import interval_text
from amscale.settings import format_duration, format_size
from amscale.trials.identity import settings_of


@dataclass(frozen=True)
class Table:
    """Headings, as (name, whether the cells are numbers), and rows."""

    headings: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class EstimateRow:
    """One estimate as text; `basis` is (name, lines) of what it rests on."""

    group: str
    estimand: str
    value: str
    interval: str
    points: str
    rejected: str
    objective: str
    determined: bool
    basis: Sequence[tuple[str, Sequence[str]]]


_TRIAL_HEADINGS = (
    "N",
    "D",
    "seed",
    "state",
    "steps",
    "train least",
    "validation least",
    "at step",
    "FLOPs",
    "device time",
    "trial",
    "remark",
)
_TRIAL_TEXT = ("state", "trial", "remark")


def trial_table(report: ReportData) -> Table:
    """Return one row per trial, in order of N, D and seed; trials without a result last."""
    labels = {trial.label for trial in report.with_result}
    without_result = [trial for trial in report.trials if trial.label not in labels]
    rows = [_trial_row(trial) for trial in (*report.with_result, *without_result)]
    return Table([(name, name not in _TRIAL_TEXT) for name in _TRIAL_HEADINGS], rows)


def _trial_row(trial: ReportTrial) -> list[str]:
    result = trial.result
    if result is None:
        known = {
            "state": trial.status.state,
            "steps": f"{trial.status.step:,}",
            "trial": trial.label,
            "remark": trial.status.remark,
        }
        return [known.get(name, "") for name in _TRIAL_HEADINGS]
    return [
        format_size(trial.N or 0),
        format_size(trial.D or 0),
        str(trial.seed),
        trial.status.state,
        f"{result.steps:,}",
        _loss(result.losses.train_least),
        _loss(result.losses.validation_least),
        _integer(result.losses.validation_least_step),
        f"{result.flops.total:.1e}",
        format_duration(result.time.device_seconds or 0.0),
        trial.label,
        trial.status.remark,
    ]


def estimate_rows(report: ReportData) -> list[EstimateRow]:
    """Return one row per estimate, those of one group together."""
    return [_estimate_row(item) for group in report.groups for item in report.estimates(group)]


def _estimate_row(item: dict[str, Any]) -> EstimateRow:
    determined = item["value"] is not None
    tests = [f"{test['name']}: {test['how']}{_p_value(test.get('p_value'))}" for test in item["hypotheses"]]
    basis = (
        (NOT_DETERMINED, [item["refusal"]] if item["refusal"] else []),
        ("convention", [item["convention"]]),
        ("objective", [item["objective"]]),
        ("method", [item["method"]]),
        ("tests at 5 %", tests),
        ("remarks", item["remarks"]),
        ("left out", item["left_out"]),
    )
    return EstimateRow(
        group=item["group"],
        estimand=item["estimand"],
        value=f"{item['value']:.4g}" if determined else NOT_DETERMINED,
        interval=interval_text(item["interval"]) if determined else "",
        points=str(item["used"]),
        rejected=rejections(item["hypotheses"]) if determined else item["refusal"],
        objective=item["objective"],
        determined=determined,
        basis=[(name, list(lines)) for name, lines in basis if any(lines)],
    )


def _p_value(value: float | None) -> str:
    return "" if value is None else f", p {value:.2g}"


def probe_table(report: ReportData) -> Table | None:
    """Return the last probe of each trial, in the columns of the probes that measured; None where none did."""
    trials = [trial for trial in report.with_result if trial.probes]
    columns = columns_of([trial.probes[-1][1] for trial in trials])
    if not columns:
        return None
    rows = []
    for trial in trials:
        step, values = trial.probes[-1]
        loss = trial.result.losses.validation_last if trial.result else None
        rows.append(
            [
                format_size(trial.N or 0),
                format_size(trial.D or 0),
                str(trial.seed),
                f"{step:,}",
                _loss(loss),
                *(column.text(values) for column in columns),
            ]
        )
    names = ("N", "D", "seed", "step", "validation last", *(column.heading for column in columns))
    return Table([(name, True) for name in names], rows)


def capacity_tables(report: ReportData) -> list[Table]:
    """Return the memorised bits of each N, and of all N together by each count of it; empty where there are none."""
    details: dict[str, Any] = next(
        (item["details"] for item in report.fit["estimates"] if (item["details"] or {}).get("capacities")), {}
    )
    headings = (
        ([(name, name != "settings") for name in capacity_table.HEADINGS], capacity_table.size_rows(details)),
        (
            [(name, index in (1, 3)) for index, name in enumerate(capacity_table.COUNT_HEADINGS)],
            capacity_table.count_rows(details),
        ),
    )
    return [Table(names, rows) for names, rows in headings if rows]


def law_table(report: ReportData) -> Table | None:
    """Return the laws side by side, each under each objective, or None where the fit has none."""
    rows = []
    for law in report.fit.get("laws") or ():
        held_out = [f"{axis} {value:.3g}" for axis, value in law["held_out"].items() if isinstance(value, float)]
        parameters = ", ".join(f"{_greek(name)} {value:.4g}" for name, value in law["parameters"].items())
        numbers = [_four_digits(law[key]) for key in ("k", "floor", "value", "r_squared", "rmse", "aicc")]
        remark = law["refusal"] or "; ".join(law["flags"])
        name = f"{law['law']}: {law['formula']}"
        objective = _OBJECTIVES.get(law["objective"], law["objective"])
        rows.append([name, objective, *numbers, ", ".join(held_out), parameters, remark])
    numeric = ("k", "floor", "least value", "R²", "RMSE", "AICc")
    names = ("law", "objective", *numeric, "RMSE on the largest", "parameters", "remark")
    return Table([(name, name in numeric) for name in names], rows) if rows else None


_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "kappa": "κ"}


def _greek(name: str) -> str:
    """Return `α_N` for `alpha_N`."""
    first, separator, rest = name.partition("_")
    return _GREEK.get(first, first) + separator + rest


_OBJECTIVES = {"huber_log": "Huber, ln loss", "squared_log": "squares, ln loss", "squared": "squares, loss"}


def _four_digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def left_out_table(report: ReportData) -> Table | None:
    """Return the trials that no fit used, and why; None where every trial was used."""
    rows = [(item["name"], item["reason"]) for item in report.fit["left_out"]]
    return Table([("trial", False), ("reason", False)], rows) if rows else None


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _integer(value: float | None) -> str:
    return "" if value is None else f"{value:,}"


_ENGINE_FACTS = ("device", "precision", "zero_stage", "world_size")
_SECTIONS = ("model", "data", "train")
"""Sections of the settings that tell trials apart, beside the seed."""


def versions(report: ReportData) -> list[tuple[str, str]]:
    """Return (name, version) of the software, and of the engine its settings; several values where trials differ."""
    found: dict[str, set[str]] = {}
    for result in (trial.result for trial in report.trials if trial.result):
        engine = result.engine.to_tree()
        facts = result.versions | {name: engine[name] for name in _ENGINE_FACTS if name in engine}
        for name, version in facts.items():
            found.setdefault(name.replace("_", " "), set()).add(str(version))
    return [(name, ", ".join(sorted(values))) for name, values in found.items()]


def outside_grid(report: ReportData) -> list[str]:
    """Return the labels of trials outside the configured grid: those of an earlier configuration of the folder."""
    try:
        experiment = parse(yaml.safe_load(report.configuration))
    except InputError:  # a configuration that this version cannot read does not say which trials it contains
        return []
    cells = [settings_of(cell) for cell in expand(experiment)]
    # What rules and policies give is a number in a trial, and no number here.
    follow = {f"train.{key}" for cell in expand(experiment) for key in dict(cell.train.rules)}
    if experiment.train.policy is not None or any(cell["train"].get("policy") for cell in cells):
        follow |= {f"train.{key}" for key in TrainSettings.model_fields}
    follow.add("train.policy")
    if experiment.tune is not None and experiment.tune.small is not None:
        follow |= set(experiment.tune.axes)
    cells_by_settings: dict[tuple[str, ...], set[str]] = {}
    outside = []
    for trial, result in ((trial, trial.result) for trial in report.with_result if trial.result):
        settings = {"seed": result.setting("seed")} | {section: result.section(section) for section in _SECTIONS}
        # Another version may have had fewer settings: only those that the trial records are compared.
        names = tuple(f"{section}.{name}" for section in _SECTIONS for name in settings[section])
        names = tuple(name for name in names if name not in follow)
        if names not in cells_by_settings:
            cells_by_settings[names] = {_values(cell, names) for cell in cells}
        if _values(settings, names) not in cells_by_settings[names]:
            outside.append(trial.label)
    return outside


def _values(settings: dict[str, Any], names: Sequence[str]) -> str:
    """Return the seed and the settings of these dotted names as text."""
    chosen = [settings.get(section, {}).get(name) for section, _, name in (dotted.partition(".") for dotted in names)]
    return json.dumps([settings.get("seed"), chosen])


def commands(report: ReportData) -> list[str]:
    """Return the commands that reproduce the sweep, its fit and its report."""
    place = shlex.quote(str(report.folder))
    return [
        f"python -m amscale.sweep {shlex.quote(report.folder.name.removesuffix('.parquet') + '.yaml')}",
        f"python -m amscale.fit {place}",
        f"python -m amscale.report {place}",
    ]
