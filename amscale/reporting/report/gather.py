"""Everything that a report shows, read from a sweep's folder."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

import amscale
from amscale.errors import InputError
from amscale.ledger import START_MARK, SweepFolder, TrialFolder
from amscale.reporting.results import Standing, standing
from amscale.scaling.table import COUNTS

if TYPE_CHECKING:
    from amscale.scaling.sweep_fit import SweepFit

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Trial:
    """One trial: its result (None while it has none), loss curves and probes.

    `train` and `validation` are (step, nats per token), `probes` (step, values by name); steps ascend and occur once.
    """

    label: str
    standing: Standing
    result: dict[str, Any] | None
    N: float | None
    train: Curve
    validation: Curve
    probes: list[tuple[int, dict[str, float]]]
    command: str

    @property
    def finished(self) -> bool:
        """Whether it has a result that is not a divergence."""
        return self.standing.state == "finished"

    @property
    def D(self) -> float | None:
        """Unique tokens; None without a result."""
        return None if self.result is None else float(self.result["data"]["unique_tokens"])

    @property
    def seed(self) -> int | None:
        return None if self.result is None else self.result["seed"]


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder, read once."""

    folder: Path
    name: str
    configuration: str
    trials: list[Trial]
    fit: dict[str, Any]
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
        """Every N, ascending."""
        return sorted({trial.N for trial in self.shown if trial.N})

    @cached_property
    def tokens(self) -> list[float]:
        """Every D, ascending."""
        return sorted({trial.D for trial in self.shown if trial.D})

    def tone(self, N: float | None) -> str:
        """The colour of one N."""
        return f"size:{self.sizes.index(N)}" if N in self.sizes else "muted"

    def fact(self, key: str, trials: list[Trial] | None = None) -> float | None:
        """A figure of the corpus that all trials agree on, such as `entropy_per_token`; None where they do not."""
        values = {(t.result or {}).get("data", {}).get(key) for t in (self.shown if trials is None else trials)}
        value = values.pop() if len(values) == 1 else None
        return None if value is None else float(value)

    def estimates(self, group: str) -> list[dict[str, Any]]:
        """The estimates of one group."""
        return [estimate for estimate in self.fit["estimates"] if estimate["group"] == group]

    @property
    def groups(self) -> list[str]:
        """The groups of estimates, in their order."""
        return list(dict.fromkeys(estimate["group"] for estimate in self.fit["estimates"]))

    def detail(self, key: str) -> Any:
        """The first estimate's detail of that name, or None."""
        found = (e["details"][key] for e in self.fit["estimates"] if (e.get("details") or {}).get(key))
        return next(found, None)


def gather(folder: str | Path, fit: "SweepFit | None" = None) -> Sweep:
    """Read a sweep.

    Args:
        folder: `<storage>/<name>` of a sweep.
        fit: its estimates where they are at hand; otherwise those of fit.json, made anew if the trials have changed.

    Raises:
        InputError: not a sweep folder, or no finished trial.
    """
    ledger = SweepFolder(Path(folder).absolute())
    marker = ledger.path / "sweep.yaml"
    if not marker.is_file():
        raise InputError(f"{folder}: not a sweep folder; give <storage>/<name> of a sweep")
    folders = ledger.all_trials()
    if not any((result := place.read_result()) and result.get("state") == "finished" for place in folders):
        raise InputError(f"{folder}: none of its {len(folders)} trials has finished; nothing to report yet")
    text = marker.read_text(encoding="utf-8")
    tree = yaml.safe_load(text)
    document = fit.to_dict() if fit is not None else _fit_document(ledger, tree)
    count = COUNTS[document["settings"]["count"]]
    trials = [_read_trial(place, count) for place in folders]
    configuration = yaml.safe_dump({k: v for k, v in tree.items() if k != "format"}, sort_keys=False)
    name = str(tree.get("name", ledger.path.name))
    experiments = _radius_experiments(ledger.path.parent, {trial.label for trial in trials})
    return Sweep(ledger.path, name, configuration, trials, _bounded(document), experiments)


def _radius_experiments(storage: Path, labels: set[str]) -> list[dict[str, Any]]:
    """Summaries of the radius experiments beside the sweep that measured one of its trials."""
    found = (_read_json(file) for file in sorted(storage.glob("*/summary.json")))
    return [item for item in found if item is not None and item.get("model") in labels and "spreads" in item]


def _fit_document(ledger: SweepFolder, tree: dict[str, Any]) -> dict[str, Any]:
    """fit.json where it rests on the trials that are finished now, otherwise a new fit, written there."""
    file = ledger.path / "fit.json"
    document = _read_json(file)
    if document is not None and _is_current(document, ledger.path):
        return document
    from amscale.config import FitSettings
    from amscale.scaling.sweep_fit import fit_sweep

    settings = FitSettings.model_validate(tree.get("fit") or {})
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


def _bounded(document: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity: a missing end of an interval is that side unbounded."""
    for estimate in document["estimates"]:
        if estimate.get("interval") is not None:
            low, high = estimate["interval"]
            estimate["interval"] = (-math.inf if low is None else low, math.inf if high is None else high)
    return document


def _read_trial(place: TrialFolder, count: tuple[str, ...]) -> Trial:
    result = place.read_result()
    curves: dict[str, dict[int, float]] = {"train": {}, "validation": {}}
    probes: dict[int, dict[str, float]] = {}
    for record in _records(place):
        kind, step = record.get("kind"), int(record["step"])
        # A resumed run writes the steps after its checkpoint again: the later record is the one that counts.
        if kind in curves and record.get("loss") is not None:
            curves[kind][step] = float(record["loss"])
        elif kind == "probe":
            probes[step] = record["values"]
    return Trial(
        label=place.path.name,
        standing=standing(place),
        result=result,
        N=float(sum(result["parameters"][part] for part in count)) if result else None,
        train=sorted(curves["train"].items()),
        validation=sorted(curves["validation"].items()),
        probes=sorted(probes.items()),
        command=_command(place),
    )


def _records(place: TrialFolder) -> list[dict[str, Any]]:
    """Records of metrics.jsonl; a line that a crash tore is passed over, and the fit's warnings name it."""
    if not place.metrics.is_file():
        return []
    records = []
    for line in place.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "step" in record:
            records.append(record)
    return records


def _command(place: TrialFolder) -> str:
    """The command of the newest start, from the trial's log."""
    if not place.log.is_file():
        return ""
    text = place.log.read_text(encoding="utf-8", errors="replace")
    starts = [line for line in text.splitlines() if line.startswith(START_MARK)]
    return starts[-1].removeprefix(START_MARK).partition(": ")[2] if starts else ""
