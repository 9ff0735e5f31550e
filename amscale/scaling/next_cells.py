"""Which cells to train next: those that would narrow the interval of k the most, and what they would cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from amscale.errors import InputError
from amscale.scaling.dstar import DStar
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.fitting import LawFit, fit_law
from amscale.scaling.laws.law import Rows, rows_of
from amscale.scaling.laws.search import SQUARED_LOG
from amscale.scaling.power_law import exponent_from_dstar
from amscale.scaling.table import Array, Table

_MOST = 12


@dataclass(frozen=True)
class NextCells:
    """Cells (N, D), FLOPs of each, and the width of the 95 % interval of k now and with them; `how` says by what."""

    cells: tuple[tuple[float, float], ...]
    flops: tuple[float, ...]
    width_now: float
    width_then: float
    how: str

    def blocks(self) -> list[tuple[list[float], list[float]]]:
        """The cells as products of some N and some D, in as few blocks as one or one for each N."""
        sizes, amounts = (sorted(set(axis)) for axis in zip(*self.cells, strict=True))
        if len(sizes) * len(amounts) == len(self.cells):
            return [(sizes, amounts)]
        return [([size], sorted(D for N, D in self.cells if size == N)) for size in sizes]


def next_cells(table: Table, number: int, dstars: Sequence[DStar] = ()) -> NextCells:
    """The block of `number` new cells that narrows the interval of k the most.

    Under Chinchilla's law the width follows from its derivatives (the delta method) with the noise found; where that
    law cannot be fitted, from D*: each new D is placed in the middle of a censoring interval, and the width is that of
    the censored fit after the less telling of the two answers that the run could give.

    Raises:
        InputError: `number` is out of range, or neither gives a ground.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST:
        raise InputError(f"next={number!r} must be a whole number of cells from 1 to {_MOST}")
    rows, law = rows_of(table), Chinchilla()
    reason = law.unsupported(rows)
    if not reason:
        fit = fit_law(law, rows, SQUARED_LOG)
        return _by_law(table.source, rows, fit, number)
    known = [dstar for dstar in dstars if dstar.kind == "interval"]
    if len(known) < 3:
        raise InputError(
            f"next={number}: no ground to plan on: Chinchilla's law: {reason}; "
            f"D* is known on both sides for {len(known)} N, 3 are needed"
        )
    return _by_dstar(table, rows, known, number)


def expected_flops(rows: Rows, N: Array, D: Array) -> Array:
    """FLOPs of new cells, from those of the old: least squares of ln C on ln N and ln D."""
    columns = np.stack([np.ones(len(rows)), np.log(rows.N), np.log(rows.D)], axis=1)
    level, by_N, by_D = np.linalg.lstsq(columns, np.log(rows.flops), rcond=None)[0]
    return np.exp(level + by_N * np.log(N) + by_D * np.log(D))


