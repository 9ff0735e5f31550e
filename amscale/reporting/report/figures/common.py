"""What several figures share."""

import math
from collections.abc import Sequence
from typing import Any

from amscale.reporting.report.analysis import MOST_TONES, Analysis
from amscale.reporting.report.chart import Axis, Key, Series
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


def spread(values: Sequence[Any], most: int) -> list[Any]:
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
