"""Iso-FLOP: the loss over N at each compute budget, and the sizes of least loss."""

import math
from typing import Any

from amscale.reporting.axes import log_axis, short_number
from amscale.reporting.chart import Chart, LegendItem, Panel, Series
from amscale.reporting.figures.common import C_TITLE, N_TITLE, evenly_spaced, line_legend
from amscale.reporting.figures.optima import Optimum, optima_over_compute
from amscale.reporting.fit_data import FitData
from amscale.settings import format_size

_MIN_SIZES = 3
_MAX_BUDGETS = 12
_STEPS = 60


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
    exponents = estimate["details"]["curve_exponents"]
    panels = [_budgets(shown, colours, exponents)]
    optima = [
        Optimum(b["C"], b["optimum"], colour, f"C = {b['C']:.3g}: N_opt = {format_size(b['optimum'])}")
        for b, colour in zip(shown, colours, strict=True)
        if b["optimum"] is not None
    ]
    legend = [LegendItem(colour, short_number(b["C"], 2), colour) for b, colour in zip(shown, colours, strict=True)]
    if len(optima) > 1:
        panels.append(optima_over_compute(optima, estimate))
        legend += line_legend(panels[-1])
    caption = (
        "Runs whose FLOPs lie within a factor of 1.25 share a budget C. Solid: E + A·N^-α + B·N^β, α and β common to "
        "all budgets, with a diamond at its minimum; dotted: a budget without a minimum inside its sizes, where the "
        "runs are only joined."
    )
    if len(shown) < len(budgets):
        caption += f" {len(shown)} of {len(budgets)} budgets are shown, evenly spaced."
    if estimate["refusal"]:
        caption += f" No exponent from these: {estimate['refusal']}."
    return Chart("iso_flop", "Iso-FLOP", caption, [("", panels)], legend, C_TITLE)


def _budgets(budgets: list[dict[str, Any]], colours: list[str], exponents: tuple[float, float] | None) -> Panel:
    x = log_axis(N_TITLE, [N for budget in budgets for N in budget["N"]], sizes=True)
    y = log_axis("loss (nats per token)", [value for budget in budgets for value in budget["loss"]])
    series: list[Series] = []
    for budget, colour in zip(budgets, colours, strict=True):
        runs = sorted(zip(budget["N"], budget["loss"], strict=True))
        sizes, losses = [N for N, _ in runs], [value for _, value in runs]
        name = f"C = {budget['C']:.3g}"
        if budget["optimum"] is None or exponents is None:
            values = {N: [value for n, value in runs if n == N] for N in sizes}
            means = [sum(found) / len(found) for found in values.values()]
            series.append(
                Series(f"{name}: {budget['reason']}", list(values), means, colour, colour, "dotted", width=1.2)
            )
        else:
            series += _curve(budget, name, exponents, colour)
        labels = [f"{name}, N = {format_size(N)}: {value:.4f}" for N, value in runs]
        series.append(Series(name, sizes, losses, colour, colour, "none", marker="circle", size=6, labels=labels))
    return Panel("loss at each budget", x, y, series)


def _curve(budget: dict[str, Any], name: str, exponents: tuple[float, float], colour: str) -> list[Series]:
    """Return the fitted curve of a budget and a mark at its minimum."""
    E, A, B = budget["shape"]
    alpha, beta = exponents
    centre = sum(math.log(N) for N in budget["N"]) / len(budget["N"])

    def loss(log_size: float) -> float:
        return E + A * math.exp(-alpha * (log_size - centre)) + B * math.exp(beta * (log_size - centre))

    first, last = math.log(min(budget["N"])), math.log(max(budget["N"]))
    along = [first + (last - first) * step / _STEPS for step in range(_STEPS + 1)]
    optimum = budget["optimum"]
    label = f"{name}: N_opt = {format_size(optimum)}"
    mark = ([optimum], [loss(math.log(optimum))])
    return [
        Series(name, [math.exp(u) for u in along], [loss(u) for u in along], colour, colour, width=1.6),
        Series(label, *mark, colour, colour, "none", marker="diamond", size=11, labels=[label]),
    ]
