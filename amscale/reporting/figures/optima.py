"""The panel that iso-FLOP and iso-loss share: optimal sizes over compute, and the exponents compared with them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from amscale.reporting.axes import log_axis
from amscale.reporting.chart import Axis, Panel, Series, Text
from amscale.reporting.figures.common import C_TITLE, N_TITLE, hypothesis_line, power_line

_LABEL_SPACE = 0.1
"""Share of a panel that the label of a line takes."""
_STEPS = 60


class Optimum(NamedTuple):
    """The optimal N at compute C, with its colour and hover text."""

    C: float
    N: float
    colour: str
    label: str


def optima_over_compute(optima: Sequence[Optimum], estimate: dict[str, Any]) -> Panel:
    """Build a panel of N over C, with the lines N ∝ C^(k/(1 + k)) through the centre of the optima.

    C ∝ N·D along the optima, so that N ∝ D^k and N ∝ C^(k/(1 + k)) are the same line.
    """
    x = log_axis(C_TITLE, [optimum.C for optimum in optima], margin=0.15)
    y = log_axis(N_TITLE, [optimum.N for optimum in optima], sizes=True, margin=0.25)
    centre = statistics.geometric_mean(o.C for o in optima), statistics.geometric_mean(o.N for o in optima)
    series: list[Series] = []
    texts: list[Text] = []
    if estimate["value"] is not None and estimate["interval"] is not None:
        series.append(_interval_area(centre, [_compute_exponent(k) for k in estimate["interval"]], x, y))
    for test in estimate["hypotheses"]:
        line_and_label = hypothesis_line(test, x, y, centre, _compute_exponent(test["value"]))
        if line_and_label is not None:
            series.append(line_and_label[0])
            texts.append(line_and_label[1])
    if estimate["value"] is not None:
        name, slope = f"estimate k = {estimate['value']:.3g}", _compute_exponent(estimate["value"])
        line = power_line(x, y, centre, slope, name=name, colour="accent", group="estimate", width=2.5)
        series += [line] if line is not None else []
    for C, N, colour, label in optima:
        series.append(Series(label, [C], [N], colour, colour, "none", marker="diamond", size=9, labels=[label]))
    return Panel("optimal size over compute", x, y, series, (), _joined_labels(texts, x, y))


def _joined_labels(texts: Sequence[Text], x: Axis, y: Axis) -> list[Text]:
    """Join labels that would overlap."""
    joined: list[Text] = []
    for text in texts:
        last = joined[-1] if joined else None
        if last and all(
            abs(math.log(a / b) / math.log(axis.range[1] / axis.range[0])) < _LABEL_SPACE
            for a, b, axis in ((last.x, text.x, x), (last.y, text.y, y))
        ):
            joined[-1] = replace(last, text=f"{text.text}, {last.text}")
        else:
            joined.append(text)
    return joined


def _compute_exponent(k: float) -> float:
    """Return the exponent a of N ∝ C^a for k of N ∝ D^k."""
    return 1.0 if math.isinf(k) else k / (1 + k)


def _interval_area(centre: Sequence[float], slopes: Sequence[float], x: Axis, y: Axis) -> Series:
    """Return the area between two lines through `centre`, cut at the panel's edges."""
    first, last = (math.log(end / centre[0]) for end in x.range)
    along = [first + (last - first) * step / _STEPS for step in range(_STEPS + 1)]

    def height(slope: float, u: float) -> float:
        return min(max(centre[1] * math.exp(slope * u), y.range[0]), y.range[1])

    outline = [(u, height(slopes[0], u)) for u in along] + [(u, height(slopes[1], u)) for u in reversed(along)]
    xs, ys = [centre[0] * math.exp(u) for u, _ in outline], [v for _, v in outline]
    return Series("95 % interval of k", xs, ys, "accent", "interval", dash="none", opacity=0.12, fill=True)
