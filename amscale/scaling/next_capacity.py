"""The next cells for the exponent that memorised bits imply: new N, with D around the most bits that each can hold."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from amscale.errors import InputError
from amscale.scaling.capacity import Capacity, capacities
from amscale.scaling.points import Array, PointTable
from amscale.scaling.power_law import fit_loglog

LEAST_AMOUNTS = 3
"""D that a new N needs: the greatest M counts only with a smaller one on either side."""

_LEAST_SIZES = 3


def known_capacities(table: PointTable) -> list[Capacity]:
    """Return C of the N whose greatest M lies inside the grid of D; empty for fewer than 3 N, which give no slope."""
    inside = [item for item in capacities(table) if item.bits is not None]
    return inside if len(inside) >= _LEAST_SIZES else []


def capacity_cells(
    known: Sequence[Capacity], number: int, sizes: Array, most_tokens: float
) -> tuple[list[tuple[float, float]], tuple[float, float], tuple[float, float]]:
    """Return `number` cells, and the 95 % intervals of the slope of ln C on ln N now and with them.

    The slope is that of a line by least squares. Its interval with the cells is that of a line through the old C and
    those that the new N are expected to have, with a scatter as the old ones' about their course. The course is a
    parabola where its curvature shows at the 5 % level, else a line: a C that falls behind, as where larger N are
    trained too little, makes the interval wider the further out it lies. Each new N has 3 D or more around the one at
    which its M is expected to be greatest, as far apart as the sweep's own D are there, so that its C will scatter as
    those of the sweep do.

    Args:
        known: C of at least 3 N.
        number: cells in all.
        sizes: the N to choose from; those of `known` are passed over.
        most_tokens: no D is above it.

    Raises:
        InputError: no new N has so many D.
    """
    old, bits = np.log([item.N for item in known]), np.log([item.bits or math.nan for item in known])
    course = _course(old, bits)
    peaks, step = np.polyfit(old, [_peak(item) for item in known], 1), float(np.mean([_step(item) for item in known]))
    largest = max(item.D[-1] for item in known)
    new = [float(N) for N in sizes if np.abs(np.log(N) - old).min() > _SAME]
    best, cells = (-math.inf, math.inf), []
    for count in (m for m in range(1, number // LEAST_AMOUNTS + 1) if number % m == 0):
        amounts = {N: _amounts(N, peaks, step, number // count, largest) for N in new}
        for chosen in combinations([N for N in new if amounts[N][-1] <= most_tokens], count):
            interval = _expected(old, bits, np.log(chosen), course)
            if interval[1] - interval[0] < best[1] - best[0]:
                best, cells = interval, [(N, D) for N in chosen for D in amounts[N]]
    if not cells:
        needed = f"a new N needs {LEAST_AMOUNTS} D or more, around the one at which it memorises the most bits"
        if number < LEAST_AMOUNTS:
            raise InputError(f"next={number}: {needed}; ask for {LEAST_AMOUNTS} cells or more")
        raise InputError(f"next={number}: {needed}, and the corpus has them for none that is not in the sweep yet")
    return cells, fit_loglog(np.exp(old), np.exp(bits)).interval, best


_SAME = 0.02
"""Sizes whose logarithms differ by less are one."""


def _amounts(N: float, peaks: Array, step: float, number: int, largest: float) -> list[float]:
    """Return D in even steps of ln D around the one at which N parameters are expected to memorise the most."""
    middle = float(np.polyval(peaks, math.log(N)))
    found = [math.exp(middle + step * (index - (number - 1) / 2)) for index in range(number)]
    return [*found[:-1], largest if 1.5 * found[-2] < largest < found[-1] else found[-1]]


def _step(item: Capacity) -> float:
    """Return the mean step of ln D on either side of the greatest M."""
    best = int(np.argmax(item.memorised))
    return math.log(item.D[best + 1] / item.D[best - 1]) / 2


def _peak(item: Capacity) -> float:
    """Return ln D at the vertex of the parabola through the greatest M and its neighbours."""
    best = int(np.argmax(item.memorised))
    around = slice(best - 1, best + 2)
    curvature, slope, _ = np.polyfit(np.log(item.D[around]), item.memorised[around], 2)
    return float(-slope / (2 * curvature))


def _course(x: Array, y: Array) -> tuple[Array, float]:
    """Return the polynomial that ln C follows, a line or a parabola in ln N, and the variance about it."""
    from scipy.special import fdtrc

    fits = [np.polyfit(x, y, degree) for degree in (1, 2)]
    line, parabola = (float(np.sum((np.polyval(fit, x) - y) ** 2)) for fit in fits)
    free = len(x) - 3
    if free and parabola < line and fdtrc(1, free, (line - parabola) / (parabola / free)) < _CURVED:
        return fits[1], parabola / free
    return fits[0], line / (len(x) - 2)


_CURVED = 0.05


def _expected(x: Array, y: Array, new: Array, course: tuple[Array, float]) -> tuple[float, float]:
    """Return the 95 % t interval of the slope that is expected with C of new ln N."""
    from scipy.special import stdtrit

    polynomial, variance = course
    x, y = np.concatenate([x, new]), np.concatenate([y, np.polyval(polynomial, new)])
    slope, level = np.polyfit(x, y, 1)
    free = len(x) - 2
    total = float(np.sum((y - level - slope * x) ** 2)) + variance * len(new)
    reach = float(stdtrit(free, 0.975)) * math.sqrt(total / free / float(np.sum((x - x.mean()) ** 2)))
    return float(slope) - reach, float(slope) + reach
