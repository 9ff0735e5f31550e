"""Tuned cells: the loss of each cell of N and D at its best learning rate, batch or other nuisance setting.

A grid at one learning rate and one batch for all measures them too: the exponent of one and the same grid is .73 where
every cell is tuned, .60 at one learning rate and .98 at one batch. Per cell the runs of one setting are averaged over
their seeds first, so that no lucky run stands for a cell; the least loss is then that of a quadratic surface in the
logarithms of the settings, through the runs near the least mean. Its error is found by drawing the runs' noise and
interpolating anew, and goes into the intervals of the laws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from amscale.errors import InputError
from amscale.scaling.points import Array, Point, PointTable
from amscale.scaling.tuning_surface import CellOptimum, Surface

_BATCH = "train.batch_tokens"
_RESAMPLES = 400


@dataclass(frozen=True)
class Tuning:
    """The tuned cells of a table of runs.

    Attributes:
        axes: names of the nuisance settings.
        cells: the optimum of every cell, by N and D.
        table: a point for each cell, with its interpolated loss.
        nearest: the runs at the tested values nearest to the optimum, seeds apart.
        runs: the table that was tuned.
        deviation: standard deviation of ln loss between runs; None where no seed and no spare value tells.
    """

    axes: tuple[str, ...]
    cells: tuple[CellOptimum, ...]
    table: PointTable
    nearest: PointTable
    runs: PointTable
    deviation: float | None

    @property
    def at_edge(self) -> tuple[CellOptimum, ...]:
        """The cells whose best value is the least or the greatest that was run."""
        return tuple(cell for cell in self.cells if cell.edges)

    @property
    def off_centre(self) -> tuple[CellOptimum, ...]:
        """The cells whose optimum is inside, and in an outer quarter of what was run."""
        return tuple(cell for cell in self.cells if cell.off_centre)

    def to_dict(self) -> dict[str, Any]:
        """Return what was found of every cell, for fit.json."""
        names = (
            *("N", "D", "loss", "error", "settings", "setting_errors", "edges", "at_least", "next_values"),
            *("off_centre", "runs", "reason"),
        )
        return {
            "axes": list(self.axes),
            "deviation_of_ln_loss": self.deviation,
            "cells": [{name: getattr(cell, name) for name in names} for cell in self.cells],
        }


def varying_axes(table: PointTable, axes: Sequence[str]) -> tuple[str, ...]:
    """Return the axes that have several values in a cell of N and D."""
    cells = table.cells().values()
    return tuple(axis for axis in axes if any(len({p.settings.get(axis) for p in cell}) > 1 for cell in cells))


def tune_cells(table: PointTable, axes: Sequence[str], resamples: int = _RESAMPLES, seed: int = 0) -> Tuning:
    """Return the tuned cells of a table whose points have `settings`.

    Args:
        table: all runs.
        axes: names of the settings to tune.
        resamples: how often the noise of the runs is drawn.
        seed: of the draws.

    Raises:
        InputError: a run has not the setting, or one that is not positive.
    """
    for point in table.points:
        for axis in axes:
            if not point.settings.get(axis, 0) > 0:
                raise InputError(f"{point.name}: {axis} is {point.settings.get(axis)}; tuning needs a positive number")
    tried: dict[tuple[float, float], list[Point]] = {}
    for point in table.hopeless:
        tried.setdefault((point.N, point.D), []).append(point)
    surfaces = [
        Surface.of(points, tuple(axes), tried.get(cell, ()), _least_values(points))
        for cell, points in table.cells().items()
    ]
    squares, free = (sum(each) for each in zip(*((s.squares, s.free) for s in surfaces), strict=True))
    random = np.random.default_rng(seed)
    deviations = None
    if free > 0 and resamples:
        # The deviation is uncertain too, as a sum of squares with so many degrees of freedom is.
        deviations = np.sqrt(squares / random.chisquare(free, size=resamples))
    cells = tuple(surface.optimum(deviations, random) for surface in surfaces)
    points = [replace(c.nearest[0], loss=c.loss, seed=None, settings=c.settings) for c in cells]
    tuned = _among(table, points)
    if all(cell.deviations is not None for cell in cells) and cells:
        tuned.deviations = np.stack([cell.deviations for cell in cells if cell.deviations is not None], axis=1)
    nearest = _among(table, [point for cell in cells for point in cell.nearest])
    return Tuning(tuple(axes), cells, tuned, nearest, table, math.sqrt(squares / free) if free > 0 else None)


def _least_values(points: Sequence[Point]) -> dict[str, float]:
    """Return the least values that settings of a cell can have, where they are known: a batch has one sequence."""
    results = [point.result for point in points]
    contexts = {each.shape.context if each and each.setting("data.packing") == "stream" else None for each in results}
    context = contexts.pop() if len(contexts) == 1 else None
    return {_BATCH: float(context)} if context else {}


def _among(table: PointTable, points: list[Point]) -> PointTable:
    """Return a table of these points, with the runs of `table` that they are not beside them."""
    names = {point.name for point in points}
    others = [point for point in (*table.points, *table.others) if point.name not in names]
    return replace(table.with_points(points, others), warnings=list(table.warnings))


def at_value(tuning: Tuning, axis: str, value: float) -> PointTable | None:
    """Return the cells with one value of an axis for all and the other axes tuned; None where a cell lacks it."""
    wanted = float(f"{value:.5g}")
    runs = [point for point in tuning.runs.points if float(f"{point.settings[axis]:.5g}") == wanted]
    if {(point.N, point.D) for point in runs} != set(tuning.runs.cells()):
        return None
    return tune_cells(replace(tuning.runs, points=runs), tuning.axes).table


def at_settings(tuning: Tuning, wanted: Mapping[tuple[float, float], Mapping[str, float]]) -> PointTable | None:
    """Return the cells at given settings, by linear interpolation in logarithms among the runs of each.

    Args:
        wanted: settings by axis, of each cell (N, D).

    Returns:
        None where a cell has no runs around its settings.
    """
    points = []
    for cell, runs in tuning.runs.cells().items():
        surface = Surface.of(runs, tuning.axes)
        loss = _between(surface.x, surface.y, np.log([wanted[cell][axis] for axis in tuning.axes]))
        if loss is None:
            return None
        points.append(replace(runs[0], loss=math.exp(loss), seed=None, settings=dict(wanted[cell])))
    return replace(tuning.table, points=points, deviations=None)


def _between(x: Array, y: Array, wanted: Array) -> float | None:
    """Return y at `wanted` (axes,) by linear interpolation along one axis after the other; None outside the runs."""
    if not x.shape[1]:
        return float(y.mean())
    values = np.unique(x[:, 0])
    above = int(np.searchsorted(values, wanted[0] - 1e-4))
    if above == len(values):
        return None
    ends = [above] if abs(values[above] - wanted[0]) <= 1e-4 else [above - 1, above]
    if ends[0] < 0:
        return None
    found = []
    for end in ends:
        inside = x[:, 0] == values[end]
        level = _between(x[inside, 1:], y[inside], wanted[1:])
        if level is None:
            return None
        found.append(level)
    if len(found) == 1:
        return found[0]
    share = float((wanted[0] - values[ends[0]]) / (values[ends[1]] - values[ends[0]]))
    return (1 - share) * found[0] + share * found[1]
