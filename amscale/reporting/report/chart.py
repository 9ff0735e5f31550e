"""Figures as plain data: what is drawn, free of any drawing library. Both renderers, of the page and of files, read it.

Colours are named by tone ("accent", "size:2") and looked up in a palette, so that one figure serves light and dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
