"""Forecasts: losses written down before they are measured, and the score of them once they are.

A forecast is a JSON file: its date, the law and its parameters, a hash of the points that it rests on, and for each
cell the loss, its 95 % interval and the loss that would follow from other floors. Those of a sweep lie in its
`forecasts` folder, and every later fit of the sweep scores them.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import amscale
from amscale.errors import InputError
from amscale.files import read_text, write_atomically
from amscale.scaling.estimate import to_json_types
from amscale.scaling.laws import predict
from amscale.scaling.points import PointTable
from amscale.scaling.prediction import Predictions, cells_to_rows, predict_rows, reach_text
from amscale.settings import format_size, parse_number
from amscale.trials.storage_errors import storage_errors

FOLDER = "forecasts"
"""Where the forecasts of a sweep lie, in its folder."""

_SAME_CELL = 0.05
"""N, D and tokens seen within this share of those forecast are the cell: a family of models has no shape of every N."""


@dataclass(frozen=True)
class Cell:
    """A cell to forecast: N parameters, D unique tokens, and the tokens seen where they are not D."""

    N: float
    D: float
    tokens: float | None = None


def parse_cells(text: str) -> list[Cell]:
    """Return the cells of `N=1B,D=20B` or of several joined by semicolons; `tokens=80B` where data repeat.

    Raises:
        InputError: the text is no such list.
    """
    cells = []
    for part in filter(None, map(str.strip, str(text).split(";"))):
        found: dict[str, float] = {}
        for item in part.split(","):
            name, equals, value = map(str.strip, item.partition("="))
            try:
                number = parse_number(value)
            except ValueError:
                number = math.nan
            if not equals or name not in ("N", "D", "tokens") or name in found or not 0 < number < 1e40:
                raise InputError(
                    f"forecast={text!r}: {item!r} is not understood; write cells as N=1B,D=20B (and tokens=80B where "
                    "data repeat), several joined by semicolons"
                )
            found[name] = number
        if not {"N", "D"} <= set(found):
            raise InputError(f"forecast={text!r}: {part!r} needs both N and D, such as N=1B,D=20B")
        cells.append(Cell(found["N"], found["D"], found.get("tokens")))
    if not cells:
        raise InputError(f"forecast={text!r} names no cell; write N=1B,D=20B")
    return cells


def forecast(
    table: PointTable, cells: Sequence[Cell], law: str | None = None, resamples: int = 400, seed: int = 0
) -> dict[str, Any]:
    """Return the forecast of cells from the points of a table, as its file holds it.

    Raises:
        InputError: as `predict_rows`; or a cell is among the points already.
    """
    known = [cell for cell in cells if _measured(table, cell)]
    if known:
        raise InputError(
            f"forecast: N={format_size(known[0].N)}, D={format_size(known[0].D)} is among the points already; "
            "a forecast is of a cell that has not been measured"
        )
    N, D = np.array([cell.N for cell in cells]), np.array([cell.D for cell in cells])
    tokens = np.array([cell.D if cell.tokens is None else cell.tokens for cell in cells])
    found = predict_rows(table, cells_to_rows(table, N, D, tokens), law, resamples, seed)
    return {
        "format": 1,
        "kind": "forecast",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "amscale": amscale.__version__,
        "source": table.source,
        "convention": table.convention,
        "points": len(table.points),
        "data_sha256": data_hash(table),
        "law": found.law,
        "formula": found.fit.law.formula,
        "parameters": to_json_types(found.fit.parameters),
        "reach": reach_text(found),
        "cells": [_cell(found, index, cell) for index, cell in enumerate(cells)],
    }


def _cell(found: Predictions, index: int, cell: Cell) -> dict[str, Any]:
    return {
        "N": cell.N,
        "D": cell.D,
        "tokens": cell.tokens,
        "flops": float(found.rows.flops[index]),
        "loss": float(found.loss[index]),
        "interval": [float(found.low[index]), float(found.high[index])],
        "by_floor": [{"floor": floor, "loss": float(losses[index])} for floor, losses in found.by_floor],
        "by_law": {law: float(losses[index]) for law, losses in found.others.items()},
    }


def data_hash(table: PointTable) -> str:
    """Return the SHA-256 of the points (N, D, loss to nine digits), in any order."""
    lines = sorted(f"{point.N:.9g},{point.D:.9g},{point.loss:.9g}" for point in table.points)
    return sha256("\n".join(lines).encode()).hexdigest()


def save_forecast(document: dict[str, Any], path: Path) -> Path:
    """Write a forecast to a new file: one that exists is never changed.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    if path.suffix != ".json":
        path = path.with_name(f"{path.name}.json")
    if path.exists():
        raise InputError(f"save={str(path)!r} exists, and a forecast is not changed afterwards; give another name")
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return path


