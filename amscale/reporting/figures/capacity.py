"""Memorised bits over D; their maximum at each N is the memorisation capacity."""

from amscale.reporting.axes import linear_axis, log_axis
from amscale.reporting.chart import Chart, Panel, Reference, Series
from amscale.reporting.figures.common import D_TITLE, N_TITLE, size_legend
from amscale.reporting.fit_data import FitData
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
        "M(N, D) = D·(h − train loss)/ln 2, with h the known entropy of the corpus: what a model knows of its own text "
        "beyond what the source allows. The greatest M of a line is the capacity C(N), if it lies inside the grid. "
        "A line that leaves the panel has memorised nothing: its loss is above h. "
        "Morris et al. 2025 (arXiv 2505.24832) measured about 3.6 bits per parameter.",
        [("", panels)],
        size_legend(data),
        N_TITLE,
    )
