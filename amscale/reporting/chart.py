"""Figures as plain data: what is drawn, free of any drawing library. Both renderers, of the page and of files, read it.

Colours are named by tone ("accent", "size:2") and looked up in a palette, so that one figure serves light and dark.

Colours by tone, for light and dark surfaces.
"""

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
    """One line, set of markers, or (with `fill`) closed area. None in x or y breaks a line.

    `group` ties it to an item of the legend. `labels` are hover texts, one a point.
    """

    name: str
    x: Sequence[Number]
    y: Sequence[Number]
    tone: str
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
    """A straight line across a panel at one value of an axis, with its label at one side (of a horizontal one)."""

    value: float
    label: str
    axis: Literal["x", "y"] = "y"
    tone: str = "muted"
    dash: Literal["dashed", "dotted"] = "dotted"
    side: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Text:
    """A label inside a panel, at data coordinates; `covers` hides what lies behind it."""

    x: float
    y: float
    text: str
    tone: str = "muted"
    align: Literal["left", "center", "right"] = "center"
    above: bool = True
    covers: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    references: Sequence[Reference] = ()
    texts: Sequence[Text] = ()
    height: int = 320


@dataclass(frozen=True)
class Key:
    """One item of a legend."""

    group: str
    label: str
    tone: str
    look: Literal["line", "dashed", "dotted", "marker", "diamond", "triangle", "band", "thick"] = "line"


@dataclass(frozen=True)
class Chart:
    """A figure: panels, or several sets of panels to choose from (the first is the one that files show)."""

    key: str
    title: str
    caption: str
    options: Sequence[tuple[str, Sequence[Panel]]]
    keys: Sequence[Key] = ()
    keys_title: str = ""
    option_title: str = ""

    @property
    def panels(self) -> Sequence[Panel]:
        """The panels that show first."""
        return self.options[0][1]


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
