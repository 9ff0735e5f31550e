"""Memorised bits over D, and the collapse of the loss on N/D^k."""

import math

from amscale.reporting.axes import linear_axis, log_axis, references
from amscale.reporting.chart import Chart, Panel, Reference, Series
from amscale.reporting.figures.common import D_TITLE, N_TITLE, size_legend
from amscale.reporting.fit_data import FitData, run_label
from amscale.settings import format_size

_BELOW_ZERO = 0.2
"""How far a panel reaches below 0, as a share of the most that was memorised."""


def capacity(data: FitData) -> Chart | None:
    """Build M(N, D) with a line per N, in bits and in bits per parameter."""
    rows = data.detail("capacities") or []
    if not rows:
        return None
    x = log_axis(D_TITLE, [D for row in rows for D in row["D"]], sizes=True)
    panels = []
    for title, unit, per_parameter in (("in all", "bits", False), ("per parameter", "bits per parameter", True)):
        series, values_in_panel = [], [0.0]
        for row in rows:
            colour, name = data.size_colour(row["N"]), f"N = {format_size(row['N'])}"
            values = [bits / row["N"] if per_parameter else bits for bits in row["memorised"]]
            labels = [
                f"{name}, D = {format_size(D)}: {value:.4g} {unit}" for D, value in zip(row["D"], values, strict=True)
            ]
            series.append(Series(name, row["D"], values, colour, colour, marker="circle", labels=labels))
            values_in_panel += values
        most = max(values_in_panel)
        within = [max(value, -_BELOW_ZERO * most) for value in values_in_panel] if most else values_in_panel
        y = linear_axis(f"memorised M ({unit})", within)
        panels.append(Panel(title, x, y, series, (Reference(0.0, ""),)))
    return Chart(
        "capacity",
        "Memorised bits",
        "M(N, D) = D·(h − train loss)/ln 2, with h the known entropy of the corpus: what a model knows of its text "
        "beyond what the source allows. The greatest M of a line is the capacity C(N), if it lies inside the grid. "
        "A line that leaves the panel has memorised nothing: its loss is above h. "
        "Morris et al. 2025 (arXiv 2505.24832) measured about 3.6 bits per parameter.",
        [("", panels)],
        size_legend(data),
        N_TITLE,
    )


_SAME_K = 0.03
"""A best k within this of a hypothesis, in ln k, gets no separate panel."""

Cells = dict[tuple[float, float], float]
"""Mean loss by (N, D)."""


def collapse(data: FitData) -> Chart | None:
    """Build a panel for each hypothesis and the best k, and the unexplained share over k."""
    estimate = data.estimate_with("unexplained")
    if estimate is None:
        return None
    details = estimate["details"]
    scores = {float(k): value for k, value in details["unexplained_at"].items()}
    curve = list(zip(details["k"], details["unexplained"], strict=True))
    best, least = min(curve, key=lambda pair: pair[1])
    cells = data.mean_losses()
    panels = [
        _loss_over_ratio(data, cells, k, f"k = {k:g}: unexplained {value:.3g}") for k, value in sorted(scores.items())
    ]
    if all(abs(math.log(best / k)) > _SAME_K for k in scores):
        panels.append(_loss_over_ratio(data, cells, best, f"least at k = {best:.3g}: unexplained {least:.3g}"))
    panels.append(_unexplained(curve, sorted(scores), best, least))
    caption = (
        "If the loss were a function of N/D^k alone, all runs would lie on one curve. The number above a panel is what "
        "a spline in ln(N/D^k) leaves unexplained of a cell that it has not seen, as a share of the variance of the "
        "loss: 0 is a perfect collapse, 1 none, and above 1 is worse than the mean. The last panel has it for every k."
    )
    if estimate["refusal"]:
        caption += f" No exponent from these: {estimate['refusal']}."
    return Chart(
        "collapse", "Collapse on N/D^k", caption + data.sample_note, [("", panels)], size_legend(data), N_TITLE
    )


def _loss_over_ratio(data: FitData, cells: Cells, k: float, title: str) -> Panel:
    points: dict[str, list[tuple[float, float, str]]] = {}
    # By logarithms: D^k itself can overflow.
    log_ratios = {(N, D): math.log(N) - k * math.log(D) for N, D in cells}
    centre = sum(log_ratios.values()) / len(log_ratios)
    for (N, D), loss in sorted(cells.items()):
        label = f"{run_label(N, D, None)}: {loss:.4f}"
        points.setdefault(data.size_colour(N), []).append((math.exp(log_ratios[(N, D)] - centre), loss, label))
    x = log_axis(f"N/D^{k:.3g} (geometric mean 1)", [ratio for row in points.values() for ratio, _, _ in row])
    y = log_axis("loss (nats per token)", list(cells.values()))
    joined = data.one_colour_per_size
    series = [
        Series(
            colour,
            [ratio for ratio, _, _ in row],
            [loss for _, loss, _ in row],
            colour,
            colour,
            "solid" if joined else "none",
            width=1.2,
            marker="circle",
            size=6 if joined else 4,
            labels=[label for _, _, label in row],
        )
        for colour, row in points.items()
    ]
    return Panel(title, x, y, series, height=280)


def _unexplained(curve: list[tuple[float, float]], hypotheses: list[float], best: float, least: float) -> Panel:
    x = log_axis("k", [k for k, _ in curve])
    y = log_axis("unexplained share of the variance", [value for _, value in curve] + [1.0])
    label = f"least {least:.3g} at k = {best:.3g}"
    series = [
        Series("unexplained", [k for k, _ in curve], [value for _, value in curve], "ink", width=1.6),
        Series(label, [best], [least], "accent", dash="none", marker="circle", size=9, labels=[label]),
    ]
    lines = (*references([(f"{k:g}", k) for k in hypotheses], x, "x"), Reference(1.0, "", dash="dotted"))
    return Panel("unexplained at every k", x, y, series, lines, height=280)
