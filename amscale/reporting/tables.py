"""The tables of a report, as headings and rows of text."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from amscale.config import expand, parse
from amscale.errors import InputError
from amscale.reporting.gather import Sweep, Trial
from amscale.reporting.plan_table import format_duration
from amscale.reporting.sentences import verdict
from amscale.scaling.estimate import interval_text
from amscale.settings import format_size
from amscale.trials.identity import settings_of


@dataclass(frozen=True)
class Table:
    """Headings (name, whether its cells are numbers) and rows."""

    headings: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class EstimateRow:
    """One estimate: the cells of its row, and the ground that it stands on."""

    group: str
    cells: Sequence[str]
    refused: bool
    ground: Sequence[tuple[str, Sequence[str]]]


def trial_table(sweep: Sweep) -> Table:
    """One row a trial, in order of N, D and seed; trials without a result last."""
    names = (
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
    text = ("state", "trial", "remark")
    rest = [trial for trial in sweep.trials if trial not in sweep.shown]
    return Table([(name, name not in text) for name in names], [_trial_row(t) for t in (*sweep.shown, *rest)])


def _trial_row(trial: Trial) -> list[str]:
    result = trial.result
    if result is None:
        return [
            "",
            "",
            "",
            trial.status.state,
            f"{trial.status.step:,}",
            "",
            "",
            "",
            "",
            "",
            trial.label,
            trial.status.remark,
        ]
    return [
        format_size(trial.N or 0),
        format_size(trial.D or 0),
        str(trial.seed),
        trial.status.state,
        f"{result.steps:,}",
        _number(result.losses.train_least),
        _number(result.losses.validation_least),
        _whole(result.losses.validation_least_step),
        f"{result.flops.total:.1e}",
        format_duration(result.time.device_seconds or 0.0),
        trial.label,
        trial.status.remark,
    ]


def estimate_rows(sweep: Sweep) -> list[EstimateRow]:
    """One row an estimate, whatever estimates there are, those of one group together."""
    rows = []
    for item in (item for group in sweep.groups for item in sweep.estimates(group)):
        refused = item["value"] is None
        cells = (
            item["estimand"],
            "refused" if refused else f"{item['value']:.4g}",
            "" if refused else interval_text(item["interval"]),
            str(item["used"]),
            item["refusal"] if refused else verdict(item["hypotheses"]),
            item["objective"],
        )
        p_values = [f"{t['name']}: {t['how']}" + _p(t.get("p_value")) for t in item["hypotheses"]]
        ground = (
            ("refused", [item["refusal"]] if item["refusal"] else []),
            ("convention", [item["convention"]]),
            ("objective", [item["objective"]]),
            ("method", [item["method"]]),
            ("tests at 5 %", p_values),
            ("remarks", item["remarks"]),
            ("left out", item["left_out"]),
        )
        rows.append(
            EstimateRow(item["group"], cells, refused, [(name, list(lines)) for name, lines in ground if any(lines)])
        )
    return rows


def _p(value: float | None) -> str:
    return "" if value is None else f", p {value:.2g}"


_PROBE = (
    ("steps lowering E", "energy/global/steps_lowering_E", "share"),
    ("lowering E_global", "energy/global/steps_lowering_E_global", "share"),
    ("radius", "radius/{last}/sampled_median", "number"),
    ("r*", "radius/{last}/r_star", "number"),
    ("separated at r*", "radius/{last}/separated_r_star", "share"),
    ("duplicates", "radius/{last}/duplicates", "number"),
    ("log Z = loss_energy", "partition/{last}/log_Z_squared", "number"),
    ("loss_paper", "partition/{last}/loss_paper_squared", "number"),
    ("loss_density", "partition/{last}/loss_density_squared", "number"),
)
"""Columns of the probe table: heading, key with {last} for the last layer, and how it is written."""


def probe_table(sweep: Sweep) -> Table | None:
    """The last probe of each trial: energies of the last layer, and the losses that the theory predicts from them."""
    trials = [trial for trial in sweep.shown if trial.probes]
    found = [(trial, trial.probes[-1], _last_layer(trial.probes[-1][1])) for trial in trials]
    columns = [c for c in _PROBE if any(c[1].format(last=last) in values for _, (_, values), last in found)]
    if not columns:
        return None
    rows = []
    for trial, (step, values), last in found:
        measured = [_measured(values.get(key.format(last=last)), how) for _, key, how in columns]
        loss = trial.result.losses.validation_last if trial.result else None
        rows.append(
            [
                format_size(trial.N or 0),
                format_size(trial.D or 0),
                str(trial.seed),
                f"{step:,}",
                _number(loss),
                *measured,
            ]
        )
    names = ("N", "D", "seed", "step", "validation last", *(name for name, _, _ in columns))
    return Table([(name, True) for name in names], rows)


def _last_layer(values: dict[str, float]) -> str:
    return max((part for key in values if (part := key.split("/")[1]).startswith("layer_")), default="")


def _measured(value: float | None, how: str) -> str:
    if value is None:
        return ""
    return f"{100 * value:.0f} %" if how == "share" else f"{value:.4g}"


def law_table(sweep: Sweep) -> Table | None:
    """The laws side by side, each under each objective, where the fit holds them."""
    rows = []
    for law in sweep.fit.get("laws") or ():
        held_out = [f"{axis} {value:.3g}" for axis, value in law["held_out"].items() if isinstance(value, float)]
        parameters = ", ".join(f"{_greek(name)} {value:.4g}" for name, value in law["parameters"].items())
        numbers = [_short(law[key]) for key in ("k", "floor", "value", "r_squared", "rmse", "aicc")]
        remark = law["refusal"] or "; ".join(law["flags"])
        name = f"{law['law']}: {law['formula']}"
        objective = _OBJECTIVES.get(law["objective"], law["objective"])
        rows.append([name, objective, *numbers, ", ".join(held_out), parameters, remark])
    numeric = ("k", "floor", "least value", "R²", "RMSE", "AICc")
    names = ("law", "objective", *numeric, "RMSE on the largest", "parameters", "remark")
    return Table([(name, name in numeric) for name in names], rows) if rows else None


_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "kappa": "κ"}


def _greek(name: str) -> str:
    """`α_N` of `alpha_N`."""
    first, line, rest = name.partition("_")
    return _GREEK.get(first, first) + line + rest


_OBJECTIVES = {"huber_log": "Huber, ln loss", "squared_log": "squares, ln loss", "squared": "squares, loss"}


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def left_out_table(sweep: Sweep) -> Table | None:
    """What no fit used, by name."""
    rows = [(item["name"], item["reason"]) for item in sweep.fit["left_out"]]
    return Table([("what", False), ("why", False)], rows) if rows else None


def versions(sweep: Sweep) -> list[tuple[str, str]]:
    """Name and version of the software; several where trials differ."""
    found: dict[str, set[str]] = {}
    for result in (trial.result for trial in sweep.trials if trial.result):
        engine = result.engine.to_tree()
        facts = result.versions | {
            key: engine[key] for key in ("device", "precision", "zero_stage", "world_size") if key in engine
        }
        for name, version in facts.items():
            found.setdefault(name.replace("_", " "), set()).add(str(version))
    return [(name, ", ".join(sorted(values))) for name, values in found.items()]


def outside_grid(sweep: Sweep) -> list[str]:
    """Trials that are no cell of the configuration: those of an earlier grid in the same folder."""
    try:
        experiment = parse(yaml.safe_load(sweep.configuration))
    except InputError:  # a configuration that this version no longer reads says nothing of its trials
        return []
    cells = [settings_of(cell) for cell in expand(experiment)]
    held: dict[tuple[str, ...], set[str]] = {}
    outside = []
    sections = ("model", "data", "train")
    for trial, result in ((trial, trial.result) for trial in sweep.shown if trial.result):
        settings = {"seed": result.setting("seed")} | {section: result.section(section) for section in sections}
        # Another version may have had fewer settings: those that the trial records are compared.
        keys = tuple(f"{section}.{key}" for section in sections for key in settings[section])
        if keys not in held:
            held[keys] = {_values(cell, keys) for cell in cells}
        if _values(settings, keys) not in held[keys]:
            outside.append(trial.label)
    return outside


def _values(settings: dict[str, Any], keys: Sequence[str]) -> str:
    """The seed and the settings of these dotted keys, as text."""
    chosen = [settings.get(section, {}).get(key) for section, _, key in (name.partition(".") for name in keys)]
    return json.dumps([settings.get("seed"), chosen])


def commands(folder: Path) -> list[str]:
    """What reproduces the sweep, its fit and this page."""
    place = shlex.quote(str(folder))
    return [
        f"python -m amscale.sweep {shlex.quote(folder.name + '.yaml')}",
        f"python -m amscale.fit {place}",
        f"python -m amscale.report {place}",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,}"
