"""Everything that a report shows, read from a sweep's folder."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import amscale
from amscale.errors import InputError, no_sweep
from amscale.reporting.fit_data import FitData, RunLoss, run_label, with_infinite_ends
from amscale.reporting.terminal import TrialStatus, trial_status
from amscale.scaling.floor import common_value
from amscale.scaling.points import counted
from amscale.trials.attempt import ATTEMPT_MARK
from amscale.trials.metrics import MetricsRecord, ProbeRecord, TrainMeanRecord, TrainRecord, ValidationRecord
from amscale.trials.records import TrialResult
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

if TYPE_CHECKING:
    from amscale.scaling.base_fit import BaseFit

Curve = list[tuple[float, float]]
"""(step, nats per token); steps ascend and occur once."""


@dataclass(frozen=True)
class ReportTrial:
    """One trial: its result (None while it has none), loss curves and probes, which are (step, values by name)."""

    label: str
    status: TrialStatus
    result: TrialResult | None
    N: float | None
    train: Curve
    validation: Curve
    probes: list[tuple[int, dict[str, float]]]
    command: str
    averaged: int = 1
    """Steps whose mean a train loss is at most; more than 1 in an archive."""

    @property
    def finished(self) -> bool:
        """Whether it has a result and did not diverge."""
        return self.status.state == "finished"

    @property
    def D(self) -> float | None:
        """Unique tokens; None without a result."""
        return None if self.result is None else float(self.result.data.unique_tokens)

    @property
    def seed(self) -> int | None:
        """The seed; None without a result."""
        return None if self.result is None else self.result.seed


@dataclass(frozen=True)
class ReportData(FitData):
    """A sweep's folder, read once: its fit, its configuration and every trial."""

    folder: Path
    configuration: str
    trials: list[ReportTrial]
    radius_experiments: list[dict[str, Any]]

    @property
    def loss_name(self) -> str:
        """What the loss of a point is."""
        return "least validation loss"

    @cached_property
    def with_result(self) -> list[ReportTrial]:
        """Trials with a result, finished or diverged, by N, D and seed: those that figures show."""
        return sorted((t for t in self.trials if t.N and t.D), key=lambda t: (t.N or 0, t.D or 0, t.seed or 0))

    @cached_property
    def finished(self) -> list[ReportTrial]:
        """Trials that finished, by N, D and seed."""
        return [trial for trial in self.with_result if trial.finished]

    @cached_property
    def sizes(self) -> list[float]:
        """Every N, ascending, those of diverged trials too."""
        return sorted({trial.N for trial in self.with_result if trial.N})

    @cached_property
    def tokens(self) -> list[float]:
        """Every D, ascending, those of diverged trials too."""
        return sorted({trial.D for trial in self.with_result if trial.D})

    def losses(self, name: str) -> list[RunLoss]:
        """Return the loss `name` of every finished trial whose result has it."""
        found = []
        for trial in self.finished:
            value = getattr(trial.result.losses, name) if trial.result else None
            if value is not None and math.isfinite(value) and trial.N and trial.D:
                found.append(RunLoss(trial.N, trial.D, float(value), run_label(trial.N, trial.D, trial.seed)))
        return found

    def corpus_fact(self, name: str, trials: Sequence[ReportTrial] | None = None) -> float | None:
        """Return a property of the corpus that these trials (by default the finished ones) agree on, or None."""
        chosen = self.finished if trials is None else trials
        return common_value([getattr(trial.result.data, name) if trial.result else None for trial in chosen])


def read_report_data(
    folder: str | Path, fit: "BaseFit | None" = None, output: Path | None = None, address: str | None = None
) -> ReportData:
    """Read a sweep's folder.

    Args:
        folder: `<storage>/<name>` of a sweep.
        fit: its estimates; by default those of fit.json, fitted again if the trials have changed.
        output: the folder for fit.json where it is made anew; the sweep's own if None.
        address: the sweep as a user names it, where that is not its folder.

    Raises:
        InputError: not a sweep folder, or no finished trial.
    """
    sweep = SweepStore(Path(folder).absolute())
    marker = sweep.path / "sweep.yaml"
    if not marker.is_file():
        raise no_sweep(folder)
    folders = sweep.all_trials()
    states = Counter(trial_status(trial).state for trial in folders)
    if not states["finished"]:
        found = ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "it has no trials"
        raise InputError(f"{folder}: no trial has finished yet ({found}); wait for one, or run the sweep again")
    tree = sweep.read_marker()
    document = fit.to_dict() if fit is not None else _fit_document(sweep, output or sweep.path, address)
    count = document["settings"]["count"]
    trials = [_read_trial(trial, count) for trial in folders]
    return ReportData(
        name=str(tree.get("name", sweep.path.name)),
        fit=with_infinite_ends(document),
        rows=document["points"],
        facts={},
        folder=Path(address or sweep.path),
        configuration=yaml.safe_dump({k: v for k, v in tree.items() if k != "format"}, sort_keys=False),
        trials=trials,
        radius_experiments=_radius_experiments(sweep.path.parent, {trial.label for trial in trials}),
    )


