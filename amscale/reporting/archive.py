"""The archive of a sweep: one small file from which every number of its fit and its report is made again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from amscale.config import Experiment
from amscale.errors import InputError
from amscale.reporting.frames import result_row, trials_in
from amscale.scaling.capacity import late_windows
from amscale.scaling.curves import Curves, sum_up
from amscale.scaling.dstar import window_before_least
from amscale.scaling.floor import BLOCKS, end_of
from amscale.scaling.forecast import FOLDER
from amscale.scaling.health import windows
from amscale.scaling.power_law import tried_windows
from amscale.scaling.reading import read_curves
from amscale.trials.archive import write_archive
from amscale.trials.metrics import MetricsRecord, ProbeRecord, TrainMeanRecord, TrainRecord, ValidationRecord
from amscale.trials.storage_errors import output_folder, storage_errors
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

if TYPE_CHECKING:
    from pandas import DataFrame


def archive_sweep(folder: Path, experiment: Experiment, output: Path, probes: str = "all") -> Path:
    """Write `<output>/<name>.parquet` of the sweep in a folder, and return it.

    It has the results, the configuration, the forecasts, validation losses and probes as they are. Train losses are
    means and variances over blocks of steps, cut where an estimate's window begins or ends: estimates are the same but
    for rounding. Weights, checkpoints, logs and what else was recorded of steps are left out, and paths of this
    machine.

    Args:
        folder: of the sweep.
        experiment: its settings.
        output: the folder to write to.
        probes: all records of the probes, only the last of each trial, or none.

    Raises:
        InputError: another value of `probes`, or a folder that cannot be written.
        StorageError: the disk is full.
    """
    import pandas as pd

    if probes not in ("all", "last", "none"):
        raise InputError(f"probes={probes!r}; allowed are all, last, none")
    file = output / f"{experiment.name}.parquet"
    setting, advice = f"output={str(output)!r}", "give another folder by --output"
    with output_folder(output, setting, [file.name], [], advice):
        rows = pd.DataFrame([_row(trial, experiment, probes) for trial in trials_in(folder)])
        with storage_errors(output):
            write_archive(file, _of_one_type(rows), _documents(folder))
    return file


def _documents(folder: Path) -> dict[str, str]:
    """Return the texts of the sweep's own files that estimates read, by their paths in its folder."""
    tree = SweepStore(folder).read_marker()
    found = {"sweep.yaml": yaml.safe_dump(_without_place(tree), sort_keys=False, allow_unicode=True)}
    for file in sorted((folder / FOLDER).glob("*.json")):
        found[f"{FOLDER}/{file.name}"] = file.read_text(encoding="utf-8")
    return found


def _row(trial: TrialStore, experiment: Experiment, probes: str) -> dict[str, Any]:
    result = trial.read_result()
    row: dict[str, Any] = {"trial": trial.path.name}
    if result is not None:
        row |= result_row(result, experiment)
        row["result"] = _compact(trial.result)
    row["metrics"] = _metrics(trial, result.steps if result else None, experiment.fit.window, probes)
    return {**row, "trial": trial.path.name, "spec": _spec(trial)}


def _spec(trial: TrialStore) -> str:
    tree = yaml.safe_load(trial.spec.read_text(encoding="utf-8"))
    if "store" in tree:
        tree["store"] = Path(tree["store"]).name
    return json.dumps(_without_place(tree))


def _compact(file: Path) -> str:
    return json.dumps(_without_place(json.loads(file.read_text(encoding="utf-8"))), separators=(",", ":"))


def _without_place(tree: dict[str, Any]) -> dict[str, Any]:
    """Return settings, with those below them, whose storage does not tell where on this machine it is."""
    found = {key: _without_place(value) if isinstance(value, dict) else value for key, value in tree.items()}
    storage = found.get("storage")
    if isinstance(storage, str) and Path(storage).is_absolute():
        found["storage"] = Path(storage).name
    return found


def _of_one_type(rows: "DataFrame") -> "DataFrame":
    """Make text of the columns that hold several types, such as a setting that is `auto` or a number."""
    for name in rows.columns:
        if rows[name].map(type).nunique() > 1 and rows[name].dtype == object and name not in ("result", "metrics"):
            rows[name] = rows[name].map(lambda value: None if value is None else str(value))
    return rows


def _metrics(trial: TrialStore, steps: int | None, window: float, probes: str) -> str | None:
    """Return the records that estimates and the report read; of a trial without a result, where it has come to."""
    curves = read_curves(trial.path, steps or 0, [])
    if curves is None:
        return None
    if steps is None:
        newest = list(trial.read_metrics(TrainRecord))[-1:]
        return _lines(newest)
    summed = sum_up(curves, _choices(curves, window), [(end_of(curves), BLOCKS)])
    records: list[MetricsRecord] = []
    train = zip(summed.train_steps, summed.train_losses, strict=True)
    if summed.train_counts is None or summed.train_variances is None:
        records += [TrainRecord(step=int(step), loss=float(loss)) for step, loss in train]
    else:
        blocks = zip(train, summed.train_counts, summed.train_variances, strict=True)
        records += [
            TrainMeanRecord(step=int(step), steps=int(count), loss=float(loss), variance=float(variance))
            for (step, loss), count, variance in blocks
        ]
    validation = zip(curves.validation_steps, curves.validation_losses, strict=True)
    records += [ValidationRecord(step=int(step), loss=float(loss)) for step, loss in validation]
    found = {record.step: record for record in trial.read_metrics(ProbeRecord)}
    kept = {"all": sorted(found), "last": sorted(found)[-1:], "none": []}[probes]
    records += [found[step] for step in kept]
    return _lines(records)


def _lines(records: Sequence[MetricsRecord]) -> str:
    lines = [record.model_dump(exclude_unset=True) | {"kind": record.kind} for record in records]  # type: ignore[attr-defined]
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def _choices(curves: Curves, window: float) -> list[Any]:
    """Return the intervals of steps over which estimates take means."""
    choices = [*windows(curves), *late_windows(curves)] if curves.train_steps.size else []
    for width in tried_windows(window):
        try:
            choices.append(window_before_least(curves, width))
        except ValueError:  # no validation loss: no criterion either
            break
    return choices
