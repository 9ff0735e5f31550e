"""The cells to train next: those that narrow the interval of k the most, with their FLOPs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from amscale.errors import InputError
from amscale.scaling.capacity import Capacity
from amscale.scaling.design import no_curvature, no_variation
from amscale.scaling.dstar import DStar
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.fitting import LawFit, fit_law
from amscale.scaling.laws.law import SQUARED_LOG, Rows, rows_of
from amscale.scaling.next_capacity import capacity_cells, known_capacities
from amscale.scaling.points import Array, PointTable
from amscale.scaling.power_law import exponent_from_dstar

WIDEST = 10.0
"""An interval of k that would remain wider than this settles nothing."""
_MOST = 12
_LEAST_DSTAR = 3
_BY_LAW = "Chinchilla's law, delta method"


@dataclass(frozen=True)
class NextCells:
    """Cells (N, D), FLOPs of each, the width of the 95 % interval of k now and with them, and the method, `how`."""

    cells: tuple[tuple[float, float], ...]
    flops: tuple[float, ...]
    width_now: float
    width_then: float
    how: str

    @property
    def by_law(self) -> bool:
        """Whether the widths are those of Chinchilla's law."""
        return self.how == _BY_LAW

    def blocks(self) -> list[tuple[list[float], list[float]]]:
        """Return the cells as products of some N and some D: one block where they form one, else one for each N."""
        sizes, amounts = (sorted(set(axis)) for axis in zip(*self.cells, strict=True))
        if len(sizes) * len(amounts) == len(self.cells):
            return [(sizes, amounts)]
        return [([size], sorted(D for N, D in self.cells if size == N)) for size in sizes]


def next_cells(
    table: PointTable,
    number: int,
    dstars: Sequence[DStar] = (),
    sizes: Sequence[float] | None = None,
    most_tokens: float = math.inf,
) -> NextCells:
    """Return the block of `number` new cells that narrows the interval of k the most.

    `sizes` are the N to choose from, by default those of `candidates`; no D is above `most_tokens`.

    Under Chinchilla's law the width follows from its derivatives (the delta method) with the noise found; by memorised
    bits, from the scatter of C(N) about its line; by D*, each new D is placed in the middle of a censoring interval,
    which the run halves. Where the losses curve as a law needs it, these are cells of the law, or those for memorised
    bits where their interval will be the narrower; where they do not, cells for memorised bits or else for D*.

    Raises:
        InputError: `number` is out of range, or there is nothing to plan by.
    """
    check_number(number)
    rows, law = rows_of(table), Chinchilla()
    axis = candidates(rows.N) if sizes is None else np.unique(sizes)
    reason, by_law, shown = no_variation(rows.loss) or law.unsupported(rows), None, False
    if not reason:
        fit, amounts = fit_law(law, rows, SQUARED_LOG), candidates(rows.D)
        by_law = _by_law(table.source, rows, fit, number, axis, amounts[amounts <= most_tokens])
        shown = by_law.width_then < WIDEST and not _flat(rows, fit)
    if capacity := known_capacities(table):
        by_bits = _by_capacity(rows, capacity, number, axis, most_tokens)
        return by_law if by_law and shown and by_law.width_then <= by_bits.width_then else by_bits
    # A new D is placed at an N that has been run, which a search for a shape by size need not find again.
    known = [dstar for dstar in dstars if dstar.kind == "interval" and (sizes is None or dstar.N in axis)]
    if by_law and (shown or len(known) < _LEAST_DSTAR):
        return by_law
    if len(known) < _LEAST_DSTAR:
        raise InputError(
            f"next={number}: nothing to plan by: Chinchilla's law: {reason}; "
            f"D* is known on both sides for {len(known)} N, {_LEAST_DSTAR} are needed"
        )
    return _by_dstar(table, rows, known, number)


