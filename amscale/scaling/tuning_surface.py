"""The optimum of one cell of N and D over its learning rate, batch or other nuisance setting.

Runs of one setting are averaged over their seeds first, so that no lucky run stands for a cell; the least loss is then
that of a quadratic surface in the logarithms of the settings, through the runs near the least mean.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from amscale.scaling.points import Array, Point
from amscale.settings import format_size

_NEIGHBOURS = 2
"""Values on either side of the best one that enter the surface: over decades of a setting the loss is no parabola."""
_SAME = 1e-6
"""Logarithms of values that are the same differ by less."""
_NEAR = 0.05
"""Runs whose loss exceeds the least by a larger share are not near the optimum."""


@dataclass(frozen=True)
class CellOptimum:
    """The optimum of one cell.

    Attributes:
        N, D: of the cell.
        loss: least loss, nats per token: interpolated, or the mean of the best value where it cannot be.
        settings: the optimum by axis; at an edge the value there.
        inside: axes along which the loss was interpolated.
        edges: axes whose best value is the least or the greatest that was run, and not the least there can be.
        at_least: axes whose best value is the least there can be, such as a batch of one sequence.
        next_values: the next value to run, by the axes in `edges`.
        off_centre: the next value to run, by the axes whose optimum is inside, and in an outer quarter of what was run:
            there the surface rests on few runs on one side.
        runs: number of runs.
        error: standard error of ln loss; None where the noise of the runs is not known.
        setting_errors: standard errors of the logarithms of the settings in `inside`; empty without noise.
        reason: why nothing was interpolated although no axis is at an edge.
        nearest: the runs at the tested values nearest to the optimum.
        deviations: resampled ln loss minus ln loss (resamples,); None where the noise is not known.
    """

    N: float
    D: float
    loss: float
    settings: dict[str, float]
    inside: tuple[str, ...]
    edges: tuple[str, ...]
    next_values: dict[str, float]
    runs: int
    error: float | None
    setting_errors: dict[str, float]
    reason: str
    nearest: tuple[Point, ...] = field(repr=False)
    deviations: Array | None = field(repr=False)
    off_centre: dict[str, float] = field(default_factory=dict)
    at_least: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return `N = 1M, D = 20M: best learning_rate 0.001 is the least tested; next 0.0005`."""
        best = "; ".join(
            f"best {short(axis)} {self.settings[axis]:.3g} is at the edge of what was run, next {value:.3g}"
            for axis, value in self.next_values.items()
        )
        return f"N = {format_size(self.N)}, D = {format_size(self.D)}: {best}"


def short(axis: str) -> str:
    """Return the last part of a dotted key."""
    return axis.rpartition(".")[2]


