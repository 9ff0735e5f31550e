"""Iso-FLOP: the loss over N at each compute budget, and the sizes of least loss."""

import math
from typing import Any

from amscale.reporting.report.analysis import Analysis
from amscale.reporting.report.axes import log_axis, short
from amscale.reporting.report.chart import Chart, Key, Panel, Series
from amscale.reporting.report.figures.common import C_TITLE, N_TITLE, line_keys, spread
from amscale.reporting.report.figures.optima import optima_over_compute
from amscale.settings import format_size

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
    shown = spread(every, _MOST_BUDGETS)
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
