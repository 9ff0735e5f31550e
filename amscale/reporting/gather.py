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
from amscale.errors import InputError
from amscale.reporting.analysis import Analysis, bounded
from amscale.reporting.terminal import TrialStatus, trial_status
from amscale.scaling.floor import common_value
from amscale.scaling.points import counted
from amscale.settings import format_size
from amscale.trials.attempt import ATTEMPT_MARK
from amscale.trials.metrics import MetricsRecord, ProbeRecord, TrainRecord, ValidationRecord
from amscale.trials.records import TrialResult
from amscale.trials.store import TrialStore
from amscale.trials.sweep_store import SweepStore

if TYPE_CHECKING:
    from amscale.scaling.fit import Fit

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Trial:
    """One trial: its result (None while it has none), loss curves and probes.

    `train` and `validation` are (step, nats per token), `probes` (step, values by name); steps ascend and occur once.
    """

    label: str
    status: TrialStatus
    result: TrialResult | None
    N: float | None
    train: Curve
    validation: Curve
    probes: list[tuple[int, dict[str, float]]]
    command: str

    @property
    def finished(self) -> bool:
        """Whether it has a result that is not a divergence."""
        return self.status.state == "finished"

    @property
    def D(self) -> float | None:
        """Unique tokens; None without a result."""
        return None if self.result is None else float(self.result.data.unique_tokens)

    @property
    def seed(self) -> int | None:
        return None if self.result is None else self.result.seed


@dataclass(frozen=True)
class Sweep(Analysis):
    """A sweep's folder, read once: its fit, and every trial."""

    folder: Path
    configuration: str
    trials: list[Trial]
    radius_experiments: list[dict[str, Any]]

    @cached_property
    def shown(self) -> list[Trial]:
        """Trials with a result, by N, D and seed: those that figures show."""
        return sorted((t for t in self.trials if t.N and t.D), key=lambda t: (t.N or 0, t.D or 0, t.seed or 0))

    @cached_property
    def finished(self) -> list[Trial]:
        """Trials that finished, by N, D and seed."""
        return [trial for trial in self.shown if trial.finished]

    @cached_property
    def sizes(self) -> list[float]:
        """Every N, ascending, those of diverged trials too."""
        return sorted({trial.N for trial in self.shown if trial.N})

    @cached_property
    def tokens(self) -> list[float]:
        """Every D, ascending, those of diverged trials too."""
        return sorted({trial.D for trial in self.shown if trial.D})

    def losses(self, key: str) -> list[tuple[float, float, float, str]]:
        """(N, D, loss, what to call the run) of every finished trial that has the loss `key` of a result."""
        found = []
        for trial in self.finished:
            value = getattr(trial.result.losses, key) if trial.result else None
            if value is not None and math.isfinite(value) and trial.N and trial.D:
                called = f"N = {format_size(trial.N)}, D = {format_size(trial.D)}, seed {trial.seed}"
                found.append((trial.N, trial.D, float(value), called))
        return found

    def fact(self, key: str, trials: Sequence[Trial] | None = None) -> float | None:
        """A figure of the corpus that these trials (by default all) agree on; None where they do not."""
        found = self.shown if trials is None else trials
        return common_value([getattr(trial.result.data, key) if trial.result else None for trial in found])


def gather(folder: str | Path, fit: "Fit | None" = None) -> Sweep:
    """Read a sweep.

    Args:
        folder: `<storage>/<name>` of a sweep.
        fit: its estimates where they are at hand; otherwise those of fit.json, made anew if the trials have changed.

    Raises:
        InputError: not a sweep folder, or no finished trial.
    """
    ledger = SweepStore(Path(folder).absolute())
    marker = ledger.path / "sweep.yaml"
    if not marker.is_file():
        raise InputError(f"{folder}: not a sweep folder; give <storage>/<name> of a sweep")
    folders = ledger.all_trials()
    states = Counter(trial_status(place).state for place in folders)
    if not states["finished"]:
        found = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
        raise InputError(f"{folder}: none of its trials has finished ({found or 'it has none'}); nothing to report yet")
    tree = ledger.read_marker()
    document = fit.to_dict() if fit is not None else _fit_document(ledger)
    count = document["settings"]["count"]
    trials = [_read_trial(place, count) for place in folders]
    configuration = yaml.safe_dump({k: v for k, v in tree.items() if k != "format"}, sort_keys=False)
    name = str(tree.get("name", ledger.path.name))
    experiments = _radius_experiments(ledger.path.parent, {trial.label for trial in trials})
    return Sweep(
        name=name,
        fit=bounded(document),
        rows=document["points"],
        facts={},
        folder=ledger.path,
        configuration=configuration,
        trials=trials,
        radius_experiments=experiments,
    )


def _radius_experiments(storage: Path, labels: set[str]) -> list[dict[str, Any]]:
    """Summaries of the radius experiments beside the sweep that measured one of its trials."""
    found = (_read_json(file) for file in sorted(storage.glob("*/summary.json")))
    return [item for item in found if item is not None and item.get("model") in labels and "spreads" in item]


def _fit_document(ledger: SweepStore) -> dict[str, Any]:
    """fit.json where it rests on the trials that are finished now, otherwise a new fit, written there."""
    file = ledger.path / "fit.json"
    document = _read_json(file)
    if document is not None and _is_current(document, ledger.path):
        return document
    from amscale.scaling.fit import fit_sweep

    settings = ledger.fit_settings()
    fit = fit_sweep(ledger.path, settings.count, settings.window, settings.threshold, settings.hypotheses)
    fit.write(file)
    return fit.to_dict()


def _read_json(file: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no file or no whole object in it."""
    if not file.is_file():
        return None
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _is_current(document: dict[str, Any], folder: Path) -> bool:
    """Whether these estimates are this version's, of the very trials that are finished now."""
    from amscale.scaling.read_sweep import read_sweep

    if document.get("format") != 1 or document.get("amscale") != amscale.__version__:
        return False
    if not all("group" in estimate for estimate in document["estimates"]):
        return False
    table = read_sweep(folder, document["settings"]["count"])
    now = {(point.name, point.N, point.D, point.loss) for point in table.points}
    then = {(point["name"], point["N"], point["D"], point["loss"]) for point in document["points"]}
    return now == then and {name for name, _ in table.left_out} == {item["name"] for item in document["left_out"]}


def _read_trial(place: TrialStore, count: str) -> Trial:
    result = place.read_result()
    train: dict[int, float] = {}
    validation: dict[int, float] = {}
    probes: dict[int, dict[str, float]] = {}
    for record in place.read_metrics(MetricsRecord):
        # A resumed run writes the steps after its checkpoint again: the later record is the one that counts.
        if isinstance(record, TrainRecord):
            train[record.step] = float(record.loss)
        elif isinstance(record, ValidationRecord):
            validation[record.step] = float(record.loss)
        elif isinstance(record, ProbeRecord):
            probes[record.step] = record.values
    return Trial(
        label=place.path.name,
        status=trial_status(place),
        result=result,
        N=counted(result.parameters, count) if result else None,
        train=sorted(train.items()),
        validation=sorted(validation.items()),
        probes=sorted(probes.items()),
        command=_command(place),
    )


def _command(place: TrialStore) -> str:
    """The command of the newest start, from the trial's log."""
    if not place.log.is_file():
        return ""
    text = place.log.read_text(encoding="utf-8", errors="replace")
    starts = [line for line in text.splitlines() if line.startswith(ATTEMPT_MARK)]
    return starts[-1].removeprefix(ATTEMPT_MARK).partition(": ")[2] if starts else ""
