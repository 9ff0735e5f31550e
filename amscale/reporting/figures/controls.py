"""The radius of a trained model beside its controls, from a radius experiment on a trial of the sweep."""

from typing import Any, Literal

from amscale.reporting.axes import log_axis
from amscale.reporting.chart import Chart, LegendItem, Panel, Reference, Series
from amscale.reporting.report_data import ReportData

_STYLES: dict[str, tuple[str, Literal["solid", "dashed", "dotted"]]] = {
    "trained": ("accent", "solid"),
    "random weights": ("ink", "dashed"),
    "gaussian": ("ink", "dotted"),
    "shuffled": ("muted", "solid"),
}
"""Colour and dash of each set of vectors."""


def controls(report: ReportData) -> Chart | None:
    """Build the median radius against the size of the sample, a panel per place in the network."""
    options: list[tuple[str, list[Panel]]] = []
    drawn: set[str] = set()
    for experiment in report.radius_experiments:
        # A summary.json keeps the radii of one place and one set of vectors as an item of "spreads".
        measured = [item for item in experiment["spreads"] if item["samples"]]
        if not measured:
            continue
        options.append((experiment["model"], _panels(measured)))
        drawn |= {item["vectors"] for item in measured}
    if not options:
        return None
    return Chart(
        "controls",
        "Radius beside its controls",
        "Median of half the distance to the nearest neighbour, against the size of the sample. Controls: the "
        "same network with random weights; a Gaussian of the same covariance; the coordinates shuffled. A radius that "
        "falls with the sample, or that the controls share, is by itself no sign of stored patterns.",
        options,
        [
            LegendItem(name, name, colour, "line" if dash == "solid" else dash)
            for name, (colour, dash) in _STYLES.items()
            if name in drawn
        ],
        "vectors",
        "trial",
    )


def _panels(measured: list[dict[str, Any]]) -> list[Panel]:
    radii = [row["radius_median"] for item in measured for row in item["samples"]]
    sizes = [row["size"] for item in measured for row in item["samples"]]
    x = log_axis("vectors in the sample", sizes, sizes=True)
    y = log_axis("radius (activation units)", radii + [item["r_star"] for item in measured])
    panels = []
    for place in dict.fromkeys(item["place"] for item in measured):
        here = [item for item in measured if item["place"] == place]
        r_star = Reference(here[0]["r_star"], f"r* {here[0]['r_star']:.3g}", colour="accent", dash="dashed")
        panels.append(Panel(place.replace("_", " "), x, y, [_series(item) for item in here], (r_star,)))
    return panels


def _series(item: dict[str, Any]) -> Series:
    name, rows = item["vectors"], item["samples"]
    colour, dash = _STYLES.get(name, ("muted", "dashed"))
    labels = [f"{name}, {row['size']:,} vectors: radius {row['radius_median']:.4g}" for row in rows]
    sizes, radii = [row["size"] for row in rows], [row["radius_median"] for row in rows]
    return Series(name, sizes, radii, colour, name, dash, marker="circle", size=5, labels=labels)