@dataclass(frozen=True)
class Surface:
    """The means of one cell at each of its settings, and the quadratic surface through those near the least."""

    points: tuple[Point, ...]
    axes: tuple[str, ...]
    x: Array
    """Logarithms of the settings (settings, axes)."""
    y: Array
    """Mean ln loss over seeds (settings,)."""
    seeds: Array
    """Runs of each setting (settings,)."""
    groups: tuple[tuple[Point, ...], ...]
    best: int
    edges: tuple[int, ...]
    """Axes whose best value is the least or greatest, where the loss may still fall."""
    least: Array
    """Logarithms of the least values that the settings can have (axes,), -inf where none is known."""
    free_axes: tuple[int, ...]
    """Axes along which the surface is."""
    near: NDArray[np.intp]
    """Settings that enter the surface."""
    squares: float
    """Sum of squares about the means and the surface, in ln loss."""
    free: int
    """Its degrees of freedom."""

    @classmethod
    def of(
        cls,
        points: Sequence[Point],
        axes: tuple[str, ...],
        hopeless: Sequence[Point] = (),
        least_values: Mapping[str, float] | None = None,
    ) -> "Surface":
        """Average seeds, find the best setting, and choose what enters the surface.

        Args:
            points: runs of one cell.
            axes: names of the settings.
            hopeless: further runs of it, which have no loss: beyond the best value they make it no edge.
            least_values: the least values that settings can have, where they are known: these are no edges either.
        """
        known = least_values or {}
        least = np.array([math.log(known[axis]) if axis in known else -math.inf for axis in axes])
        groups: dict[tuple[float, ...], list[Point]] = {}
        for point in points:
            groups.setdefault(tuple(float(f"{point.settings[axis]:.5g}") for axis in axes), []).append(point)
        keys = sorted(groups)
        x = np.log(np.array(keys, dtype=float)).reshape(len(keys), len(axes))
        logs = [np.log([point.loss for point in groups[key]]) for key in keys]
        y, seeds = np.array([each.mean() for each in logs]), np.array([len(each) for each in logs], dtype=float)
        best = int(np.argmin(y))
        values = [np.unique(x[:, axis]) for axis in range(len(axes))]
        ends = [axis for axis, each in enumerate(values) if x[best, axis] in (each[0], each[-1])]
        tried = np.log([[point.settings.get(axis, np.nan) for axis in axes] for point in hopeless] or np.empty((0, 0)))
        bounded = {axis: bool(len(tried)) and _beyond(x[best, axis], values[axis], tried[:, axis]) for axis in ends}
        bounded |= {axis: True for axis in ends if x[best, axis] <= least[axis] + _SAME}
        edges = tuple(axis for axis in ends if len(values[axis]) > 1 and not bounded[axis])
        free_axes = tuple(axis for axis in range(len(axes)) if len(values[axis]) > 2 and axis not in ends)
        near = _near(x, y, best, free_axes, values)
        squares = float(sum(np.sum((each - each.mean()) ** 2) for each in logs))
        free = int(sum(len(each) - 1 for each in logs))
        design = _design(x[near] - x[best], free_axes)
        if len(near) > design.shape[1]:
            residuals = y[near] - design @ _solve(design, y[near], seeds[near])
            squares += float(np.sum(seeds[near] * residuals**2))
            free += len(near) - design.shape[1]
        found = tuple(tuple(groups[key]) for key in keys)
        return cls(tuple(points), axes, x, y, seeds, found, best, edges, least, free_axes, near, squares, free)

    def optimum(self, deviations: Array | None, random: np.random.Generator) -> CellOptimum:
        """Return the least of the surface; draw noise of the `deviations` (resamples,) for its error."""
        x, y, seeds = self.x[self.near] - self.x[self.best], self.y[self.near], self.seeds[self.near]
        design = _design(x, self.free_axes)
        coefficients = _solve(design, y, seeds)
        place, level, valid = _least(coefficients[None], x, self.free_axes)
        inside = bool(valid[0]) and bool(self.free_axes)
        position = self.x[self.best].copy()
        log_loss = float(self.y[self.best])
        if inside:
            position[list(self.free_axes)] += place[0]
            log_loss = float(level[0])
        drawn, errors = None, {}
        if deviations is not None:
            noise = deviations[:, None] * random.normal(size=(len(deviations), len(y))) / np.sqrt(seeds)
            if inside:
                found = _solve(design, (design @ coefficients + noise).T, seeds).T
                places, levels, _ = _least(found, x, self.free_axes)
                drawn = levels - log_loss
                spread = places.std(axis=0, ddof=1)
                errors = {self.axes[axis]: float(spread[i]) for i, axis in enumerate(self.free_axes)}
            else:
                drawn = noise[:, int(np.flatnonzero(self.near == self.best)[0])]
        settings = {axis: float(np.exp(position[i])) for i, axis in enumerate(self.axes)}
        distance = np.abs(self.x - position).sum(axis=1)
        first = self.points[0]
        return CellOptimum(
            N=first.N,
            D=first.D,
            loss=math.exp(log_loss),
            settings=settings,
            inside=tuple(self.axes[axis] for axis in self.free_axes) if inside else (),
            edges=tuple(self.axes[axis] for axis in self.edges),
            next_values={
                self.axes[axis]: self._next_value(axis, float(self.x[self.best, axis])) for axis in self.edges
            },
            runs=len(self.points),
            error=None if drawn is None else float(drawn.std(ddof=1)),
            setting_errors=errors,
            reason=self._reason(inside),
            nearest=self.groups[int(np.argmin(distance))],
            deviations=drawn,
            off_centre=self._off_centre(position) if inside else {},
            at_least=tuple(axis for axis, low in zip(self.axes, self._at_least(), strict=True) if low),
        )

    def _at_least(self) -> NDArray[np.bool_]:
        """Return for each axis whether its best value is the least there can be."""
        found: NDArray[np.bool_] = self.x[self.best] <= self.least + _SAME
        return found

    def _off_centre(self, position: Array) -> dict[str, float]:
        """Return the next value along the axes of which the optimum is in an outer quarter of the values."""
        found = {}
        for axis in self.free_axes:
            low, high = self.x[:, axis].min(), self.x[:, axis].max()
            share = (position[axis] - low) / (high - low)
            if share > 0.75 or (share < 0.25 and low > self.least[axis] + _SAME):
                found[self.axes[axis]] = self._next_value(axis, float(low if share < 0.5 else high))
        return found

    def _reason(self, inside: bool) -> str:
        """Return why a loss is the best mean, where no edge says so."""
        if self.free_axes and not inside:
            return "the surface has no minimum among its runs: the best mean"
        several = [axis for axis in range(len(self.axes)) if len(np.unique(self.x[:, axis])) > 1]
        inner = [axis for axis in several if axis not in self.free_axes and axis not in self.edges]
        if inner and not all(self._at_least()[inner]):
            return "beyond the best value are only runs that diverged or were stopped early: the best mean"
        if inner and not inside:
            return f"the best {short(self.axes[inner[0]])} is the least there can be: the best mean"
        return ""

    def _next_value(self, axis: int, end: float) -> float:
        """Return the value one step beyond an end, the least or the greatest that was run."""
        values = np.unique(self.x[:, axis])
        step = values[1] - values[0] if end == values[0] else values[-2] - values[-1]
        return float(f"{math.exp(max(end - step, self.least[axis])):.4g}")


