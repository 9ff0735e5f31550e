"""Memorised bits over D, whose greatest value at each N is the memorisation capacity."""

from amscale.reporting.analysis import Analysis
from amscale.reporting.axes import linear_axis, log_axis
from amscale.reporting.chart import Chart, Panel, Reference, Series
from amscale.reporting.figures.common import D_TITLE, N_TITLE, size_keys
from amscale.settings import format_size

_BELOW = 0.2
"""What is shown below 0, as a share of the most that was memorised."""


def capacity(analysis: Analysis) -> Chart | None:
    """M(N, D) with a line per N, in bits and in bits per parameter."""
    rows = analysis.detail("capacities") or []
    if not rows:
        return None
    x = log_axis(D_TITLE, [D for row in rows for D in row["D"]], sizes=True)
    panels = []
    for title, unit, share in (("in all", "bits", False), ("per parameter", "bits per parameter", True)):
        series, seen = [], [0.0]
        for row in rows:
            tone, name = analysis.tone(row["N"]), f"N = {format_size(row['N'])}"
            values = [bits / row["N"] if share else bits for bits in row["memorised"]]
            labels = [
                f"{name}, D = {format_size(D)}: {value:.4g} {unit}" for D, value in zip(row["D"], values, strict=True)
            ]
            series.append(Series(name, row["D"], values, tone, tone, marker="circle", labels=labels))
            seen += values
        most = max(seen)
        axis = linear_axis(f"memorised M ({unit})", [max(value, -_BELOW * most) for value in seen] if most else seen)
        panels.append(Panel(title, x, axis, series, (Reference(0.0, ""),)))
    return Chart(
        "capacity",
        "Memorised bits",
        "M(N, D) = D·(h − train loss)/ln 2, with h the known entropy of the corpus: what a model knows of its own text "
        "beyond what the source allows. The greatest M of a line is the capacity C(N), if it lies inside the grid. "
        "A line that leaves the panel has memorised nothing: its loss is above h. "
        "Morris et al. 2025 (arXiv 2505.24832) measured about 3.6 bits per parameter.",
        [("", panels)],
        size_keys(analysis),
        N_TITLE,
    )
