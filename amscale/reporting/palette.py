"""The colours of charts by name, for light and dark surfaces."""

from collections.abc import Sequence
from functools import cache

from amscale.reporting.chart import Chart

Palette = dict[str, tuple[str, str]]
"""Colour name to (light, dark), as hexadecimal RGB."""

BASE: Palette = {
    "surface": ("#fcfbf9", "#171614"),
    "ink": ("#1d1b18", "#ece9e3"),
    "muted": ("#67625a", "#a8a299"),
    "faint": ("#e3dfd8", "#35312c"),
    "accent": ("#b8430b", "#ff9c62"),
}
"""The accent is vermilion, which the sequential scales do not contain."""

_SCALES = {
    "size": ("viridis", (0.0, 0.80), (0.32, 0.98)),
    "layer": ("plasma", (0.0, 0.66), (0.30, 0.92)),
    "level": ("plasma", (0.0, 0.66), (0.30, 0.92)),
}
"""Colour map, and the part of it that has contrast on a light and on a dark surface. Levels are compute budgets and
losses. The maps are perceptually uniform and safe for the common kinds of colour blindness."""


@cache
def sequential_colours(kind: str, count: int) -> Palette:
    """Return `count` colours from low to high, named "<kind>:0", "<kind>:1", …; kind is size, layer or level."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    name, light, dark = _SCALES[kind]
    colours = {}
    for index in range(count):
        share = index / (count - 1) if count > 1 else 0.5
        pair = (to_hex(colormaps[name](low + share * (high - low))) for low, high in (light, dark))
        colours[f"{kind}:{index}"] = (next(pair), next(pair))
    return colours


def palette_of(charts: Sequence[Chart]) -> Palette:
    """Return the base colours and every sequential colour that the charts use."""
    used = {series.colour for chart in charts for _, panels in chart.options for p in panels for series in p.series}
    palette = dict(BASE)
    for kind in _SCALES:
        indices = [int(name.partition(":")[2]) for name in used if name.startswith(f"{kind}:")]
        palette |= sequential_colours(kind, max(indices, default=-1) + 1)
    return palette
