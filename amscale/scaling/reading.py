"""Read points: finished trials of a sweep's folder, or the rows of a CSV or Parquet file or a DataFrame."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amscale.errors import InputError
from amscale.files import read_text
from amscale.scaling.points import COUNTS, Array, Curves, Point, PointTable, check_count, counted
from amscale.scaling.provenance import mixtures
from amscale.scaling.several_corpora import by_corpus, select_trials
from amscale.trials.metrics import TrainRecord, ValidationRecord, read_records
from amscale.trials.records import TrialResult

if TYPE_CHECKING:
    import pandas as pd


def read_sweep(folder: str | Path, count: str = "non_embedding", where: str | None = None) -> PointTable:
    """Return the finished trials of a sweep as points; other trials are left out by name.

    Where several trials share corpus, N, D and seed (another key is an axis of the grid), only the one of least
    validation loss is used.

    Args:
        folder: `<storage>/<name>` of a sweep.
        count: convention for N.
        where: settings that the trials must have, `key=value` joined by commas; all trials if None.

    Raises:
        InputError: no such folder, no trial in it, an unknown `count`, an incomplete result, or as `select_trials`.
    """
    check_count(count)
    trials = Path(folder) / "trials"
    if not trials.is_dir():
        raise InputError(f"{folder} is not a sweep folder: it has no folder 'trials'")
    paths = sorted(path for path in trials.iterdir() if path.is_dir())
    if not paths:
        raise InputError(f"{trials} holds no trial; run the sweep first")
    table = PointTable(str(folder), f"N = {count} ({' + '.join(COUNTS[count])})", [])
    for path in paths:
        result = _read_result(path, table)
        if result is not None:
            _add(path, result, count, table)
    if table.points:
        table = select_trials(table, where)
    _keep_best_of_repeats(table)
    families = {str(point.result.shape.family) for point in table.points if point.result}
    if len(families) > 1:
        table.warnings.append(f"the points mix model families: {', '.join(sorted(families))}")
    table.warnings += mixtures(table.points)
    return table


def _read_result(path: Path, table: PointTable) -> TrialResult | None:
    file = path / "result.json"
    if not file.is_file():
        table.left_out.append((path.name, "not finished"))
        return None
    result = TrialResult.from_json(read_text(file), file)
    if result.state != "finished":
        table.left_out.append((path.name, result.state + (f": {result.reason}" if result.reason else "")))
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
    curves = _read_curves(path, result.steps, table)
    seen = result.data.tokens_seen
    tokens = seen * step / result.steps if seen and step and result.steps else None
    table.points.append(Point(path.name, N, D, float(loss), result.seed, result.flops.total, tokens, curves, result))


def _read_curves(path: Path, steps: int, table: PointTable) -> Curves | None:
    file = path / "metrics.jsonl"
    if not file.is_file():
        table.warnings.append(f"{path.name}: no metrics.jsonl")
        return None
    train: dict[int, float] = {}
    validation: dict[int, float] = {}
    for number, record in enumerate(read_records(file), start=1):
        if record is None:
            table.warnings.append(f"{path.name}: line {number} of metrics.jsonl is torn and was ignored")
        # A resumed run writes the steps after its checkpoint again: the later record is the one that counts.
        elif isinstance(record, TrainRecord):
            train[record.step] = float(record.loss)
        elif isinstance(record, ValidationRecord):
            validation[record.step] = float(record.loss)
    return Curves(*_arrays(train), *_arrays(validation), steps)


def _arrays(losses: dict[int, float]) -> tuple[Array, Array]:
    steps = sorted(losses)
    return np.array(steps, dtype=float), np.array([losses[step] for step in steps], dtype=float)


def _keep_best_of_repeats(table: PointTable) -> None:
    cells = {p.name: (label, p.N, p.D, p.seed) for label, each in by_corpus(table).items() for p in each.points}
    best: dict[tuple[str, float, float, int | None], Point] = {}
    for point in table.points:
        cell = cells[point.name]
        if cell not in best or point.loss < best[cell].loss:
            best[cell] = point
    kept = {point.name for point in best.values()}
    repeats = [point for point in table.points if point.name not in kept]
    for point in repeats:
        winner = best[cells[point.name]]
        table.left_out.append((point.name, f"same N, D and seed as {winner.name}, which has the lower validation loss"))
    if repeats:
        table.warnings.append(f"{len(repeats)} trials share N, D and seed with a better one and were left out")
    table.points = [point for point in table.points if point.name in kept]


LOSS_UNITS = ("nats", "bits", "bits_per_byte")


def nats_per_token(unit: str, bytes_per_token: float | None) -> float:
    """Return the factor that turns a loss into nats per token.

    Args:
        unit: nats or bits, both per token, or bits_per_byte.
        bytes_per_token: mean bytes of a token; needed for bits_per_byte, and only there.

    Raises:
        InputError: the unit is unknown, or bytes per token are missing or not wanted.
    """
    if unit not in LOSS_UNITS:
        raise InputError(f"loss_unit={unit!r} is not a unit of loss; choose one of {', '.join(LOSS_UNITS)}")
    if unit == "bits_per_byte":
        number = isinstance(bytes_per_token, int | float) and not isinstance(bytes_per_token, bool)
        if bytes_per_token is None or not number or not 0 < bytes_per_token < math.inf:
            raise InputError(f"loss_unit=bits_per_byte needs --bytes_per_token, above 0 (got {bytes_per_token!r})")
        return math.log(2) * bytes_per_token
    if bytes_per_token is not None:
        raise InputError(f"bytes_per_token={bytes_per_token!r} is for loss_unit=bits_per_byte, not for {unit}")
    return 1.0 if unit == "nats" else math.log(2)


def read_table(
    source: "str | Path | pd.DataFrame",
    n_column: str = "N",
    d_column: str = "D",
    loss_column: str = "loss",
    flops_column: str = "flops",
    seed_column: str = "seed",
    tokens_column: str = "tokens",
    loss_unit: str = "nats",
    bytes_per_token: float | None = None,
) -> PointTable:
    """Read the rows of a file or a DataFrame as points.

    A row without a finite loss, and a row that repeats another in full, are left out by name.

    Args:
        n_column: column of N. d_column: column of D, unique tokens; where it is absent, D is the tokens seen, or else
            FLOPs / (6 N). loss_column: column of the loss. flops_column: column of training FLOPs. seed_column: column
            of the seed. tokens_column: column of the tokens seen.
        loss_unit, bytes_per_token: as for `nats_per_token`.

    Raises:
        InputError: the file or a column is missing, N, D or a loss is not a positive number, all N are equal, or the
            unit of the loss is unclear.
    """
    factor = nats_per_token(loss_unit, bytes_per_token)
    path, frame = _load(source)
    columns = ", ".join(map(str, frame.columns))
    for flag, column in (("n_column", n_column), ("loss_column", loss_column)):
        if column not in frame.columns:
            end = f"name one with --{flag}" if len(frame.columns) > 1 else "a .csv has commas between them, a .tsv tabs"
            raise InputError(f"{path} has no column {column!r}; its columns are {columns}: {end}")
    for flag, column, default in (("tokens_column", tokens_column, "tokens"), ("seed_column", seed_column, "seed")):
        if column not in frame.columns and column != default:
            raise InputError(f"{path} has no column {column!r}; its columns are {columns} (--{flag})")
    unit = "nats per token" if factor == 1 else f"nats per token, {factor:.4g} times the file's {loss_unit}"
    table = PointTable(path, f"N as given in column {n_column!r}; loss in {unit}", [])
    used = (n_column, d_column, loss_column, flops_column, seed_column, tokens_column)
    twice = [column for column in used if f"{column}.1" in frame.columns]
    if twice:
        table.warnings.append(f"of the columns called {', '.join(twice)} the first is used")
    N = _positive(frame, n_column, path)
    flops = _positive(frame, flops_column, path) if flops_column in frame.columns else None
    tokens = _positive(frame, tokens_column, path) if tokens_column in frame.columns else None
    if d_column in frame.columns:
        D = _positive(frame, d_column, path)
    elif d_column == "D" and tokens is not None:
        D, tokens = tokens, None
        table.warnings.append(f"D is not in the file: taken as the tokens seen, {tokens_column}, each seen once")
    elif d_column == "D" and flops is not None:
        D = flops / (6 * N)
        table.warnings.append(f"D is not in the file: taken as {flops_column} / (6 {n_column})")
    else:
        raise InputError(
            f"{path} has no column {d_column!r}; its columns are {columns}: name one with --d_column, or --flops_column"
        )
    loss = factor * _numbers(frame, loss_column, path)
    seeds = _whole(frame, seed_column, path) if seed_column in frame.columns else None
    _collect(table, {"N": N, "D": D, "loss": loss, "flops": flops, "seed": seeds, "tokens": tokens})
    if len({point.N for point in table.points}) < 2:
        raise InputError(
            f"{path} has {len(table.points)} usable rows and fewer than two sizes N; a fit of N and D needs more"
        )
    return table


def _load(source: "str | Path | pd.DataFrame") -> "tuple[str, pd.DataFrame]":
    """Return what messages call the source, and its rows."""
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        if source.empty:
            raise InputError("the DataFrame has no rows")
        return "DataFrame", source.reset_index(drop=True)
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a sweep folder, or a CSV or Parquet file with N, D and loss")
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            frame = pd.read_parquet(path)
        else:
            frame = pd.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",")
    except Exception as error:  # the readers raise many kinds; each means the same to the user
        raise InputError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error
    if frame.empty:
        raise InputError(f"{path} has no rows")
    return str(path), frame


def _numbers(frame: "pd.DataFrame", column: str, path: str) -> Array:
    import pandas as pd

    values = pd.to_numeric(frame[column], errors="coerce")
    bad = values.isna() & frame[column].notna()
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{path}: row {row + 1}, column {column!r} holds {frame[column].iloc[row]!r}; a number is needed"
        )
    return values.to_numpy(dtype=float)


def _whole(frame: "pd.DataFrame", column: str, path: str) -> Array:
    """Return whole numbers; a missing one stays missing."""
    values = _numbers(frame, column, path)
    bad = np.flatnonzero(~np.isnan(values) & (values != np.round(values)))
    if bad.size:
        raise InputError(
            f"{path}: row {bad[0] + 1}, column {column!r} holds {values[bad[0]]}; a whole number is needed"
        )
    return values


def _positive(frame: "pd.DataFrame", column: str, path: str) -> Array:
    values = _numbers(frame, column, path)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if bad.size:
        raise InputError(
            f"{path}: row {bad[0] + 1}, column {column!r} holds {values[bad[0]]}; it must be a positive number"
        )
    return values


def _collect(table: PointTable, columns: dict[str, Array | None]) -> None:
    """Add points from the columns N, D, loss and, where there are any, flops, seed and tokens."""
    import pandas as pd

    frame = pd.DataFrame({name: values for name, values in columns.items() if values is not None})
    finite = np.isfinite(frame["loss"].to_numpy())
    negative = np.flatnonzero(finite & (frame["loss"].to_numpy() <= 0))
    if negative.size:
        worst = int(negative[0])
        raise InputError(
            f"{table.source}: row {worst + 1} has loss {frame['loss'].iloc[worst]:g}; a cross-entropy must be positive"
        )
    groups = frame.groupby(list(frame.columns), sort=False, dropna=False)
    first = groups.ngroup().to_numpy()
    _, leaders = np.unique(first, return_index=True)
    repeats = finite & (leaders[first] != np.arange(len(frame)))
    for row in np.flatnonzero(~finite | repeats).tolist():
        reason = (
            f"repeats row {leaders[first[row]] + 1} exactly" if repeats[row] else f"loss is {frame['loss'].iloc[row]}"
        )
        table.left_out.append((f"row {row + 1}", reason))
    kept = np.flatnonzero(finite & ~repeats)
    values = {
        name: (frame[name].to_numpy()[kept].tolist() if name in frame else [None] * len(kept)) for name in columns
    }
    seeds = [None if seed is None or not math.isfinite(seed) else int(seed) for seed in values["seed"]]
    rows = zip(
        kept.tolist(), values["N"], values["D"], values["loss"], seeds, values["flops"], values["tokens"], strict=True
    )
    table.points.extend(Point(f"row {row + 1}", *others) for row, *others in rows)
    if table.left_out:
        reasons = "; ".join(table.reasons[:5])
        table.warnings.append(f"{len(table.left_out)} of {len(frame)} rows left out: {reasons}")
