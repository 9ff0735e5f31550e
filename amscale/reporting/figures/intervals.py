"""Exponents and floors side by side with their intervals; floors of several corpora against their entropies."""

import math
import textwrap
from typing import Any

from amscale.reporting.axes import linear_axis, log_axis, references
from amscale.reporting.chart import Axis, Chart, ChartText, LegendItem, Marker, Panel, Reference, Series
from amscale.reporting.figures.common import known_losses
from amscale.reporting.fit_data import FitData
from amscale.scaling.estimate import EXPONENT, FLOOR

_ROW_HEIGHT = 64
"""Pixels of a row with a label of two lines, which is one unit of the y axis."""
_LABEL_WIDTH = 54
"""Characters of a label that fit the screen of a phone."""
_MAX_REACH = 3.0
"""An interval is cut at this many times the outermost value or hypothesis."""


def exponents(data: FitData) -> Chart | None:
    """Build every estimate of k with its interval, beside the hypotheses."""
    rows = [item for item in data.estimates(EXPONENT) if item["value"] is not None]
    if not rows:
        return None
    hypotheses = sorted({test["value"] for item in data.estimates(EXPONENT) for test in item["hypotheses"]})
    values = [*hypotheses, *(item["value"] for item in rows)]
    low, high = min(values) / _MAX_REACH, max(values) * _MAX_REACH
    ends = [min(max(end, low), high) for item in rows for end in item["interval"] or () if end > 0]
    axis = log_axis("k in N ∝ D^k", [*values, *ends], margin=0.08)
    lines = references([(f"{k:g}", k) for k in hypotheses], axis, "x")
    return Chart(
        "exponent",
        "Exponent k",
        "One row an estimate: the value and its 95 % interval; an arrow says that the interval goes on beyond the "
        "panel. Dotted: the hypotheses. An interval that contains a dotted line does not reject it. The estimands "
        "differ, and need not agree.",
        [("", [_rows(rows, axis, lines)])],
        _legend(rows),
    )


def floors(data: FitData) -> Chart | None:
    """Build every estimate of the loss floor with its interval, beside 1 and what is known of the corpus."""
    rows = [item for item in data.estimates(FLOOR) if item["value"] is not None]
    if not rows or data.corpora:
        return None
    known = known_losses(data)
    ends = [end for item in rows for end in item["interval"] or () if math.isfinite(end)]
    axis = linear_axis("loss (nats per token)", [0.0, *(item["value"] for item in rows), *ends, *(v for _, v in known)])
    axis = Axis(axis.title, False, (min(axis.range[0], 0.0), axis.range[1]))
    return Chart(
        "floor",
        "Loss floor",
        "One row an estimate with its 95 % interval, where it has one. Dotted: 1 nat per token"
        + (", and the known entropy of the corpus." if len(known) > 1 else "; the corpus has no known entropy."),
        [("", [_rows(rows, axis, references(known, axis, "x"))])],
        _legend(rows),
    )


def _rows(rows: list[dict[str, Any]], x: Axis, lines: tuple[Reference, ...]) -> Panel:
    series: list[Series] = []
    texts: list[ChartText] = []
    low, high = _limits(x)
    bottom = 0.0
    for item in rows:
        title = _title(item, rows)
        y, name = bottom - 0.3 - 0.35 * len(title.splitlines()), f"{item['estimand']}: {item['value']:.4g}"
        if item["interval"] is not None:
            first, last = item["interval"]
            ends = max(first, low), min(last, high)
            name += f" ({_end(first)} to {_end(last)})"
            series.append(Series(name, list(ends), [y, y], "muted", "interval", width=3))
            markers: tuple[Marker, Marker] = ("left" if first < low else "bar", "right" if last > high else "bar")
            for end, marker in zip(ends, markers, strict=True):
                series.append(
                    Series(name, [end], [y], "muted", "interval", "none", marker=marker, size=10, labels=[name])
                )
        series.append(
            Series(name, [item["value"]], [y], "accent", "value", "none", marker="circle", size=10, labels=[name])
        )
        texts.append(ChartText(low, y + 0.14, title, "ink", "left", opaque=True))
        bottom = y - 0.15
    height = 80 + round(_ROW_HEIGHT * -bottom)
    return Panel("", x, Axis("", False, (bottom - 0.15, 0.1)), series, lines, texts, height)


def _limits(axis: Axis) -> tuple[float, float]:
    """Return the ends of the panel, less the space that an arrow takes."""
    low, high = axis.range
    if axis.log:
        return low * (high / low) ** 0.015, high / (high / low) ** 0.015
    return low + 0.015 * (high - low), high - 0.015 * (high - low)


def _title(item: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the estimand, followed by the objective where two rows have the same estimand."""
    text = textwrap.fill(item["estimand"], _LABEL_WIDTH)
    if sum(other["estimand"] == item["estimand"] for other in rows) > 1:
        text += "\n" + textwrap.shorten(item["objective"], _LABEL_WIDTH, placeholder=" …")
    return text


def _end(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ("−∞" if value < 0 else "∞")


def _legend(rows: list[dict[str, Any]]) -> list[LegendItem]:
    items = [LegendItem("value", "estimate", "accent", "marker")]
    if any(item["interval"] for item in rows):
        items.append(LegendItem("interval", "95 % interval", "muted", "thick"))
    return items


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
