"""Ranges, ticks and reference lines of axes.

Long curves, made short enough to draw.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from amscale.reporting.chart import Axis, Reference
from amscale.settings import format_size

_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9))
_WANTED = 4
_LABEL_ROOM = {"x": 0.08, "y": 0.055}
"""What a line's label takes of a panel, as a share."""


def finite(values: Iterable[float | None]) -> list[float]:
    """The numbers among `values`."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def log_axis(title: str, values: Iterable[float | None], sizes: bool = False, margin: float = 0.06) -> Axis:
    """A logarithmic axis around positive `values`; `sizes` writes ticks as 10k, 1M."""
    found = [value for value in finite(values) if value > 0] or [1.0, 10.0]
    low, high = math.log10(min(found)), math.log10(max(found))
    reach = max((high - low) * margin, 0.02) if high > low else 0.3
    limits = (10 ** (low - reach), 10 ** (high + reach))
    return Axis(title, True, limits, _log_ticks(limits, sizes))


def linear_axis(title: str, values: Iterable[float | None], margin: float = 0.06, ticks: bool = False) -> Axis:
    """A linear axis around `values`; without `ticks` the renderer chooses them."""
    found = finite(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    reach = (high - low) * margin or 0.5
    return Axis(title, False, (low - reach, high + reach))


def _log_ticks(limits: tuple[float, float], sizes: bool) -> tuple[tuple[float, str], ...]:
    first, last = math.floor(math.log10(limits[0])), math.ceil(math.log10(limits[1]))
    ticks: list[float] = []
    for steps in _STEPS:
        every = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        ticks = [value for value in every if limits[0] <= value <= limits[1]]
        if len(ticks) >= _WANTED:
            break
    labels = [format_size(value) if sizes else short(value) for value in ticks]
    stride = max(1, math.ceil(len(ticks) / (7 if max(map(len, labels), default=0) < 5 else 5)))
    return tuple(zip(ticks, labels, strict=True))[::stride]


def short(value: float, digits: int = 6) -> str:
    """A number of up to `digits` digits: `0.5`, `1000`, `3e9`."""
    mantissa, e, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def references(
    values: Sequence[tuple[str, float]], axis: Axis, along: Literal["x", "y"] = "y"
) -> tuple[Reference, ...]:
    """Lines at the named values that lie on the axis `along`; lines too near for a label of their own share one."""
    low, high = axis.range
    on = sorted(((value, name) for name, value in values if low <= value <= high), reverse=along == "y")

    def position(value: float) -> float:
        return math.log(value / low) / math.log(high / low) if axis.log else (value - low) / (high - low)

    lines: list[Reference] = []
    labelled = 0
    for value, name in on:
        if lines and abs(position(lines[labelled].value) - position(value)) < _LABEL_ROOM[along]:
            lines[labelled] = replace(lines[labelled], label=f"{lines[labelled].label}, {name}")
            lines.append(Reference(value, "", along))
        else:
            labelled = len(lines)
            lines.append(Reference(value, name, along))
    return tuple(lines)


MOST_POINTS = 500


def mean_of_neighbours(curve: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of as many consecutive records as it takes; a short curve as it is.

    No record is dropped: means keep the level, at the price of the scatter.
    """
    width = math.ceil(len(curve) / most)
    if width <= 1:
        return list(curve)
    groups = [curve[start : start + width] for start in range(0, len(curve), width)]
    return [(sum(step for step, _ in g) / len(g), sum(loss for _, loss in g) / len(g)) for g in groups]


def records_a_point(curve: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> int:
    """How many records each drawn point stands for."""
    return max(1, math.ceil(len(curve) / most))


def every_other(curve: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """About `most` of the records as they are, the least and the last always among them."""
    stride = math.ceil(len(curve) / most)
    if stride <= 1:
        return list(curve)
    least = min(range(len(curve)), key=lambda index: curve[index][1])
    kept = sorted({*range(0, len(curve), stride), least, len(curve) - 1})
    return [curve[index] for index in kept]
