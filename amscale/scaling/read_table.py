"""Points from a CSV or Parquet file with columns for N, D (or FLOPs) and loss."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amscale.errors import InputError
from amscale.scaling.table import Point, Table

if TYPE_CHECKING:
    import pandas as pd


def read_table(
    path: str | Path,
    n_column: str = "N",
    d_column: str = "D",
    loss_column: str = "loss",
    flops_column: str = "flops",
    seed_column: str = "seed",
) -> Table:
    """Rows of `path` as points; D = FLOPs / (6 N) where there is no column for D.

    A row without a finite loss, and a row that repeats another in full, are left out by name.

    Raises:
        InputError: the file or a column is missing, N, D or a loss is not a positive number, or all N are alike.
    """
    path = Path(path)
    frame = _load(path)
    columns = ", ".join(map(str, frame.columns))
    for flag, column in (("n_column", n_column), ("loss_column", loss_column)):
        if column not in frame.columns:
            raise InputError(f"{path} has no column {column!r}; its columns are {columns}: name one with --{flag}")
    table = Table(str(path), f"N as given in column {n_column!r}", [])
    N = _positive(frame, n_column, path)
    flops = _positive(frame, flops_column, path) if flops_column in frame.columns else None
    if d_column in frame.columns:
        D = _positive(frame, d_column, path)
    elif flops is not None and d_column == "D":
        D = flops / (6 * N)
        table.warnings.append(f"D is not in the file: taken as {flops_column} / (6 {n_column})")
    else:
        raise InputError(
            f"{path} has no column {d_column!r}; its columns are {columns}: name one with --d_column, or --flops_column"
        )
    loss = _numbers(frame, loss_column, path)
    seeds = _numbers(frame, seed_column, path) if seed_column in frame.columns else None
    _collect(table, N, D, loss, flops, seeds)
    if len({point.N for point in table.points}) < 2:
        raise InputError(
            f"{path} has {len(table.points)} usable rows and fewer than two sizes N; a fit of N and D needs more"
        )
    return table


def _load(path: Path) -> "pd.DataFrame":
    import pandas as pd

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
    return frame


def _numbers(frame: "pd.DataFrame", column: str, path: Path) -> np.ndarray:
    import pandas as pd

    values = pd.to_numeric(frame[column], errors="coerce")
    bad = values.isna() & frame[column].notna()
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{path}: row {row + 1}, column {column!r} holds {frame[column].iloc[row]!r}; a number is needed"
        )
    return values.to_numpy(dtype=float)


def _positive(frame: "pd.DataFrame", column: str, path: Path) -> np.ndarray:
    values = _numbers(frame, column, path)
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if bad.size:
        raise InputError(
            f"{path}: row {bad[0] + 1}, column {column!r} holds {values[bad[0]]}; it must be a positive number"
        )
    return values


def _collect(
    table: Table, N: np.ndarray, D: np.ndarray, loss: np.ndarray, flops: np.ndarray | None, seeds: np.ndarray | None
) -> None:
    seen: dict[tuple[float, ...], str] = {}
    for row in range(len(N)):
        name = f"row {row + 1}"
        seed = int(seeds[row]) if seeds is not None and np.isfinite(seeds[row]) else None
        if not np.isfinite(loss[row]):
            table.left_out.append((name, f"loss is {loss[row]}"))
            continue
        if loss[row] <= 0:
            raise InputError(f"{table.source}: {name} has loss {loss[row]:g}; a cross-entropy must be positive")
        key = (N[row], D[row], loss[row], -1.0 if seed is None else float(seed))
        if key in seen:
            table.left_out.append((name, f"repeats {seen[key]} exactly"))
            continue
        seen[key] = name
        table.points.append(
            Point(name, N[row], D[row], loss[row], seed, flops=None if flops is None else float(flops[row]))
        )
    if table.left_out:
        table.warnings.append(f"{len(table.left_out)} of {len(N)} rows left out: " + "; ".join(table.reasons[:5]))
