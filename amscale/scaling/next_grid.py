"""The next cells as a grid in YAML that `amscale.sweep` runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from amscale.scaling.dstar import cell_criteria, check_window, locate_all
from amscale.scaling.next_cells import NextCells, next_cells
from amscale.scaling.read_sweep import read_sweep
from amscale.scaling.read_table import read_table
from amscale.scaling.table import Table, drop_highest

_AXES = ("model.size", "data.size")


def next_grid_of_sweep(
    folder: str | Path, number: int, count: str = "non_embedding", window: float = 0.2, threshold: float = 0.04
) -> str:
    """The sweep's own configuration with a grid of the next cells: run, it adds them to the sweep.

    Raises:
        InputError: as `read_sweep` and `next_cells`.
    """
    check_window(window)
    table = read_sweep(folder, count)
    criteria, _ = cell_criteria(table.cells(), window)
    values = {cell: [item.value for item in items] for cell, items in criteria.items()}
    marker = Path(folder) / "sweep.yaml"
    configuration = yaml.safe_load(marker.read_text(encoding="utf-8")) if marker.is_file() else {}
    configuration.pop("format", None)
    return _text(table, next_cells(table, number, locate_all(values, threshold)), configuration)


def next_grid_of_table(path: str | Path, number: int, highest: int = 0, **reading: Any) -> str:
    """A grid of the next cells for a table of points; `reading` as for `read_table`.

    Raises:
        InputError: as `read_table` and `next_cells`.
    """
    table = drop_highest(read_table(path, **reading), highest)
    return _text(table, next_cells(table, number), {})


def _text(table: Table, chosen: NextCells, configuration: dict[str, Any]) -> str:
    sizes = _wanted(table, "model", table.N)
    amounts = _wanted(table, "data", table.D)
    lines = [
        f"# Cells that would narrow the 95 % interval of k the most ({chosen.how}): ",
        f"# its width {_width(chosen.width_now)} now, about {_width(chosen.width_then)} with them; "
        f"{sum(chosen.flops):.3g} FLOPs in all, a seed.",
    ]
    for (N, D), flops in zip(chosen.cells, chosen.flops, strict=True):
        lines.append(f"#   N {N:.4g}, D {D:.4g}: {flops:.3g} FLOPs")
    documents = []
    for block in chosen.blocks():
        grid = dict(configuration.get("grid") or {})
        grid[_AXES[0]] = [_near(size, sizes) for size in block[0]]
        grid[_AXES[1]] = [_near(amount, amounts) for amount in block[1]]
        documents.append(yaml.safe_dump({**configuration, "grid": grid}, sort_keys=False, allow_unicode=True))
    if len(documents) > 1:
        lines.append(f"# {len(documents)} grids, to be run one after another.")
    return "\n".join(line.rstrip() for line in lines) + "\n" + "---\n".join(documents)


def _width(width: float) -> str:
    return f"{width:.3g}" if np.isfinite(width) else "unbounded"


def _wanted(table: Table, section: str, values: Any) -> list[tuple[float, float]]:
    """Pairs of N (or D) of a point and the `size` that its settings asked for; the value itself where there is none."""
    pairs = []
    for point, value in zip(table.points, values, strict=True):
        asked = point.result.get("settings", {}).get(section, {}).get("size")
        pairs.append((float(value), float(asked or value)))
    return pairs


def _near(value: float, pairs: Sequence[tuple[float, float]]) -> int:
    """The size to ask for: that of the nearest point, scaled, to three digits."""
    nearest = min(pairs, key=lambda pair: abs(np.log(pair[0] / value)))
    return round(float(f"{nearest[1] * value / nearest[0]:.3g}"))
