"""Figures as plain data, free of any drawing library, and their colours for light and dark surfaces."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

Number = float | None
Marker = Literal["", "circle", "diamond", "up", "down", "left", "right", "bar"]


@dataclass(frozen=True)
class Axis:
    """One axis: title with its unit, the range in data units, and ticks as (value, label)."""

    title: str
    log: bool
    range: tuple[float, float]
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Series:
    """One line, set of markers, or (with `fill`) closed area. A None in x or y breaks the line.

    `group` is the legend item that shows and hides it. `labels` are hover texts, one per point.
    """

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    colour: str
    group: str = ""
    dash: Literal["solid", "dashed", "dotted", "none"] = "solid"
    width: float = 2.0
    marker: Marker = ""
    size: float = 7.0
    opacity: float = 1.0
    fill: bool = False
    labels: Sequence[str] | None = None


@dataclass(frozen=True)
class Reference:
    """A straight line across a panel at one value of an axis; `side` is where a horizontal one has its label."""

    value: float
    label: str
    axis: Literal["x", "y"] = "y"
    colour: str = "muted"
    dash: Literal["dashed", "dotted"] = "dotted"
    side: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class ChartText:
    """A label inside a panel, at data coordinates; an `opaque` one hides what lies behind it."""

    x: float
    y: float
    text: str
    colour: str = "muted"
    align: Literal["left", "center", "right"] = "center"
    above: bool = True
    opaque: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes; `height` in pixels."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    references: Sequence[Reference] = ()
    texts: Sequence[ChartText] = ()
    height: int = 320


@dataclass(frozen=True)
class LegendItem:
    """One item of a legend, for the series of its `group`."""

    group: str
    label: str
    colour: str
    symbol: Literal["line", "dashed", "dotted", "marker", "diamond", "triangle", "band", "thick"] = "line"


@dataclass(frozen=True)
class Chart:
    """One figure of a report: panels, or several sets of panels to choose from.

    `name` is the figure's id on the page and the stem of its files. `options` are (label, panels); a static picture
    shows the first.
    """

    name: str
    title: str
    caption: str
    options: Sequence[tuple[str, Sequence[Panel]]]
    legend: Sequence[LegendItem] = ()
    legend_title: str = ""
    option_title: str = ""

    @property
    def panels(self) -> Sequence[Panel]:
        """The panels of the first option."""
        return self.options[0][1]

    @property
    def columns(self) -> int:
        """Panels side by side: two of two or four, otherwise up to three."""
        return {1: 1, 2: 2, 4: 2}.get(len(self.panels), 3)


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