def _radius_experiments(storage: Path, labels: set[str]) -> list[dict[str, Any]]:
    """Return the summaries of the radius experiments in the same storage that measured one of these trials."""
    found = (_read_json(file) for file in sorted(storage.glob("*/summary.json")))
    return [item for item in found if item is not None and item.get("model") in labels and "spreads" in item]


def _fit_document(sweep: SweepStore, output: Path, address: str | None) -> dict[str, Any]:
    """Return fit.json where it is of the trials that are finished now; otherwise fit again and write it to `output`."""
    file = sweep.path / "fit.json"
    document = _read_json(file)
    if document is not None and _is_current(document, sweep.path):
        return document
    from amscale.planning.next_grid import with_next_step
    from amscale.scaling.fit import fit_sweep

    settings = sweep.fit_settings()
    fit = fit_sweep(sweep.path, settings.count, settings.window, settings.threshold, settings.hypotheses)
    fit = with_next_step(fit, address)
    fit.table.source = address or fit.table.source
    fit.write(output / "fit.json")
    return fit.to_dict()


def _read_json(file: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None where the file is missing or holds no complete object."""
    if not file.is_file():
        return None
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


_ESTIMATE_KEYS = {
    "estimand",
    "value",
    "interval",
    "refusal",
    "hypotheses",
    "group",
    "details",
    "remarks",
    "left_out",
    "used",
}
_LAW_KEYS = {"law", "formula", "objective", "parameters", "held_out", "refusal", "flags", "k", "floor", "value"}


def _is_current(document: dict[str, Any], folder: Path) -> bool:
    """Return whether estimates are whole, from this version, and of exactly the trials that are finished now."""
    from amscale.scaling.fit import tuned
    from amscale.scaling.reading import read_sweep

    if document.get("format") != 1 or document.get("amscale") != amscale.__version__ or "verdict" not in document:
        return False
    try:
        if not all(estimate.keys() >= _ESTIMATE_KEYS for estimate in document["estimates"]):
            return False
        if not all(law.keys() >= _LAW_KEYS for law in document["laws"]):
            return False
        count = document["settings"]["count"]
        then = {(point["name"], point["N"], point["D"], point["loss"]) for point in document["points"]}
        left_out = {item["name"] for item in document["left_out"]}
        others = set(document.get("other_settings", ()))
    except (AttributeError, KeyError, TypeError):  # damaged: it is made anew
        return False
    table = read_sweep(folder, count, axes=document["settings"].get("tune"))
    tuning = tuned(table, 0)
    table = table if tuning is None else tuning.table
    now = {(point.name, point.N, point.D, point.loss) for point in table.points}
    unused = {name for name, _ in table.left_out}
    return now == then and unused == left_out and {point.name for point in table.others} == others


def _read_trial(folder: TrialStore, count: str) -> ReportTrial:
    result = folder.read_result()
    train: dict[int, float] = {}
    validation: dict[int, float] = {}
    probes: dict[int, dict[str, float]] = {}
    averaged = 1
    for record in folder.read_metrics(MetricsRecord):
        # A resumed run writes the steps after its checkpoint again: the later record counts.
        if isinstance(record, TrainRecord):
            train[record.step] = float(record.loss)
        elif isinstance(record, TrainMeanRecord):
            train[record.step - record.steps // 2] = float(record.loss)
            averaged = max(averaged, record.steps)
        elif isinstance(record, ValidationRecord):
            validation[record.step] = float(record.loss)
        elif isinstance(record, ProbeRecord):
            probes[record.step] = record.values
    return ReportTrial(
        label=folder.path.name,
        status=trial_status(folder),
        result=result,
        N=counted(result.parameters, count) if result else None,
        train=sorted(train.items()),
        validation=sorted(validation.items()),
        probes=sorted(probes.items()),
        command=_command(folder),
        averaged=averaged,
    )


def _command(folder: TrialStore) -> str:
    """Return the command that started the trial last, from its log; empty where the log is missing."""
    if not folder.log.is_file():
        return ""
    text = folder.log.read_text(encoding="utf-8", errors="replace")
    starts = [line for line in text.splitlines() if line.startswith(ATTEMPT_MARK)]
    return starts[-1].removeprefix(ATTEMPT_MARK).partition(": ")[2] if starts else ""
