"""What several figures share."""

import math
from collections.abc import Sequence
from typing import Any

from amscale.reporting.analysis import MOST_TONES, Analysis
from amscale.reporting.chart import Axis, Key, Panel, Series, Text
from amscale.settings import format_size

N_TITLE = "N (parameters)"
D_TITLE = "D (unique tokens)"
C_TITLE = "C (FLOPs)"


def known_figures(
    analysis: Analysis, trials: Sequence[Any] | None = None, memorised: bool = False
) -> list[tuple[str, float]]:
    """What a floor is held against: 1, and what the corpus is known to allow where the trials agree on it."""
    found = [("1", 1.0)]
    facts = {"entropy": "entropy_per_token"} | ({"memorised": "memorised_per_token"} if memorised else {})
    for name, key in facts.items():
        value = analysis.fact(key, trials)
        if value is not None:
            found.append((f"{name} {value:.4g}", value))
    return found


def beside(known: list[tuple[str, float]]) -> str:
    """What the dotted lines of a figure are."""
    named = "1 nat per token" + (" and the known entropy of the corpus" if len(known) > 1 else "")
    return f" Dotted: {named}."


def size_keys(analysis: Analysis) -> list[Key]:
    """A key for each N; of many, which share colours, for a few colours with the N that they begin at."""
    sizes = analysis.sizes
    if len(sizes) <= MOST_TONES:
        return [Key(analysis.tone(N), format_size(N), analysis.tone(N)) for N in sizes]
    first: dict[str, float] = {}
    for N in sizes:
        first.setdefault(analysis.tone(N), N)
    return [Key(tone, f"from {format_size(N)}", tone) for tone, N in first.items()]


def evenly_chosen(values: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the values, evenly spread, the ends among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(index * (len(values) - 1) / (most - 1))] for index in range(most)]


def power_line(x: Axis, y: Axis, centre: tuple[float, float], slope: float, **look: Any) -> Series | None:
    """The line y ∝ x^slope through `centre`, as far as it is inside the panel; None where it is not."""
    start, end = (math.log(limit / centre[0]) for limit in x.range)
    low, high = (math.log(limit / centre[1]) for limit in y.range)
    if slope:
        start, end = max(start, min(low / slope, high / slope)), min(end, max(low / slope, high / slope))
    if start >= end:
        return None
    ends = (start, end)
    return Series(x=[centre[0] * math.exp(u) for u in ends], y=[centre[1] * math.exp(slope * u) for u in ends], **look)


def hypothesis_line(
    test: dict[str, Any], x: Axis, y: Axis, centre: tuple[float, float], slope: float
) -> tuple[Series, Text] | None:
    """A hypothesis as a line through `centre`, dotted if it is rejected, with its k at the line's end."""
    said, group, dash = ("rejected", "rejected", "dotted") if test["rejected"] else ("not rejected", "open", "dashed")
    name = f"{test['name']}: {said}"
    line = power_line(x, y, centre, slope, name=name, tone="muted", group=group, dash=dash, width=1.4)
    if line is None:
        return None
    end = float(line.x[1] or 0), float(line.y[1] or 0)
    at_top = end[1] > y.range[1] * 0.999
    return line, Text(*end, f"{test['value']:g}", "muted", "center" if at_top else "right")


def line_keys(panel: Panel, *more: Key) -> list[Key]:
    """Keys for what stands in a panel: the lines of the estimate and of the hypotheses, and what else there may be."""
    names = {series.group: series.name for series in panel.series}
    known = (
        Key("estimate", names.get("estimate", ""), "accent"),
        Key("interval", "95 % interval of k", "accent", "band"),
        Key("open", "hypothesis, not rejected", "muted", "dashed"),
        Key("rejected", "hypothesis, rejected", "muted", "dotted"),
        *more,
    )
    return [key for key in known if key.group in names]
