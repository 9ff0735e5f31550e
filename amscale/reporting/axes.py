"""Axes of charts: ranges, ticks, and reference lines with labels that do not collide."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from amscale.reporting.chart import Axis, Reference
from amscale.settings import format_size

_TICK_MANTISSAS = (
    (1,),
    (1, 3),
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
)
_MIN_TICKS = 4
_LABEL_SPACE = {"x": 0.08, "y": 0.055}
"""Share of a panel's length that the label of a reference line takes."""


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the finite numbers among `values`."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def log_axis(title: str, values: Iterable[float | None], sizes: bool = False, margin: float = 0.06) -> Axis:
    """Build a logarithmic axis around the positive `values`; `sizes` writes ticks as 10k, 1M."""
    found = [value for value in finite(values) if value > 0] or [1.0, 10.0]
    low, high = math.log10(min(found)), math.log10(max(found))
    reach = max((high - low) * margin, 0.02) if high > low else 0.3
    limits = (10 ** (low - reach), 10 ** (high + reach))
    return Axis(title, True, limits, _log_ticks(limits, sizes))


def linear_axis(title: str, values: Iterable[float | None], margin: float = 0.06) -> Axis:
    """Build a linear axis around `values`; the renderer chooses its ticks."""
    found = finite(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    reach = (high - low) * margin or 0.5
    return Axis(title, False, (low - reach, high + reach))


def _log_ticks(limits: tuple[float, float], sizes: bool) -> tuple[tuple[float, str], ...]:
    first, last = math.floor(math.log10(limits[0])), math.ceil(math.log10(limits[1]))
    ticks: list[float] = []
    for mantissas in _TICK_MANTISSAS:
        every = [mantissa * 10.0**power for power in range(first, last + 1) for mantissa in mantissas]
        ticks = [value for value in every if limits[0] <= value <= limits[1]]
        if len(ticks) >= _MIN_TICKS:
            break
    labels = [format_size(value) if sizes else short_number(value) for value in ticks]
    stride = max(1, math.ceil(len(ticks) / (7 if max(map(len, labels), default=0) < 5 else 5)))
    return tuple(zip(ticks, labels, strict=True))[::stride]


def short_number(value: float, digits: int = 6) -> str:
    """Format a number with up to `digits` significant digits: `0.5`, `1000`, `3e9`."""
    mantissa, e, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def references(
    values: Sequence[tuple[str, float]], axis: Axis, along: Literal["x", "y"] = "y"
) -> tuple[Reference, ...]:
    """Build reference lines at the (label, value) pairs inside the axis; lines too close together share one label."""
    low, high = axis.range
    inside = sorted(((value, name) for name, value in values if low <= value <= high), reverse=along == "y")

    def position(value: float) -> float:
        return math.log(value / low) / math.log(high / low) if axis.log else (value - low) / (high - low)

    lines: list[Reference] = []
    labelled = 0
    for value, name in inside:
        if lines and abs(position(lines[labelled].value) - position(value)) < _LABEL_SPACE[along]:
            lines[labelled] = replace(lines[labelled], label=f"{lines[labelled].label}, {name}")
            lines.append(Reference(value, "", along))
        else:
            labelled = len(lines)
            lines.append(Reference(value, name, along))
    return tuple(lines)
