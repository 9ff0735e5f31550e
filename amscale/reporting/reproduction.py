"""What reproduces a sweep: commands, versions, and which trials an earlier configuration ran."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from amscale.config import expand, parse
from amscale.errors import InputError
from amscale.reporting.report_data import ReportData
from amscale.trials.identity import settings_of

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
    cells_by_settings: dict[tuple[str, ...], set[str]] = {}
    outside = []
    for trial, result in ((trial, trial.result) for trial in report.with_result if trial.result):
        settings = {"seed": result.setting("seed")} | {section: result.section(section) for section in _SECTIONS}
        # Another version may have had fewer settings: only those that the trial records are compared.
        names = tuple(f"{section}.{name}" for section in _SECTIONS for name in settings[section])
        if names not in cells_by_settings:
            cells_by_settings[names] = {_values(cell, names) for cell in cells}
        if _values(settings, names) not in cells_by_settings[names]:
            outside.append(trial.label)
    return outside


def _values(settings: dict[str, Any], names: Sequence[str]) -> str:
    """Return the seed and the settings of these dotted names as text."""
    chosen = [settings.get(section, {}).get(name) for section, _, name in (dotted.partition(".") for dotted in names)]
    return json.dumps([settings.get("seed"), chosen])


def commands(folder: Path) -> list[str]:
    """Return the commands that reproduce the sweep, its fit and its report."""
    place = shlex.quote(str(folder))
    return [
        f"python -m amscale.sweep {shlex.quote(folder.name + '.yaml')}",
        f"python -m amscale.fit {place}",
        f"python -m amscale.report {place}",
    ]
