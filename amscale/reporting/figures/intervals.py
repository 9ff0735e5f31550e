"""Estimates side by side as dots with intervals: the exponent k, and the loss floor.

Floors of several corpora against their entropies: whether the loss follows the entropy, or stays at 1.
"""

import math
import textwrap
from typing import Any

from amscale.reporting.analysis import Analysis
from amscale.reporting.axes import linear_axis, log_axis, references
from amscale.reporting.chart import Axis, Chart, Key, Marker, Panel, Reference, Series, Text
from amscale.reporting.figures.common import known_figures
from amscale.scaling.estimate import EXPONENT, FLOOR

_ROW = 64
"""Pixels of a row with a label of two lines, which is one unit of the y axis."""
_WIDE = 54
"""Characters of a label that a phone has room for."""
_FURTHEST = 3.0
"""An interval is cut at this many times the outermost value or hypothesis."""


def exponents(analysis: Analysis) -> Chart | None:
    """Every estimate of k with its interval, beside the hypotheses."""
    rows = [item for item in analysis.estimates(EXPONENT) if item["value"] is not None]
    if not rows:
        return None
    hypotheses = sorted({test["value"] for item in analysis.estimates(EXPONENT) for test in item["hypotheses"]})
    values = [*hypotheses, *(item["value"] for item in rows)]
    low, high = min(values) / _FURTHEST, max(values) * _FURTHEST
    seen = [min(max(end, low), high) for item in rows for end in item["interval"] or () if end > 0]
    axis = log_axis("k in N ∝ D^k", [*values, *seen], margin=0.08)
    lines = references([(f"{k:g}", k) for k in hypotheses], axis, "x")
    return Chart(
        "exponent",
        "Exponent k",
        "One row an estimate: the value and its 95 % interval; an arrow says that the interval goes on beyond the "
        "panel. Dotted: the hypotheses. An interval that holds a dotted line does not reject it. The estimands differ, "
        "and need not agree.",
        [("", [_rows(rows, axis, lines)])],
        _keys(rows),
    )


def floors(analysis: Analysis) -> Chart | None:
    """Every estimate of the loss floor with its interval, beside 1 and beside what the corpus is known to allow."""
    rows = [item for item in analysis.estimates(FLOOR) if item["value"] is not None]
    if not rows or analysis.mixed:
        return None
    known = known_figures(analysis)
    ends = [end for item in rows for end in item["interval"] or () if math.isfinite(end)]
    axis = linear_axis("loss (nats per token)", [0.0, *(item["value"] for item in rows), *ends, *(v for _, v in known)])
    axis = Axis(axis.title, False, (min(axis.range[0], 0.0), axis.range[1]))
    return Chart(
        "floor",
        "Loss floor",
        "One row an estimate with its 95 % interval, where it has one. Dotted: 1 nat per token"
        + (", and the known entropy of the corpus." if len(known) > 1 else "; the corpus has no known entropy."),
        [("", [_rows(rows, axis, references(known, axis, "x"))])],
        _keys(rows),
    )


def _rows(rows: list[dict[str, Any]], x: Axis, lines: tuple[Reference, ...]) -> Panel:
    series: list[Series] = []
    texts: list[Text] = []
    low, high = _inside(x)
    bottom = 0.0
    for item in rows:
        text = _title(item, rows)
        y, name = bottom - 0.3 - 0.35 * len(text.splitlines()), f"{item['estimand']}: {item['value']:.4g}"
        if item["interval"] is not None:
            first, last = item["interval"]
            ends = max(first, low), min(last, high)
            name += f" ({_end(first)} to {_end(last)})"
            series.append(Series(name, list(ends), [y, y], "muted", "interval", width=3))
            shapes: tuple[Marker, Marker] = ("left" if first < low else "bar", "right" if last > high else "bar")
            for end, shape in zip(ends, shapes, strict=True):
                series.append(
                    Series(name, [end], [y], "muted", "interval", "none", marker=shape, size=10, labels=[name])
                )
        series.append(
            Series(name, [item["value"]], [y], "accent", "value", "none", marker="circle", size=10, labels=[name])
        )
        texts.append(Text(low, y + 0.14, text, "ink", "left", covers=True))
        bottom = y - 0.15
    return Panel("", x, Axis("", False, (bottom - 0.15, 0.1)), series, lines, texts, height=80 + round(_ROW * -bottom))


def _inside(axis: Axis) -> tuple[float, float]:
    """The ends of the panel, less the room that an arrow takes."""
    low, high = axis.range
    if axis.log:
        return low * (high / low) ** 0.015, high / (high / low) ** 0.015
    return low + 0.015 * (high - low), high - 0.015 * (high - low)


def _title(item: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The estimand; where two rows share it their objective tells them apart."""
    text = textwrap.fill(item["estimand"], _WIDE)
    if sum(other["estimand"] == item["estimand"] for other in rows) > 1:
        text += "\n" + textwrap.shorten(item["objective"], _WIDE, placeholder=" …")
    return text


def _end(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else ("−∞" if value < 0 else "∞")


def _keys(rows: list[dict[str, Any]]) -> list[Key]:
    keys = [Key("value", "estimate", "accent", "marker")]
    return keys + (
        [Key("interval", "95 % interval", "muted", "thick")] if any(item["interval"] for item in rows) else []
    )


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
