"""Parts that several figures share: axis titles, legends, known losses, and lines N ∝ D^k."""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

from amscale.reporting.chart import Axis, ChartText, LegendItem, Panel, Series
from amscale.reporting.fit_data import FitData
from amscale.settings import format_size

N_TITLE = "N (parameters)"
D_TITLE = "D (unique tokens)"
C_TITLE = "C (FLOPs)"

_Item = TypeVar("_Item")


def known_losses(
    data: FitData, trials: Sequence[Any] | None = None, memorised: bool = False
) -> list[tuple[str, float]]:
    """Return (label, loss) of what a floor is compared with: 1, and what is known of the corpus of the trials."""
    found = [("1", 1.0)]
    facts = {"entropy": "entropy_per_token"} | ({"memorised": "memorised_per_token"} if memorised else {})
    for label, fact in facts.items():
        value = data.corpus_fact(fact, trials)
        if value is not None:
            found.append((f"{label} {value:.4g}", value))
    return found


def known_losses_note(known: list[tuple[str, float]]) -> str:
    """Return a sentence for captions that says what the dotted lines are."""
    named = "1 nat per token" + (" and the known entropy of the corpus" if len(known) > 1 else "")
    return f" Dotted: {named}."


def size_legend(data: FitData) -> list[LegendItem]:
    """Return a legend item for each N; where many N share colours, one for each colour with its least N."""
    if data.one_colour_per_size:
        return [LegendItem(data.size_colour(N), format_size(N), data.size_colour(N)) for N in data.sizes]
    first: dict[str, float] = {}
    for N in data.sizes:
        first.setdefault(data.size_colour(N), N)
    return [LegendItem(colour, f"from {format_size(N)}", colour) for colour, N in first.items()]


def evenly_spaced(values: Sequence[_Item], most: int) -> list[_Item]:
    """Return at most `most` of the values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(index * (len(values) - 1) / (most - 1))] for index in range(most)]


def power_line(x: Axis, y: Axis, centre: tuple[float, float], slope: float, **style: Any) -> Series | None:
    """Return the line y ∝ x^slope through `centre`, cut at the panel's edges; None where it lies outside."""
    start, end = (math.log(limit / centre[0]) for limit in x.range)
    low, high = (math.log(limit / centre[1]) for limit in y.range)
    if slope:
        start, end = max(start, min(low / slope, high / slope)), min(end, max(low / slope, high / slope))
    if start >= end:
        return None
    ends = (start, end)
    return Series(x=[centre[0] * math.exp(u) for u in ends], y=[centre[1] * math.exp(slope * u) for u in ends], **style)


def hypothesis_line(
    test: dict[str, Any], x: Axis, y: Axis, centre: tuple[float, float], slope: float
) -> tuple[Series, ChartText] | None:
    """Return a hypothesis as a line through `centre`, dotted if it is rejected, and its k as a label at the end."""
    verdict, group, dash = (
        ("rejected", "rejected", "dotted") if test["rejected"] else ("not rejected", "open", "dashed")
    )
    name = f"{test['name']}: {verdict}"
    line = power_line(x, y, centre, slope, name=name, colour="muted", group=group, dash=dash, width=1.4)
    if line is None:
        return None
    end = float(line.x[1] or 0), float(line.y[1] or 0)
    at_top = end[1] > y.range[1] * 0.999
    return line, ChartText(*end, f"{test['value']:g}", "muted", "center" if at_top else "right")


def line_legend(panel: Panel, *more: LegendItem) -> list[LegendItem]:
    """Return legend items for the lines of the estimate and of the hypotheses, and for `more`, that the panel has."""
    names = {series.group: series.name for series in panel.series}
    items = (
        LegendItem("estimate", names.get("estimate", ""), "accent"),
        LegendItem("interval", "95 % interval of k", "accent", "band"),
        LegendItem("open", "hypothesis, not rejected", "muted", "dashed"),
        LegendItem("rejected", "hypothesis, rejected", "muted", "dotted"),
        *more,
    )
    return [item for item in items if item.group in names]
