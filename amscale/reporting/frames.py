"""The results and records of a sweep as rows of tables, and tables as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.config import Experiment
from amscale.errors import InputError
from amscale.scaling.points import counted
from amscale.trials.metrics import MetricsRecord, ProbeRecord, TrainMeanRecord, TrainRecord, ValidationRecord
from amscale.trials.records import TrialResult
from amscale.trials.storage_errors import output_folder, storage_errors
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

if TYPE_CHECKING:
    from pandas import DataFrame

KINDS: dict[str, type[MetricsRecord]] = {
    "train": TrainRecord,
    "train_mean": TrainMeanRecord,
    "validation": ValidationRecord,
    "probe": ProbeRecord,
}


def trials_in(path: Path) -> list[TrialStore]:
    """Return the trials of a sweep in a folder, by N, D and seed."""
    return SweepStore(path).all_trials()


def result_row(result: TrialResult, experiment: Experiment) -> dict[str, Any]:
    """Flatten a result into a row; the grid's further axes have columns of their dotted keys."""
    row = {
        "trial": result.label,
        "state": result.state,
        "family": result.shape.family,
        "N": counted(result.parameters, experiment.fit.count),
        "D": result.data.unique_tokens,
        "seed": result.seed,
        "steps": result.steps,
        "tokens_seen": result.data.tokens_seen,
        "train_loss": result.losses.train_last,
        "train_loss_least": result.losses.train_least,
        "validation_loss": result.losses.validation_last,
        "validation_loss_least": result.losses.validation_least,
        "entropy_per_token": result.data.entropy_per_token,
        "parameters": result.parameters.total,
        "flops": result.flops.total,
        "wall_seconds": result.time.wall_seconds,
        "device_seconds": result.time.device_seconds,
        "device_kwh": result.electricity.device_kwh if result.electricity else None,
        "host_kwh": result.electricity.host_kwh if result.electricity else None,
        "device": result.engine.device,
        "precision": result.engine.precision,
    }
    return row | {key: result.setting(key) for key in experiment.grid if key != "seed"}


def record_rows(trials: Sequence[TrialStore], kind: str) -> list[dict[str, Any]]:
    """Return the records of one kind, a row each; the values of a probe become columns.

    Raises:
        InputError: no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"kind={kind!r}; allowed are {', '.join(KINDS)}")
    return [
        {
            "trial": trial.path.name,
            **record.model_dump(exclude={"kind", "values", "reasons"}),
            **getattr(record, "values", {}),
        }
        for trial in trials
        for record in trial.read_metrics(KINDS[kind])
    ]


def write_frames(frames: "Mapping[str, DataFrame]", folder: Path, form: str) -> "dict[str, Path]":
    """Write tables that have rows into a folder; return the files by their names.

    Args:
        frames: tables by name.
        folder: made if missing.
        form: csv or parquet.

    Raises:
        InputError: another form, or a folder that cannot be made or written.
        StorageError: the disk is full.
    """
    if form not in ("csv", "parquet"):
        raise InputError(f"format={form!r}; allowed are csv, parquet")
    written = {}
    files = [f"{name}.{form}" for name in frames]
    setting, advice = f"output={str(folder)!r}", "give another folder by --output"
    with storage_errors(folder), output_folder(folder, setting, files, [], advice):
        for name, frame in frames.items():
            if len(frame):
                written[name] = folder / f"{name}.{form}"
                if form == "csv":
                    frame.to_csv(written[name], index=False)
                else:
                    frame.to_parquet(written[name], index=False)
    return written
