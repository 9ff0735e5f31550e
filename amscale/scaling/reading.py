"""Read points from the finished trials of a sweep's folder."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from amscale.errors import InputError, no_sweep
from amscale.files import read_text
from amscale.scaling.answer import range_of
from amscale.scaling.curves import Array, Curves
from amscale.scaling.points import COUNTS, Point, PointTable, check_count, counted
from amscale.scaling.provenance import mixtures
from amscale.scaling.several_corpora import select_trials
from amscale.scaling.variants import choose_variants, following_settings, tuned_settings
from amscale.trials.metrics import TrainMeanRecord, TrainRecord, ValidationRecord, read_records
from amscale.trials.records import TrialResult


def read_sweep(
    folder: str | Path,
    count: str = "non_embedding",
    where: str | None = None,
    axes: Sequence[str] | None = None,
    every_setting: bool = False,
) -> PointTable:
    """Return the finished trials of a sweep as points; other trials are left out by name.

    Trials of one corpus, N and D that differ in another setting are told apart by their mean over seeds: those of the
    setting with the least mean are used. Settings that are tuned are no reason to leave a trial out.

    Args:
        folder: `<storage>/<name>` of a sweep.
        count: convention for N.
        where: settings that the trials must have, `key=value` joined by commas; all trials if None.
        axes: dotted keys of settings that are tuned by cell, which the points keep; by default those under `tune` in
            the sweep's configuration.
        every_setting: keep the trials of every setting, for a reader who tells them apart.

    Raises:
        InputError: no such folder, no trial in it, an incomplete result, an unknown `count`, or as `select_trials`.
    """
    check_count(count)
    trials = Path(folder) / "trials"
    if not trials.is_dir():
        raise no_sweep(folder)
    paths = sorted(path for path in trials.iterdir() if path.is_dir())
    if not paths:
        raise InputError(f"{trials} holds no trial; run the sweep first")
    table = PointTable(str(folder), f"N = {count} ({' + '.join(COUNTS[count])})", [])
    for path in paths:
        result = _read_result(path, count, table)
        if result is not None:
            _add(path, result, count, table)
    if table.points:
        table = select_trials(table, where)
    chosen = tuned_settings(folder) if axes is None else tuple(axes)
    if not every_setting:
        choose_variants(table, chosen, following_settings(folder))
    families = {str(point.result.shape.family) for point in table.points if point.result}
    if len(families) > 1:
        table.warnings.append(f"the points mix model families: {', '.join(sorted(families))}")
    table.warnings += mixtures(table.points) + _late_evaluations(table.points)
    return table


def _late_evaluations(points: Sequence[Point]) -> list[str]:
    """Return a warning where most runs had their least validation loss before they were first validated."""
    known = [curves for point in points if (curves := point.curves) and len(curves.validation_steps) > 1]
    first = [curves for curves in known if int(np.argmin(curves.validation_losses)) == 0]
    if 2 * len(first) <= len(known):
        return []
    steps = range_of([float(curves.validation_steps[0]) for curves in first])
    return [
        f"validation loss was least at its first evaluation (step {steps}) in {len(first)} of {len(known)} trials: the "
        "least lies before it, and what rests on it depends on that step; set train.validate_every lower"
    ]


def _read_result(path: Path, count: str, table: PointTable) -> TrialResult | None:
    file = path / "result.json"
    if not file.is_file():
        table.left_out.append((path.name, "not finished"))
        return None
    result = TrialResult.from_json(read_text(file), file)
    if result.state != "finished":
        table.left_out.append((path.name, result.state + (f": {result.reason}" if result.reason else "")))
        N, D = counted(result.parameters, count), float(result.data.unique_tokens)
        table.hopeless.append(Point(path.name, N, D, math.inf, result.seed, result=result))
        return None
    return result


def _add(path: Path, result: TrialResult, count: str, table: PointTable) -> None:
    N, D = counted(result.parameters, count), float(result.data.unique_tokens)
    loss, step = result.losses.validation_least, result.losses.validation_least_step
    if N <= 0 or D <= 0:
        raise InputError(f"{path / 'result.json'} has N = {N:g}, D = {D:g}; both must be positive")
    if loss is None or not math.isfinite(loss) or loss <= 0:
        table.left_out.append((path.name, f"least validation loss is {loss}"))
        return
    curves = read_curves(path, result.steps, table.warnings)
    seen = result.data.tokens_seen
    tokens = seen * step / result.steps if seen and step and result.steps else None
    table.points.append(Point(path.name, N, D, float(loss), result.seed, result.flops.total, tokens, curves, result))


def read_curves(path: Path, steps: int, warnings: list[str]) -> Curves | None:
    """Return the loss curves of the trial in a folder, None without any; add a line for each torn one to `warnings`."""
    file = path / "metrics.jsonl"
    if not file.is_file():
        warnings.append(f"{path.name}: no metrics.jsonl")
        return None
    train: dict[int, float] = {}
    blocks: dict[int, tuple[int, float]] = {}
    validation: dict[int, float] = {}
    for number, record in enumerate(read_records(file), start=1):
        if record is None:
            warnings.append(f"{path.name}: line {number} of metrics.jsonl is torn and was ignored")
        # A resumed run writes the steps after its checkpoint again: the later record is the one that counts.
        elif isinstance(record, TrainRecord):
            train[record.step] = float(record.loss)
        elif isinstance(record, TrainMeanRecord):
            train[record.step] = float(record.loss)
            blocks[record.step] = record.steps, float(record.variance)
        elif isinstance(record, ValidationRecord):
            validation[record.step] = float(record.loss)
    curves = Curves(*_arrays(train), *_arrays(validation), steps)
    if not blocks:
        return curves
    counts, variances = np.array([blocks[step] for step in sorted(blocks)], dtype=float).T
    return replace(curves, train_counts=counts, train_variances=variances)


def _arrays(losses: dict[int, float]) -> tuple[Array, Array]:
    steps = sorted(losses)
    return np.array(steps, dtype=float), np.array([losses[step] for step in steps], dtype=float)
