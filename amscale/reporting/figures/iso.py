"""The panel that iso-FLOP and iso-loss share: optimal sizes over compute, and the exponents held against them.

Iso-FLOP: the loss over N at each compute budget, and the sizes of least loss.

Iso-loss: N and D that reach the same loss, the compute that they take, and the sizes that take the least.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from amscale.reporting.analysis import Analysis
from amscale.reporting.axes import log_axis, short
from amscale.reporting.chart import Axis, Chart, Key, Panel, Series, Text
from amscale.reporting.figures.common import (
    C_TITLE,
    D_TITLE,
    N_TITLE,
    evenly_chosen,
    hypothesis_line,
    line_keys,
    power_line,
)
from amscale.settings import format_size

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


_LEAST_SIZES = 3
_MOST_BUDGETS = 12
_STEPS = 60


def iso_flop(analysis: Analysis) -> Chart | None:
    """Loss over N with a line per budget, and N_opt over C; nothing where no budget has three sizes."""
    estimate = analysis.estimate_with("budgets")
    if estimate is None:
        return None
    every = [budget for budget in estimate["details"]["budgets"] if len(set(budget["N"])) >= _LEAST_SIZES]
    if not every:
        return None
    shown = evenly_chosen(every, _MOST_BUDGETS)
    tones = [f"level:{index}" for index in range(len(shown))]
    exponents = estimate["details"]["curve_exponents"]
    panels = [_budgets(shown, tones, exponents)]
    optima = [
        (b["C"], b["optimum"], tone, f"C = {b['C']:.3g}: N_opt = {format_size(b['optimum'])}")
        for b, tone in zip(shown, tones, strict=True)
        if b["optimum"] is not None
    ]
    keys = [Key(tone, short(b["C"], 2), tone) for b, tone in zip(shown, tones, strict=True)]
    if len(optima) > 1:
        panels.append(optima_over_compute(optima, estimate))
        keys += line_keys(panels[-1])
    caption = (
        "Runs whose FLOPs lie within a factor of 1.25 share a budget C. Solid: E + A·N^-α + B·N^β, α and β common to "
        "all budgets, with a diamond at its minimum; dotted: a budget without a minimum inside its sizes, where the "
        "runs are only joined."
    )
    if len(shown) < len(every):
        caption += f" {len(shown)} of {len(every)} budgets are shown, evenly spread."
    if estimate["refusal"]:
        caption += f" No exponent from these: {estimate['refusal']}."
    return Chart("iso_flop", "Iso-FLOP", caption, [("", panels)], keys, C_TITLE)


def _budgets(budgets: list[dict[str, Any]], tones: list[str], exponents: tuple[float, float] | None) -> Panel:
    x = log_axis(N_TITLE, [N for budget in budgets for N in budget["N"]], sizes=True)
    y = log_axis("loss (nats per token)", [value for budget in budgets for value in budget["loss"]])
    series: list[Series] = []
    for budget, tone in zip(budgets, tones, strict=True):
        runs = sorted(zip(budget["N"], budget["loss"], strict=True))
        sizes, losses = [N for N, _ in runs], [value for _, value in runs]
        name = f"C = {budget['C']:.3g}"
        if budget["optimum"] is None or exponents is None:
            said = f"{name}: {budget['reason']}"
            means = {N: [value for n, value in runs if n == N] for N in sizes}
            joined = [sum(values) / len(values) for values in means.values()]
            series.append(Series(said, list(means), joined, tone, tone, "dotted", width=1.2))
        else:
            series += _curve(budget, name, exponents, tone)
        labels = [f"{name}, N = {format_size(N)}: {value:.4f}" for N, value in runs]
        series.append(Series(name, sizes, losses, tone, tone, "none", marker="circle", size=6, labels=labels))
    return Panel("loss at each budget", x, y, series)


def _curve(budget: dict[str, Any], name: str, exponents: tuple[float, float], tone: str) -> list[Series]:
    E, A, B = budget["shape"]
    alpha, beta = exponents
    centre = sum(math.log(N) for N in budget["N"]) / len(budget["N"])

    def loss(log_size: float) -> float:
        return E + A * math.exp(-alpha * (log_size - centre)) + B * math.exp(beta * (log_size - centre))

    first, last = math.log(min(budget["N"])), math.log(max(budget["N"]))
    along = [first + (last - first) * step / _STEPS for step in range(_STEPS + 1)]
    optimum = budget["optimum"]
    said = f"{name}: N_opt = {format_size(optimum)}"
    mark = ([optimum], [loss(math.log(optimum))])
    return [
        Series(name, [math.exp(u) for u in along], [loss(u) for u in along], tone, tone, width=1.6),
        Series(said, *mark, tone, tone, "none", marker="diamond", size=11, labels=[said]),
    ]


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
