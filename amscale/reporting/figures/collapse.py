"""Collapse: the loss of all cells over N/D^k, one panel a hypothesis, and how much of it no curve in N/D^k explains."""

import math

from amscale.reporting.analysis import MOST_TONES, Analysis
from amscale.reporting.axes import log_axis, references
from amscale.reporting.chart import Chart, Panel, Reference, Series
from amscale.reporting.figures.common import N_TITLE, size_keys
from amscale.settings import format_size

_ALIKE = 0.03
"""A best k within this of a hypothesis, in ln k, has no panel of its own."""

Cells = dict[tuple[float, float], float]


def collapse(analysis: Analysis) -> Chart | None:
    """A panel for each hypothesis and the best k, and the unexplained share over k; nothing without a score."""
    estimate = analysis.estimate_with("unexplained")
    if estimate is None:
        return None
    details = estimate["details"]
    scores = {float(k): value for k, value in details["unexplained_at"].items()}
    curve = list(zip(details["k"], details["unexplained"], strict=True))
    best, least = min(curve, key=lambda pair: pair[1])
    cells = analysis.cells()
    panels = [
        _against(analysis, cells, k, f"k = {k:g}: unexplained {value:.3g}") for k, value in sorted(scores.items())
    ]
    if all(abs(math.log(best / k)) > _ALIKE for k in scores):
        panels.append(_against(analysis, cells, best, f"least at k = {best:.3g}: unexplained {least:.3g}"))
    panels.append(_scores(curve, sorted(scores), best, least))
    caption = (
        "If the loss were a function of N/D^k alone, all runs would lie on one curve. The number above a panel is what "
        "a spline in ln(N/D^k) leaves unexplained of a cell that it has not seen, as a share of the variance of the "
        "loss: 0 is a perfect collapse, 1 none, and above 1 is worse than the mean. The last panel has it for every k."
    )
    if estimate["refusal"]:
        caption += f" No exponent from these: {estimate['refusal']}."
    return Chart(
        "collapse", "Collapse on N/D^k", caption + analysis.thinned, [("", panels)], size_keys(analysis), N_TITLE
    )


def _against(analysis: Analysis, cells: Cells, k: float, title: str) -> Panel:
    rows: dict[str, list[tuple[float, float, str]]] = {}
    # By logarithms: D^k itself can be beyond every number.
    logs = {(N, D): math.log(N) - k * math.log(D) for N, D in cells}
    centre = sum(logs.values()) / len(logs)
    for (N, D), loss in sorted(cells.items()):
        said = f"N = {format_size(N)}, D = {format_size(D)}: {loss:.4f}"
        rows.setdefault(analysis.tone(N), []).append((math.exp(logs[(N, D)] - centre), loss, said))
    x = log_axis(f"N/D^{k:.3g} (geometric mean 1)", [place for row in rows.values() for place, _, _ in row])
    y = log_axis("loss (nats per token)", list(cells.values()))
    joined = len(analysis.sizes) <= MOST_TONES
    series = [
        Series(
            tone,
            [place for place, _, _ in row],
            [loss for _, loss, _ in row],
            tone,
            tone,
            "solid" if joined else "none",
            width=1.2,
            marker="circle",
            size=6 if joined else 4,
            labels=[said for _, _, said in row],
        )
        for tone, row in rows.items()
    ]
    return Panel(title, x, y, series, height=280)


def _scores(curve: list[tuple[float, float]], hypotheses: list[float], best: float, least: float) -> Panel:
    x = log_axis("k", [k for k, _ in curve])
    y = log_axis("unexplained share of the variance", [value for _, value in curve] + [1.0])
    said = f"least {least:.3g} at k = {best:.3g}"
    series = [
        Series("unexplained", [k for k, _ in curve], [value for _, value in curve], "ink", width=1.6),
        Series(said, [best], [least], "accent", dash="none", marker="circle", size=9, labels=[said]),
    ]
    lines = (*references([(f"{k:g}", k) for k in hypotheses], x, "x"), Reference(1.0, "", dash="dotted"))
    return Panel("unexplained at every k", x, y, series, lines, height=280)
