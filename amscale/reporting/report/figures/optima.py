"""The panel that iso-FLOP and iso-loss share: optimal sizes over compute, and the exponents held against them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from amscale.reporting.report.axes import log_axis
from amscale.reporting.report.chart import Axis, Panel, Series, Text
from amscale.reporting.report.figures.common import C_TITLE, N_TITLE, hypothesis_line, power_line

_STEPS = 40
_LABEL_ROOM = 0.1
"""What a line's label takes of a panel, as a share."""


def optima_over_compute(optima: Sequence[tuple[float, float, str, str]], estimate: dict[str, Any]) -> Panel:
    """Optimal N over C of (C, N, tone, hover text), with the lines N ∝ C^(k/(1 + k)) through their centre.

    C ∝ N·D along the optima, so that N ∝ D^k and N ∝ C^(k/(1 + k)) are the same line.
    """
    x = log_axis(C_TITLE, [C for C, _, _, _ in optima], margin=0.15)
    y = log_axis(N_TITLE, [N for _, N, _, _ in optima], sizes=True, margin=0.25)
    middles = [statistics.geometric_mean(values) for values in ([o[0] for o in optima], [o[1] for o in optima])]
    centre = middles[0], middles[1]
    series: list[Series] = []
    texts: list[Text] = []
    if estimate["value"] is not None and estimate["interval"] is not None:
        series.append(_fan(centre, [_on_compute(k) for k in estimate["interval"]], x, y))
    for test in estimate["hypotheses"]:
        drawn = hypothesis_line(test, x, y, centre, _on_compute(test["value"]))
        if drawn is not None:
            series.append(drawn[0])
            texts.append(drawn[1])
    if estimate["value"] is not None:
        name = f"estimate k = {estimate['value']:.3g}"
        line = power_line(
            x, y, centre, _on_compute(estimate["value"]), name=name, tone="accent", group="estimate", width=2.5
        )
        series += [line] if line is not None else []
    for compute, size, tone, said in optima:
        series.append(Series(said, [compute], [size], tone, tone, "none", marker="diamond", size=9, labels=[said]))
    return Panel("optimal size over compute", x, y, series, (), _apart(texts, x, y))


def _apart(texts: Sequence[Text], x: Axis, y: Axis) -> list[Text]:
    """Labels that would touch, as one."""
    kept: list[Text] = []
    for text in texts:
        last = kept[-1] if kept else None
        if last and all(
            abs(math.log(a / b) / math.log(axis.range[1] / axis.range[0])) < _LABEL_ROOM
            for a, b, axis in ((last.x, text.x, x), (last.y, text.y, y))
        ):
            kept[-1] = replace(last, text=f"{text.text}, {last.text}")
        else:
            kept.append(text)
    return kept


def _on_compute(k: float) -> float:
    """The exponent a of N ∝ C^a from k of N ∝ D^k."""
    return 1.0 if math.isinf(k) else k / (1 + k)


def _fan(centre: Sequence[float], slopes: Sequence[float], x: Axis, y: Axis) -> Series:
    """The area between two lines through `centre`, inside the panel."""
    first, last = (math.log(end / centre[0]) for end in x.range)
    along = [first + (last - first) * step / _STEPS for step in range(_STEPS + 1)]

    def height(slope: float, u: float) -> float:
        return min(max(centre[1] * math.exp(slope * u), y.range[0]), y.range[1])

    outline = [(u, height(slopes[0], u)) for u in along] + [(u, height(slopes[1], u)) for u in reversed(along)]
    xs, ys = [centre[0] * math.exp(u) for u, _ in outline], [v for _, v in outline]
    return Series("95 % interval of k", xs, ys, "accent", "interval", dash="none", opacity=0.12, fill=True)