def _beyond(best: float, values: Array, tried: Array) -> bool:
    """Return whether hopeless runs were tried beyond the best value, which is the least or the greatest of `values`."""
    low = bool(np.any(tried < best - _SAME)) or best > values[0]
    high = bool(np.any(tried > best + _SAME)) or best < values[-1]
    return low and high


def _near(x: Array, y: Array, best: int, free_axes: Sequence[int], values: Sequence[Array]) -> NDArray[np.intp]:
    """Return the settings near the best one: within two values along `free_axes`, and at its value along the others."""
    inside = np.ones(len(y), dtype=bool)
    for axis in range(x.shape[1]):
        rank = np.searchsorted(values[axis], x[:, axis])
        inside &= np.abs(rank - rank[best]) <= (_NEIGHBOURS if axis in free_axes else 0)
    close = inside & (y - y[best] <= math.log1p(_NEAR))
    for axis in free_axes:  # each side must keep a value, or nothing bounds the minimum
        offsets = x[close, axis] - x[best, axis]
        if not (np.any(offsets < 0) and np.any(offsets > 0)):
            close = inside
    terms = 1 + len(free_axes) + len(free_axes) * (len(free_axes) + 1) // 2
    return np.flatnonzero(close if close.sum() >= terms else inside)


def _design(x: Array, free_axes: Sequence[int]) -> Array:
    """Return the columns 1, u_i and u_i u_j (runs, terms), without a product that the runs cannot determine."""
    u = x[:, list(free_axes)]
    size = u.shape[1]
    columns = [np.ones(len(x)), *u.T, *(u[:, i] ** 2 for i in range(size))]
    for i in range(size):
        for j in range(i + 1, size):
            columns.append(u[:, i] * u[:, j])
    return np.stack(columns, axis=1)


def _solve(design: Array, y: Array, weights: Array) -> Array:
    """Return the coefficients by weighted least squares, of least norm where they are not determined."""
    root = np.sqrt(weights)
    return np.linalg.pinv(design * root[:, None]) @ (y.T * root).T


def _least(coefficients: Array, x: Array, free_axes: Sequence[int]) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Return place (draws, axes) and level (draws,) of the minimum of quadratics, and whether it is among the runs.

    Where it is not, the place is that of the least at the runs themselves.
    """
    size = len(free_axes)
    u = x[:, list(free_axes)]
    levels = coefficients @ _design(x, free_axes).T
    least = np.argmin(levels, axis=1)
    place, level = u[least], levels[np.arange(len(levels)), least]
    if not size:
        return place, level, np.ones(len(levels), dtype=bool)
    gradient = coefficients[:, 1 : 1 + size]
    curvature = np.zeros((len(coefficients), size, size))
    curvature[:, range(size), range(size)] = 2 * coefficients[:, 1 + size : 1 + 2 * size]
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    for column, (i, j) in enumerate(pairs, start=1 + 2 * size):
        curvature[:, i, j] = curvature[:, j, i] = coefficients[:, column]
    convex = np.linalg.eigvalsh(curvature)[:, 0] > 1e-12
    found = np.zeros_like(gradient)
    found[convex] = -np.linalg.solve(curvature[convex], gradient[convex][..., None])[..., 0]
    valid = convex & np.all((found >= u.min(axis=0)) & (found <= u.max(axis=0)), axis=1)
    place[valid] = found[valid]
    level[valid] = coefficients[valid, 0] + 0.5 * np.sum(gradient[valid] * found[valid], axis=1)
    return place, level, valid
