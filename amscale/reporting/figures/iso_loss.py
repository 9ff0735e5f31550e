"""Iso-loss: N and D that reach the same loss, the compute that they take, and the sizes that take the least."""

from typing import Any

from amscale.reporting.axes import log_axis
from amscale.reporting.chart import Chart, LegendItem, Panel, Series
from amscale.reporting.figures.common import D_TITLE, N_TITLE, line_legend
from amscale.reporting.figures.optima import Optimum, optima_over_compute
from amscale.reporting.fit_data import FitData
from amscale.settings import format_size


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
        Optimum(c["C"], c["optimum"], colour, f"loss {c['loss']:.4g}: N = {format_size(c['optimum'])} takes the least")
        for c, colour in zip(contours, colours, strict=True)
        if c["optimum"] is not None
    ]
    legend = [LegendItem(colour, f"{c['loss']:.3g}", colour) for c, colour in zip(contours, colours, strict=True)]
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