def check_number(number: int) -> None:
    """Check that so many cells can be proposed.

    Raises:
        InputError: they cannot.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST:
        raise InputError(f"next={number!r} must be a whole number of cells from 1 to {_MOST}")


def _flat(rows: Rows, fit: LawFit) -> bool:
    """Return whether a plane describes the losses as well as a law does."""
    error = float(np.sqrt(np.mean((np.log(fit.predict(rows)) - np.log(rows.loss)) ** 2)))
    return bool(no_curvature(rows.N, rows.D, rows.loss, error))


def expected_flops(rows: Rows, N: Array, D: Array) -> Array:
    """Return the FLOPs of new cells by least squares of ln C on ln N and ln D of the old."""
    columns = np.stack([np.ones(len(rows)), np.log(rows.N), np.log(rows.D)], axis=1)
    level, by_N, by_D = np.linalg.lstsq(columns, np.log(rows.flops), rcond=None)[0]
    return np.exp(level + by_N * np.log(N) + by_D * np.log(D))


def candidates(values: Array) -> Array:
    """Return the values of one axis, the geometric means of neighbours, and one step beyond either end.

    An axis of more than 12 values is no grid, and is replaced by one over its range.
    """
    known = np.unique(values)
    if len(known) < 2:
        return known
    if len(known) > _MOST:
        known = np.geomspace(known[0], known[-1], _MOST // 2)
    between = np.sqrt(known[1:] * known[:-1])
    ends = [known[0] ** 2 / known[1], known[-1] ** 2 / known[-2]]
    return np.unique(np.concatenate([known, between, ends]))


def _by_law(source: str, rows: Rows, fit: LawFit, number: int, sizes: Array, amounts: Array) -> NextCells:
    old = _derivatives(fit, rows)
    deviation = np.sqrt(fit.value / max(len(rows) - len(fit.theta), 1))
    gradient = np.array([0, 0, 0, -fit.parameters["beta"] / fit.parameters["alpha"] ** 2, 1 / fit.parameters["alpha"]])
    information = old.T @ old
    now = _width(information, gradient, deviation)
    done = {(_key(N), _key(D)) for N, D in zip(rows.N, rows.D, strict=True)}
    blocks = [
        [(N, D) for N in chosen_sizes for D in chosen_amounts]
        for chosen_sizes, chosen_amounts in _blocks(sizes, amounts, number)
    ]
    blocks = [cells for cells in blocks if not any((_key(N), _key(D)) in done for N, D in cells)]
    if not blocks:
        raise InputError(
            f"next={number}: every block of {number} cells on and around the grid of {source} has been run"
        )
    # All blocks at once: one at a time they took a seventh of a fit.
    N, D = np.array(blocks).transpose(2, 0, 1).reshape(2, -1)
    new = _derivatives(fit, Rows(N, D, np.ones(len(N)), None, 6 * N * D)).reshape(len(blocks), number, -1)
    widths = _width(information + new.transpose(0, 2, 1) @ new, gradient, deviation)
    cells, then = blocks[int(widths.argmin())], float(widths.min())
    N, D = np.array(cells).T
    return NextCells(tuple(cells), tuple(expected_flops(rows, N, D).tolist()), float(now), then, _BY_LAW)


def _blocks(sizes: Array, amounts: Array, number: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return blocks of `number` cells: one size with several D, one D with several sizes, and rectangles."""
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
    """Return the derivatives of ln L by ln A, ln B, ln E, α, β: (R, 5)."""
    A, B, E, alpha, beta = fit.natural
    size, data = A * rows.N**-alpha, B * rows.D**-beta
    parts = [size, data, np.full(len(rows), E), -np.log(rows.N) * size, -np.log(rows.D) * data]
    return np.stack(parts, axis=1) / (size + data + E)[:, None]


def _width(information: Array, gradient: Array, deviation: float) -> Array:
    """Return the width of an interval of the ratio with that gradient, for one information matrix or a stack."""
    scale = 1 / np.sqrt(np.diagonal(information, axis1=-2, axis2=-1))
    scales = scale[..., :, None] * scale[..., None, :]
    inverse = np.linalg.pinv(information * scales, rcond=1e-13) * scales
    return np.asarray(2 * 1.96 * deviation * np.sqrt(np.maximum(gradient @ inverse @ gradient, 0.0)))


def _key(value: float) -> str:
    return f"{value:.3g}"


def _by_capacity(rows: Rows, known: Sequence[Capacity], number: int, sizes: Array, most_tokens: float) -> NextCells:
    cells, now, then = capacity_cells(known, number, sizes, most_tokens)
    N, D = np.array(cells).T
    return NextCells(
        tuple(cells),
        tuple(expected_flops(rows, N, D).tolist()),
        _width_of_k(*now),
        _width_of_k(*then),
        "memorised bits, C of the new N as those before it foretell",
    )


def _by_dstar(table: PointTable, rows: Rows, known: Sequence[DStar], number: int) -> NextCells:
    """Place D in the middle of the interval of one N at a time, first the N that narrows the slope the most.

    The slope of ln D* on ln N is 1/k. Its variance is that of a weighted line, to which each D* brings the noise and
    the width²/12 of its unknown place in its interval: the run halves the width, whatever it answers.
    """
    x = np.log([dstar.N for dstar in known])
    ends = np.log([(dstar.lower, dstar.upper) for dstar in known])
    place = (ends[:, 1] - ends[:, 0]) ** 2 / 12
    left = ends.mean(axis=1) - np.polyval(np.polyfit(x, ends.mean(axis=1), 1), x)
    noise = max(0.0, float(np.sum(left**2) / (len(x) - 2) - place.mean()))
    before = _slope_variance(x, noise + place)
    chosen: list[int] = []
    for _ in range(min(number, len(known))):
        rest = [index for index in range(len(known)) if index not in chosen]
        chosen.append(min(rest, key=lambda index: _slope_variance(x, noise + _halved(place, [*chosen, index]))))
    low, high = exponent_from_dstar(known, table.convention, "").details["slope_interval"]
    share = math.sqrt(_slope_variance(x, noise + _halved(place, chosen)) / before)
    N, D = np.exp(x[chosen]), np.exp(ends[chosen].mean(axis=1))
    return NextCells(
        tuple((known[index].N, float(amount)) for index, amount in zip(chosen, D, strict=True)),
        tuple(expected_flops(rows, N, D).tolist()),
        _width_of_k(low, high),
        _width_of_k((low + high - share * (high - low)) / 2, (low + high + share * (high - low)) / 2),
        "D* halved at each of these N",
    )


def _halved(place: Array, chosen: Sequence[int]) -> Array:
    """Return the variances of the places with the interval of each chosen one halved."""
    halved = place.copy()
    halved[list(chosen)] /= 4
    return halved


def _slope_variance(x: Array, variances: Array) -> float:
    weights = 1 / variances
    centre = float(weights @ x / weights.sum())
    return float(1 / (weights @ (x - centre) ** 2))


def _width_of_k(low: float, high: float) -> float:
    """Return the width of 1/slope over an interval of the slope; infinite where the slope may be 0."""
    return 1 / low - 1 / high if low > 0 else math.inf
