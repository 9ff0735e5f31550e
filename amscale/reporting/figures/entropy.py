"""The least losses on several corpora against their entropies: whether the loss follows the entropy, or stays at 1."""

import math
from typing import Any

from amscale.reporting.axes import linear_axis, references
from amscale.reporting.chart import Chart, LegendItem, Marker, Panel, Series
from amscale.reporting.fit_data import FitData

_LOSSES: tuple[tuple[str, str, Marker], ...] = (
    ("least settled train loss", "accent", "circle"),
    ("least validation loss", "ink", "diamond"),
)
"""Estimand, colour and marker of each loss."""

Pairs = list[tuple[float, dict[str, Any]]]
"""(entropy of the corpus, estimate of the floor)."""


def loss_against_entropy(data: FitData) -> Chart | None:
    """Build the least losses of each corpus against its entropy; None unless two known entropies differ."""
    pairs = {name: data.floors_with_entropy(name) for name, *_ in _LOSSES}
    entropies = [entropy for found in pairs.values() for entropy, _ in found]
    if len(set(entropies)) < 2:
        return None
    x = linear_axis("entropy of the corpus (nats per token)", entropies)
    losses = [row["value"] for found in pairs.values() for _, row in found]
    y = linear_axis("loss (nats per token)", [1.0, *entropies, *losses])
    series = [Series("loss = entropy", x.range, x.range, "muted", group="equal", dash="dashed", width=1.4)]
    for name, colour, marker in _LOSSES:
        series += [*_intervals(pairs[name], colour, name), _points(pairs[name], colour, name, marker)]
    legend = [
        LegendItem(name, name, colour, "diamond" if marker == "diamond" else "marker")
        for name, colour, marker in _LOSSES
    ]
    return Chart(
        "entropy",
        "Loss against the entropy of the corpus",
        "One point a corpus and a loss, with the 95 % interval where it has one. A loss that follows the entropy lies "
        "on the dashed line; a floor of 1 nat per token, on the dotted one.",
        [("", [Panel("", x, y, series, references([("1", 1.0)], y))])],
        [*legend, LegendItem("equal", "loss = entropy", "muted", "dashed")],
    )


def _points(pairs: Pairs, colour: str, name: str, marker: Marker) -> Series:
    labels = [f"{row['details']['corpus']}: {row['value']:.4f}" for _, row in pairs]
    x, y = [entropy for entropy, _ in pairs], [row["value"] for _, row in pairs]
    return Series(name, x, y, colour, group=name, dash="none", marker=marker, labels=labels)


def _intervals(pairs: Pairs, colour: str, name: str) -> list[Series]:
    intervals = [(entropy, row["interval"]) for entropy, row in pairs if row["interval"]]
    closed = [(entropy, ends) for entropy, ends in intervals if all(map(math.isfinite, ends))]
    return [Series("95 % interval", [x, x], list(ends), colour, group=name, width=1.6) for x, ends in closed]
