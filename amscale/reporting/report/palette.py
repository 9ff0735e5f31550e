"""Colours by tone, for light and dark surfaces."""

from collections.abc import Sequence
from functools import cache

from amscale.reporting.report.chart import Chart

BASE = {
    "surface": ("#fcfbf9", "#171614"),
    "ink": ("#1d1b18", "#ece9e3"),
    "muted": ("#67625a", "#a8a299"),
    "faint": ("#e3dfd8", "#35312c"),
    "accent": ("#b8430b", "#ff9c62"),
}
"""Tone to (light, dark). The accent is vermilion, which the sequential scales do not contain."""

_MAPS = {
    "size": ("viridis", (0.0, 0.80), (0.32, 0.98)),
    "layer": ("plasma", (0.0, 0.66), (0.30, 0.92)),
    "level": ("plasma", (0.0, 0.66), (0.30, 0.92)),
}
"""Levels are budgets and losses. All are perceptually uniform and safe for the common kinds of colour blindness; the
ends that vanish on a surface are cut."""


@cache
def scale(kind: str, count: int) -> dict[str, tuple[str, str]]:
    """`count` colours from low to high as {"size:0": (light, dark), …}; kind is size, layer or level."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    name, light, dark = _MAPS[kind]
    colours = {}
    for index in range(count):
        share = index / (count - 1) if count > 1 else 0.5
        pair = (to_hex(colormaps[name](low + share * (high - low))) for low, high in (light, dark))
        colours[f"{kind}:{index}"] = (next(pair), next(pair))
    return colours


def palette_of(charts: Sequence[Chart]) -> dict[str, tuple[str, str]]:
    """Every tone that the figures use."""
    tones = {series.tone for chart in charts for _, panels in chart.options for p in panels for series in p.series}
    palette = dict(BASE)
    for kind in _MAPS:
        indices = [int(tone.partition(":")[2]) for tone in tones if tone.startswith(f"{kind}:")]
        palette |= scale(kind, max(indices, default=-1) + 1)
    return palette
