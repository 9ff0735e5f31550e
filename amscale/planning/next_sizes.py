"""The sizes that next cells can have: the `model.size` and `data.size` that give N and D in a sweep's configuration."""

import math
from typing import Any

from amscale import models
from amscale.config import expand, parse
from amscale.errors import InputError
from amscale.scaling.next_cells import candidates
from amscale.scaling.points import PointTable, counted

SIZE, AMOUNT = "model.size", "data.size"


def by_size(tree: dict[str, Any], table: PointTable) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a configuration that takes its sizes from model.size, and the settings that gave them otherwise.

    Where trials have their size by dimensions (a width and layers) or by a published name, what stays is the layers and
    heads that all of them share.
    """
    asked = [point.result.setting(SIZE) for point in table.points if point.result]
    if all(isinstance(size, int | float) for size in asked):
        return tree, ()
    axes = dict(tree.get("grid") or {})
    varied = [key for key, value in axes.items() if isinstance(value, list) and len(value) > 1]
    kept = [key for key in ("model.layers", "model.heads") if key not in varied and None in asked]
    dropped = [key for key in (SIZE, "model.layers", "model.width", "model.heads") if key not in kept]
    model = {key: value for key, value in (tree.get("model") or {}).items() if f"model.{key}" not in dropped}
    given = [key for key in dropped if key in axes or key.removeprefix("model.") in (tree.get("model") or {})]
    axes = {key: value for key, value in axes.items() if key not in dropped}
    # A size of its own, for what reads the configuration before its grid is there.
    return {**tree, "grid": axes, "model": model | {"size": round(max(table.N))}}, tuple(given) or ("other settings",)


def sizes_of(table: PointTable, by_dimensions: tuple[str, ...]) -> dict[float, int]:
    """Return the model.size that gives each N of the points: as asked, or else what their shapes count."""
    found: dict[float, int] = {}
    for point, N in zip(table.points, table.N, strict=True):
        assert point.result is not None  # a sweep's points have their results
        if by_dimensions:
            count = point.result.setting("model.count") or "non_embedding"
            found[float(N)] = round(counted(point.result.parameters, count))
        else:
            found[float(N)] = round(point.result.setting(SIZE))
    return found


def amounts_of(table: PointTable) -> dict[float, int]:
    """Return the data.size that gives each D of the points.

    Raises:
        InputError: trials lack it: other settings decide how much they train on.
    """
    asked = [point.result.setting(AMOUNT) if point.result else None for point in table.points]
    if lacking := [size for size in asked if not isinstance(size, int | float)]:
        raise InputError(
            f"data.size is {lacking[0]} in {len(lacking)} of {len(asked)} runs: their D follows from other settings, "
            "and next cells are given by data.size; give it in the sweep's configuration"
        )
    return {float(D): round(size) for D, size in zip(table.D, asked, strict=True) if size is not None}


def reachable(
    tree: dict[str, Any], table: PointTable, count: str, asked: dict[float, int], by_dimensions: tuple[str, ...]
) -> dict[float, int]:
    """Return the candidate N that the family has a shape for, and the model.size that gives each.

    Raises:
        InputError: the sizes of the runs are given otherwise, and a search by size does not find their shapes.
    """
    result = table.points[0].result
    assert result is not None  # a sweep's points have their results
    vocabulary, context = result.shape.vocabulary, result.shape.context
    if vocabulary is None or context is None:
        raise InputError(f"{table.points[0].name}: result.json lacks shape.vocabulary or shape.context; run it again")

    def reached(size: int) -> float | None:
        """Return the N of the shape that a size gives; None where this family has no such size."""
        try:
            cell = expand(parse({**tree, "grid": dict(tree.get("grid") or {}) | {SIZE: [size]}}))[0]
            return float(models.solve(cell.model, vocabulary, context).parameters.under(count))
        except InputError:
            return None

    found = {N: size for N, size in asked.items() if not by_dimensions or reached(size) == N}
    if not found:
        raise InputError(
            f"the sizes of this sweep are given by {', '.join(by_dimensions)}, and a search by model.size finds other "
            "shapes; next cells are given by model.size"
        )
    for N in candidates(table.N).tolist():
        if any(abs(math.log(N / known)) < 0.02 for known in found):
            continue
        for factor in _NEAR:
            size = rounded(factor * scaled(N, asked))
            there = reached(size)
            if there is None:
                continue
            if all(abs(math.log(there / known)) >= 0.02 for known in found):
                found[there] = size
            break
    return found


_NEAR = (1, 1.055, 1 / 1.055, 1.113, 1 / 1.113)
"""Shares of a size to ask for instead, where the family has none within its tolerance of 3 %."""


def scaled(value: float, asked: dict[float, int]) -> int:
    """Return the size to ask for: that of the nearest point, scaled, to three digits."""
    nearest = min(asked, key=lambda known: abs(math.log(known / value)))
    return asked[nearest] if nearest == value else rounded(asked[nearest] * value / nearest)


def rounded(value: float) -> int:
    return round(float(f"{value:.3g}"))