def candidates(values: Array) -> Array:
    """The values of one axis, the geometric means of neighbours, and one step beyond either end.

    An axis without a grid of its own, with more than 12 values, is given one over its range.
    """
    known = np.unique(values)
    if len(known) < 2:
        return known
    if len(known) > _MOST:
        known = np.geomspace(known[0], known[-1], _MOST // 2)
    between = np.sqrt(known[1:] * known[:-1])
    ends = [known[0] ** 2 / known[1], known[-1] ** 2 / known[-2]]
    return np.unique(np.concatenate([known, between, ends]))


def _by_law(source: str, rows: Rows, fit: LawFit, number: int) -> NextCells:
    old = _derivatives(fit, rows)
    deviation = np.sqrt(fit.value / max(len(rows) - len(fit.theta), 1))
    gradient = np.array([0, 0, 0, -fit.parameters["beta"] / fit.parameters["alpha"] ** 2, 1 / fit.parameters["alpha"]])
    information = old.T @ old
    now = _width(information, gradient, deviation)
    sizes, amounts = candidates(rows.N), candidates(rows.D)
    done = {(_key(N), _key(D)) for N, D in zip(rows.N, rows.D, strict=True)}
    best: NextCells | None = None
    for chosen_sizes, chosen_amounts in _blocks(sizes, amounts, number):
        cells = [(N, D) for N in chosen_sizes for D in chosen_amounts]
        if any((_key(N), _key(D)) in done for N, D in cells):
            continue
        N, D = np.array(cells).T
        new = _derivatives(fit, Rows(N, D, np.ones(len(N)), None, 6 * N * D))
        then = _width(information + new.T @ new, gradient, deviation)
        if best is None or then < best.width_then:
            flops = tuple(expected_flops(rows, N, D).tolist())
            how = "Chinchilla's law, delta method"
            best = NextCells(tuple(cells), flops, now, then, how)
    if best is None:
        raise InputError(f"next={number}: every block of {number} cells beside {source} has been run")
    return best


def _blocks(sizes: Array, amounts: Array, number: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Blocks of `number` cells: one size with several D, one D with several sizes, and rectangles of neighbours."""
    blocks = []
    for rows in (r for r in range(1, number + 1) if number % r == 0):
        columns = number // rows
        if rows > len(sizes) or columns > len(amounts):
            continue
        blocks += [(N, D) for N in _runs(sizes, rows) for D in _runs(amounts, columns)]
    return blocks


def _runs(values: Array, length: int) -> list[tuple[float, ...]]:
    items = [float(value) for value in values]
    if length <= 3 and len(items) <= 16:
        return list(combinations(items, length))
    return [tuple(items[first : first + length]) for first in range(len(items) - length + 1)]


def _derivatives(fit: LawFit, rows: Rows) -> Array:
    """d ln L by ln A, ln B, ln E, α, β: (R, 5)."""
    A, B, E, alpha, beta = fit.natural
    size, data = A * rows.N**-alpha, B * rows.D**-beta
    parts = [size, data, np.full(len(rows), E), -np.log(rows.N) * size, -np.log(rows.D) * data]
    return np.stack(parts, axis=1) / (size + data + E)[:, None]


def _width(information: Array, gradient: Array, deviation: float) -> float:
    scale = 1 / np.sqrt(np.diag(information))
    inverse = np.linalg.pinv(information * np.outer(scale, scale), rcond=1e-13) * np.outer(scale, scale)
    return float(2 * 1.96 * deviation * math.sqrt(max(float(gradient @ inverse @ gradient), 0.0)))


def _key(value: float) -> str:
    return f"{value:.3g}"


def _by_dstar(table: Table, rows: Rows, known: Sequence[DStar], number: int) -> NextCells:
    """D in the middle of the interval of one N at a time, the N whose answer narrows the slope the most first.

    The slope is 1/k: its interval is finite where that of k is not. Of the two answers the wider is planned with.
    """
    present = list(known)
    _, now = _spread(table, present)
    then = now
    cells: list[tuple[float, float]] = []
    for _ in range(min(number, len(known))):
        options = []
        for index, dstar in enumerate(present):
            if any(dstar.N == N for N, _ in cells):
                continue
            middle = math.sqrt(dstar.lower * dstar.upper)
            answers = [_narrowed(dstar, dstar.lower, middle), _narrowed(dstar, middle, dstar.upper)]
            spreads = [_spread(table, [*present[:index], answer, *present[index + 1 :]]) for answer in answers]
            worse = int(np.argmax([slope for slope, _ in spreads]))
            mean = float(np.mean([slope for slope, _ in spreads]))
            options.append((mean, index, middle, answers[worse], spreads[worse][1]))
        _, index, middle, answer, then = min(options, key=lambda option: option[0])
        cells.append((present[index].N, middle))
        present[index] = answer
    N, D = np.array(cells).T
    flops = tuple(expected_flops(rows, N, D).tolist())
    return NextCells(tuple(cells), flops, now, then, "D* halved at each of these N")


def _narrowed(dstar: DStar, lower: float, upper: float) -> DStar:
    return DStar(dstar.N, lower, upper, upper, dstar.D, dstar.criteria)


def _spread(table: Table, dstars: Sequence[DStar]) -> tuple[float, float]:
    """Widths of the intervals of the slope 1/k and of k."""
    fit = exponent_from_dstar(dstars, table.convention, "")
    low, high = fit.details["slope_interval"]
    return high - low, math.inf if fit.interval is None else fit.interval[1] - fit.interval[0]
