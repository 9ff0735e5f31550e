"""The radius of a trained model beside its controls, from a radius experiment on a trial of the sweep."""

from typing import Any, Literal

from amscale.reporting.report.axes import log_axis
from amscale.reporting.report.chart import Chart, Key, Panel, Reference, Series
from amscale.reporting.report.gather import Sweep

_LOOKS: dict[str, tuple[str, Literal["solid", "dashed", "dotted"]]] = {
    "trained": ("accent", "solid"),
    "random weights": ("ink", "dashed"),
    "gaussian": ("ink", "dotted"),
    "shuffled": ("muted", "solid"),
}
"""Tone and dash of each set of vectors."""


def controls(sweep: Sweep) -> Chart | None:
    """Median radius against the size of the sample, a panel per place in the network."""
    experiments = [item for item in sweep.radius_experiments if any(spread["samples"] for spread in item["spreads"])]
    if not experiments:
        return None
    options: list[tuple[str, list[Panel]]] = []
    drawn: set[str] = set()
    for experiment in experiments:
        spreads = [spread for spread in experiment["spreads"] if spread["samples"]]
        values = [row["radius_median"] for spread in spreads for row in spread["samples"]]
        sizes = [row["size"] for spread in spreads for row in spread["samples"]]
        x = log_axis("vectors in the sample", sizes, sizes=True)
        y = log_axis("radius (activation units)", values + [spread["r_star"] for spread in spreads])
        panels = []
        for place in dict.fromkeys(spread["place"] for spread in spreads):
            here = [spread for spread in spreads if spread["place"] == place]
            drawn |= {spread["vectors"] for spread in here}
            star = Reference(here[0]["r_star"], f"r* {here[0]['r_star']:.3g}", tone="accent", dash="dashed")
            panels.append(Panel(place.replace("_", " "), x, y, [_line(spread) for spread in here], (star,)))
        options.append((experiment["model"], panels))
    return Chart(
        "controls",
        "Radius beside its controls",
        "Median of half the distance to the nearest neighbour, against the size of the sample. Controls: the "
        "same network with random weights; a Gaussian of the same covariance; the coordinates shuffled. A radius that "
        "falls with the sample, or that the controls share, is by itself no sign of stored patterns.",
        options,
        [
            Key(name, name, tone, "line" if dash == "solid" else dash)
            for name, (tone, dash) in _LOOKS.items()
            if name in drawn
        ],
        "vectors",
        "trial",
    )


def _line(spread: dict[str, Any]) -> Series:
    tone, dash = _LOOKS.get(spread["vectors"], ("muted", "dashed"))
    rows = spread["samples"]
    labels = [f"{spread['vectors']}, {row['size']:,} vectors: radius {row['radius_median']:.4g}" for row in rows]
    sizes, radii = [row["size"] for row in rows], [row["radius_median"] for row in rows]
    return Series(
        spread["vectors"], sizes, radii, tone, spread["vectors"], dash, marker="circle", size=5, labels=labels
    )
