"""Floors of several corpora against their entropies: whether the loss follows the entropy, or stays at 1."""

import math
from typing import Any

from amscale.reporting.report.analysis import Analysis
from amscale.reporting.report.axes import linear_axis, references
from amscale.reporting.report.chart import Chart, Key, Marker, Panel, Series

_KINDS: tuple[tuple[str, str, Marker], ...] = (
    ("least settled train loss", "accent", "circle"),
    ("least validation loss", "ink", "diamond"),
)


def against_entropy(analysis: Analysis) -> Chart | None:
    """The least losses of each corpus against its entropy; None where not at least two have a known one."""
    rows = {name: analysis.beside_entropy(name) for name, *_ in _KINDS}
    entropies = [entropy for found in rows.values() for entropy, _ in found]
    if len(set(entropies)) < 2:
        return None
    x = linear_axis("entropy of the corpus (nats per token)", entropies)
    losses = [row["value"] for found in rows.values() for _, row in found]
    y = linear_axis("loss (nats per token)", [1.0, *entropies, *losses])
    series = [Series("loss = entropy", x.range, x.range, "muted", group="equal", dash="dashed", width=1.4)]
    for name, tone, marker in _KINDS:
        series += [*_intervals(rows[name], tone, name), _points(rows[name], tone, name, marker)]
    keys = [Key(name, name, tone, "diamond" if marker == "diamond" else "marker") for name, tone, marker in _KINDS]
    return Chart(
        "entropy",
        "Loss against the entropy of the corpus",
        "One point a corpus and a loss, with the 95 % interval where it has one. A loss that follows the entropy lies "
        "on the dashed line; a floor of 1 nat per token, on the dotted one.",
        [("", [Panel("", x, y, series, references([("1", 1.0)], y))])],
        [*keys, Key("equal", "loss = entropy", "muted", "dashed")],
    )


def _points(rows: list[tuple[float, dict[str, Any]]], tone: str, name: str, marker: Marker) -> Series:
    labels = [f"{row['details']['corpus']}: {row['value']:.4f}" for _, row in rows]
    x, y = [entropy for entropy, _ in rows], [row["value"] for _, row in rows]
    return Series(name, x, y, tone, group=name, dash="none", marker=marker, labels=labels)


def _intervals(rows: list[tuple[float, dict[str, Any]]], tone: str, name: str) -> list[Series]:
    ends = [(entropy, row["interval"]) for entropy, row in rows if row["interval"]]
    bounded = [(entropy, pair) for entropy, pair in ends if all(map(math.isfinite, pair))]
    return [Series("95 % interval", [at, at], list(pair), tone, group=name, width=1.6) for at, pair in bounded]