def read_forecast(path: Path) -> dict[str, Any]:
    """Return a forecast's file.

    Raises:
        InputError: there is none, or it holds something else.
    """
    if not path.is_file():
        raise InputError(f"score={str(path)!r} is not a file; give one that --forecast … --save has written")
    try:
        document = json.loads(read_text(path))
        if document["kind"] != "forecast" or not document["cells"]:
            raise ValueError("no forecast")
        for cell in document["cells"]:
            low, high = cell["interval"]
            values = (cell["N"], cell["D"], cell["loss"], low, high)
            if not all(isinstance(value, int | float) and value > 0 for value in values):
                raise ValueError("a cell without numbers")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no forecast ({error}); give one that --forecast … --save has written") from None
    return dict(document)


def score_forecast(document: dict[str, Any], table: PointTable, name: str = "") -> dict[str, Any]:
    """Compare a forecast with the points that came: error, and whether the interval held the loss, for each cell.

    The forecast of a cell is moved to the N and D that were run by its law; its seeds are averaged.
    """
    scored = []
    for cell in document["cells"]:
        points = _measured(table, Cell(cell["N"], cell["D"], cell.get("tokens")))
        row: dict[str, Any] = {key: cell[key] for key in ("N", "D", "loss", "interval")}
        if points:
            measured = float(np.mean([point.loss for point in points]))
            shift = _shift(document, cell, points[0].N, points[0].D)
            low, high = (shift * end for end in cell["interval"])
            loss = shift * cell["loss"]
            row |= {"loss": loss, "interval": [low, high], "measured": measured, "runs": len(points)}
            row |= {"error": loss / measured - 1, "inside": low <= measured <= high}
        scored.append(row)
    done = [row for row in scored if "measured" in row]
    return {
        "name": name,
        "made": document.get("made"),
        "law": document.get("law"),
        "cells": scored,
        "measured": len(done),
        "inside": sum(row["inside"] for row in done),
        "rms_error": math.sqrt(sum(row["error"] ** 2 for row in done) / len(done)) if done else None,
    }


def score_folder(folder: Path, table: PointTable) -> list[dict[str, Any]]:
    """Return the scores of all forecasts of a sweep's folder, the oldest first."""
    paths = sorted((folder / FOLDER).glob("*.json")) if (folder / FOLDER).is_dir() else []
    return [score_forecast(read_forecast(path), table, path.name) for path in paths]


def _measured(table: PointTable, cell: Cell) -> list[Any]:
    """Return the points of a cell: of those near it in N, D and the tokens seen, those of the nearest N and D."""

    def near(value: float, wanted: float) -> bool:
        return abs(math.log(value / wanted)) < _SAME_CELL

    found = [point for point in table.points if near(point.N, cell.N) and near(point.D, cell.D)]
    if cell.tokens is not None:
        found = [point for point in found if point.tokens is None or near(point.tokens, cell.tokens)]
    if not found:
        return []
    best = min(found, key=lambda point: abs(math.log(point.N / cell.N)) + abs(math.log(point.D / cell.D)))
    return [point for point in found if point.N == best.N and point.D == best.D]


def _shift(document: dict[str, Any], cell: dict[str, Any], N: float, D: float) -> float:
    """Return by what the law's loss changes from the cell that was forecast to the one that was run."""
    tokens = cell.get("tokens")
    factor = 1.0 if tokens is None else tokens / cell["D"]
    losses = predict(
        document["law"],
        document["parameters"],
        np.array([cell["N"], N]),
        np.array([cell["D"], D]),
        factor * np.array([cell["D"], D]),
    )
    return float(losses[1] / losses[0])


def score_lines(score: dict[str, Any]) -> list[str]:
    """Return what a score says, one line for the forecast and one for each cell."""
    name = f"forecast {score['name']}".strip()
    lines = [
        f"{name} of {score['made']}, law {score['law']}: {score['measured']} of {len(score['cells'])} cells measured"
    ]
    if score["measured"]:
        lines[0] += (
            f", error {score['rms_error']:.2%} (root mean square), "
            f"{score['inside']} of {score['measured']} inside the 95 % interval"
        )
    for row in score["cells"]:
        low, high = row["interval"]
        cell = f"  N {format_size(row['N'])}, D {format_size(row['D'])}: "
        cell += f"forecast {row['loss']:.4f} ({low:.4f} to {high:.4f})"
        if "measured" not in row:
            lines.append(f"{cell}, not measured yet")
            continue
        seeds = f" (mean of {row['runs']} runs)" if row["runs"] > 1 else ""
        where = "inside" if row["inside"] else "OUTSIDE"
        lines.append(f"{cell}, measured {row['measured']:.4f}{seeds}: {row['error']:+.2%}, {where}")
    return lines
