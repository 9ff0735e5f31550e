"""Floors of several corpora against their entropies: whether the loss follows the entropy, or stays at 1."""

import math
from typing import Any

from amscale.reporting.report.analysis import Analysis
from amscale.reporting.report.axes import linear_axis, references
from amscale.reporting.report.chart import Chart, Key, Marker, Panel, Series
from amscale.scaling.estimate import FLOOR

_KINDS: tuple[tuple[str, str, Marker], ...] = (
    ("least settled train loss", "accent", "circle"),
    ("least validation loss", "ink", "diamond"),
)


def against_entropy(analysis: Analysis) -> Chart | None:
    """The least losses of each corpus against its entropy; None where not at least two have a known one."""
    rows = {name: _known(analysis, name) for name, *_ in _KINDS}
    found = [row for kind in rows.values() for row in kind]
    if len({_entropy(row) for row in found}) < 2:
        return None
    x = linear_axis("entropy of the corpus (nats per token)", map(_entropy, found))
    y = linear_axis("loss (nats per token)", [1.0, *map(_entropy, found), *(row["value"] for row in found)])
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


def _known(analysis: Analysis, name: str) -> list[dict[str, Any]]:
    """The floors of that name of those corpora whose entropy is known."""
    floors = [row for row in analysis.estimates(FLOOR) if row["estimand"].startswith(name) and row["value"] is not None]
    return [row for row in floors if "corpus" in row["details"] and "entropy" in row["details"]["references"]]


def _entropy(row: dict[str, Any]) -> float:
    return float(row["details"]["references"]["entropy"])


def _points(rows: list[dict[str, Any]], tone: str, name: str, marker: Marker) -> Series:
    labels = [f"{row['details']['corpus']}: {row['value']:.4f}" for row in rows]
    x, y = [_entropy(row) for row in rows], [row["value"] for row in rows]
    return Series(name, x, y, tone, group=name, dash="none", marker=marker, labels=labels)


def _intervals(rows: list[dict[str, Any]], tone: str, name: str) -> list[Series]:
    bounded = [row for row in rows if row["interval"] and all(math.isfinite(end) for end in row["interval"])]
    ends = [([_entropy(row)] * 2, list(row["interval"])) for row in bounded]
    return [Series("95 % interval", x, y, tone, group=name, width=1.6) for x, y in ends]
