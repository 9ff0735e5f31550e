"""Iso-FLOP and iso-loss: loss over N at each budget, N and D of equal loss, and the optimal sizes over compute."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from amscale.reporting.axes import log_axis, short_number
from amscale.reporting.chart import Axis, Chart, ChartText, LegendItem, Panel, Series
from amscale.reporting.figures.common import (
    C_TITLE,
    D_TITLE,
    N_TITLE,
    evenly_spaced,
    hypothesis_line,
    line_legend,
    power_line,
)
from amscale.reporting.fit_data import FitData
from amscale.settings import format_size

_LABEL_SPACE = 0.1
"""Share of a panel that the label of a line takes."""
_LINE_STEPS = 60


class OptimumMark(NamedTuple):
    """The optimal N at compute C, with its colour and hover text."""

    C: float
    N: float
    colour: str
    label: str


def optima_over_compute(optima: Sequence[OptimumMark], estimate: dict[str, Any]) -> Panel:
    """Build a panel of N over C, with the lines N ∝ C^(k/(1 + k)) through the centre of the optima.

    C ∝ N·D along the optima, so that N ∝ D^k and N ∝ C^(k/(1 + k)) are the same line.
    """
    x = log_axis(C_TITLE, [optimum.C for optimum in optima], margin=0.15)
    y = log_axis(N_TITLE, [optimum.N for optimum in optima], sizes=True, margin=0.25)
    centre = statistics.geometric_mean(o.C for o in optima), statistics.geometric_mean(o.N for o in optima)
    series: list[Series] = []
    texts: list[ChartText] = []
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


def _joined_labels(texts: Sequence[ChartText], x: Axis, y: Axis) -> list[ChartText]:
    """Join labels that would overlap."""
    joined: list[ChartText] = []
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
    along = [first + (last - first) * step / _LINE_STEPS for step in range(_LINE_STEPS + 1)]

    def height(slope: float, u: float) -> float:
        return min(max(centre[1] * math.exp(slope * u), y.range[0]), y.range[1])

    outline = [(u, height(slopes[0], u)) for u in along] + [(u, height(slopes[1], u)) for u in reversed(along)]
    xs, ys = [centre[0] * math.exp(u) for u, _ in outline], [v for _, v in outline]
    return Series("95 % interval of k", xs, ys, "accent", "interval", dash="none", opacity=0.12, fill=True)


_MIN_SIZES = 3
_MAX_BUDGETS = 12


def iso_flop(data: FitData) -> Chart | None:
    """Build the loss over N with a line per budget, and N_opt over C; None where no budget has three sizes."""
    estimate = data.estimate_with("budgets")
    if estimate is None:
        return None
    budgets = [budget for budget in estimate["details"]["budgets"] if len(set(budget["N"])) >= _MIN_SIZES]
    if not budgets:
        return None
    shown = evenly_spaced(budgets, _MAX_BUDGETS)
    colours = [f"level:{index}" for index in range(len(shown))]
    panels = [_budgets(shown, colours)]
    optima = [
        OptimumMark(b["C"], b["optimum"], colour, f"C = {b['C']:.3g}: N_opt = {format_size(b['optimum'])}")
        for b, colour in zip(shown, colours, strict=True)
        if b["optimum"] is not None
    ]
    legend = [LegendItem(colour, short_number(b["C"], 2), colour) for b, colour in zip(shown, colours, strict=True)]
    if len(optima) > 1:
        panels.append(optima_over_compute(optima, estimate))
        legend += line_legend(panels[-1])
    caption = (
        "Runs whose FLOPs lie within a factor of 1.25 share a budget C. Solid: a cubic in ln N through the runs near "
        "the least loss, with a diamond at its minimum; dotted: a budget without a minimum inside its sizes, where the "
        "runs are only joined."
    )
    if len(shown) < len(budgets):
        caption += f" {len(shown)} of {len(budgets)} budgets are shown, evenly spaced."
    if estimate["refusal"]:
        caption += f" No exponent from these: {estimate['refusal']}."
    return Chart("iso_flop", "Iso-FLOP", caption, [("", panels)], legend, C_TITLE)


def _budgets(budgets: list[dict[str, Any]], colours: list[str]) -> Panel:
    x = log_axis(N_TITLE, [N for budget in budgets for N in budget["N"]], sizes=True)
    y = log_axis("loss (nats per token)", [value for budget in budgets for value in budget["loss"]])
    series: list[Series] = []
    for budget, colour in zip(budgets, colours, strict=True):
        runs = sorted(zip(budget["N"], budget["loss"], strict=True))
        sizes, losses = [N for N, _ in runs], [value for _, value in runs]
        name = f"C = {budget['C']:.3g}"
        if budget["optimum"] is None:
            values = {N: [value for n, value in runs if n == N] for N in sizes}
            means = [sum(found) / len(found) for found in values.values()]
            series.append(
                Series(f"{name}: {budget['reason']}", list(values), means, colour, colour, "dotted", width=1.2)
            )
        else:
            series += _curve(budget, name, colour)
        labels = [f"{name}, N = {format_size(N)}: {value:.4f}" for N, value in runs]
        series.append(Series(name, sizes, losses, colour, colour, "none", marker="circle", size=6, labels=labels))
    return Panel("loss at each budget", x, y, series)


def _curve(budget: dict[str, Any], name: str, colour: str) -> list[Series]:
    """Return the local cubic of a budget and a mark at its minimum."""
    sizes, losses = zip(*budget["curve"], strict=True)
    label = f"{name}: N_opt = {format_size(budget['optimum'])}"
    mark = ([budget["optimum"]], [min(losses)])
    return [
        Series(name, list(sizes), list(losses), colour, colour, width=1.6),
        Series(label, *mark, colour, colour, "none", marker="diamond", size=11, labels=[label]),
    ]


def iso_loss(data: FitData) -> Chart | None:
    """Build the contours of the loss and their compute 6ND; None where no contour passes two sizes."""
    estimate = data.estimate_with("contours")
    if estimate is None:
        return None
    contours = [contour for contour in estimate["details"]["contours"] if len(contour["N"]) >= 2]
    if not contours:
        return None
    colours = [f"level:{index}" for index in range(len(contours))]
    panels = [_contours(contours, colours), _compute(contours, colours)]
    optima = [
        OptimumMark(
            c["C"], c["optimum"], colour, f"loss {c['loss']:.4g}: N = {format_size(c['optimum'])} takes the least"
        )
        for c, colour in zip(contours, colours, strict=True)
        if c["optimum"] is not None
    ]
    losses = [contour["loss"] for contour in contours]
    digits = next((d for d in range(3, 6) if len({f"{loss:.{d}g}" for loss in losses}) == len(losses)), 6)
    legend = [LegendItem(colour, f"{loss:.{digits}g}", colour) for loss, colour in zip(losses, colours, strict=True)]
    if len(optima) > 1:
        panels.append(optima_over_compute(optima, estimate))
        legend += line_legend(panels[-1])
    caption = (
        "Each line is one loss. At every N its D is interpolated in ln D between the runs of that N. The second panel "
        "has the compute 6ND along each line"
    )
    caption += ", with a diamond at the least, by a parabola in ln N." if optima else "; none has its least inside."
    if estimate["refusal"]:
        caption += f" No exponent from these: {estimate['refusal']}."
    return Chart("iso_loss", "Iso-loss", caption, [("", panels)], legend, "loss (nats per token)")


def _contours(contours: list[dict[str, Any]], colours: list[str]) -> Panel:
    x = log_axis(D_TITLE, [D for contour in contours for D in contour["D"]], sizes=True)
    y = log_axis(N_TITLE, [N for contour in contours for N in contour["N"]], sizes=True)
    series = []
    for contour, colour in zip(contours, colours, strict=True):
        name = f"loss {contour['loss']:.4g}"
        labels = [
            f"{name}: N = {format_size(N)} at D = {format_size(D)}"
            for N, D in zip(contour["N"], contour["D"], strict=True)
        ]
        series.append(Series(name, contour["D"], contour["N"], colour, colour, marker="circle", size=5, labels=labels))
    return Panel("N and D of equal loss", x, y, series)


def _compute(contours: list[dict[str, Any]], colours: list[str]) -> Panel:
    lines = [[6 * N * D for N, D in zip(contour["N"], contour["D"], strict=True)] for contour in contours]
    x = log_axis(N_TITLE, [N for contour in contours for N in contour["N"]], sizes=True)
    y = log_axis("6ND (FLOPs)", [C for line in lines for C in line] + [c["C"] for c in contours])
    series: list[Series] = []
    for contour, line, colour in zip(contours, lines, colours, strict=True):
        name = f"loss {contour['loss']:.4g}"
        series.append(Series(name, contour["N"], line, colour, colour, marker="circle", size=5))
        if contour["optimum"] is not None:
            mark = ([contour["optimum"]], [contour["C"]])
            label = f"{name}: least 6ND {contour['C']:.3g} at N = {format_size(contour['optimum'])}"
            series.append(Series(label, *mark, colour, colour, "none", marker="diamond", size=10, labels=[label]))
    return Panel("compute along them", x, y, series)
