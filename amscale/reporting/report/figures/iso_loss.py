"""Iso-loss: N and D that reach the same loss, the compute that they take, and the sizes that take the least."""

from typing import Any

from amscale.reporting.report.analysis import Analysis
from amscale.reporting.report.axes import log_axis
from amscale.reporting.report.chart import Chart, Key, Panel, Series
from amscale.reporting.report.figures.common import D_TITLE, N_TITLE, line_keys
from amscale.reporting.report.figures.optima import optima_over_compute
from amscale.settings import format_size


def iso_loss(analysis: Analysis) -> Chart | None:
    """Contours of the loss, each with its least 6ND; nothing where no contour passes two sizes."""
    estimate = analysis.estimate_with("contours")
    if estimate is None:
        return None
    contours = [contour for contour in estimate["details"]["contours"] if len(contour["N"]) >= 2]
    if not contours:
        return None
    tones = [f"level:{index}" for index in range(len(contours))]
    panels = [_plane(contours, tones), _compute(contours, tones)]
    optima = [
        (c["C"], c["optimum"], tone, f"loss {c['loss']:.4g}: N = {format_size(c['optimum'])} takes the least")
        for c, tone in zip(contours, tones, strict=True)
        if c["optimum"] is not None
    ]
    keys = [Key(tone, f"{c['loss']:.3g}", tone) for c, tone in zip(contours, tones, strict=True)]
    if len(optima) > 1:
        panels.append(optima_over_compute(optima, estimate))
        keys += line_keys(panels[-1])
    caption = (
        "Each line is one loss. At every N its D is interpolated in ln D between the runs of that N. The second panel "
        "has the compute 6ND along each line"
    )
    caption += ", with a diamond at the least, by a parabola in ln N." if optima else "; none has its least inside."
    if estimate["refusal"]:
        caption += f" No exponent from these: {estimate['refusal']}."
    return Chart("iso_loss", "Iso-loss", caption, [("", panels)], keys, "loss (nats per token)")


def _plane(contours: list[dict[str, Any]], tones: list[str]) -> Panel:
    x = log_axis(D_TITLE, [D for contour in contours for D in contour["D"]], sizes=True)
    y = log_axis(N_TITLE, [N for contour in contours for N in contour["N"]], sizes=True)
    series = []
    for contour, tone in zip(contours, tones, strict=True):
        name = f"loss {contour['loss']:.4g}"
        labels = [
            f"{name}: N = {format_size(N)} at D = {format_size(D)}"
            for N, D in zip(contour["N"], contour["D"], strict=True)
        ]
        series.append(Series(name, contour["D"], contour["N"], tone, tone, marker="circle", size=5, labels=labels))
    return Panel("N and D of equal loss", x, y, series)


def _compute(contours: list[dict[str, Any]], tones: list[str]) -> Panel:
    lines = [[6 * N * D for N, D in zip(contour["N"], contour["D"], strict=True)] for contour in contours]
    x = log_axis(N_TITLE, [N for contour in contours for N in contour["N"]], sizes=True)
    y = log_axis("6ND (FLOPs)", [C for line in lines for C in line] + [c["C"] for c in contours])
    series: list[Series] = []
    for contour, line, tone in zip(contours, lines, tones, strict=True):
        name = f"loss {contour['loss']:.4g}"
        series.append(Series(name, contour["N"], line, tone, tone, marker="circle", size=5))
        if contour["optimum"] is not None:
            mark = ([contour["optimum"]], [contour["C"]])
            said = f"{name}: least 6ND {contour['C']:.3g} at N = {format_size(contour['optimum'])}"
            series.append(Series(said, *mark, tone, tone, "none", marker="diamond", size=10, labels=[said]))
    return Panel("compute along them", x, y, series)
