"""Figures as files, PNG and SVG, by matplotlib."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.reporting.chart import Axis, Chart, Key, Panel, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASH: dict[str, Any] = {"solid": "-", "dashed": (0, (5, 3)), "dotted": (0, (1.5, 2.5)), "none": ""}
_MARKER = {
    "": "",
    "circle": "o",
    "diamond": "D",
    "up": "^",
    "down": "v",
    "left": "<",
    "right": ">",
    "bar": "|",
}
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "amscale",
    "text.parse_math": False,
}
_POINT = 0.72
"""Points of a matplotlib size for one pixel of the page."""


def write_files(chart: Chart, palette: dict[str, tuple[str, str]], folder: Path) -> list[Path]:
    """Draw the panels that show first, in light colours; returns `<folder>/<key>.png` and `.svg`.

    Titles and axes say what the page says; a caption belongs to the page.
    """
    import matplotlib
    from matplotlib.figure import Figure

    panels = chart.panels
    columns = columns_of(len(panels))
    lines = math.ceil(len(panels) / columns)
    height = max(panel.height for panel in panels) / 100
    colours = {tone: pair[0] for tone, pair in palette.items()}
    with matplotlib.rc_context(_STYLE):
        width = 7.2 if columns == 1 else 4.2 * columns
        legend = _legend_columns(chart.keys, width)
        rows = math.ceil(len(chart.keys) / legend)
        figure = Figure(figsize=(width, height * lines + 0.5 + 0.22 * rows), layout="constrained")
        figure.set_facecolor("white")
        every = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes, panel in zip(every, panels, strict=False):
            _draw(axes, panel, colours)
        for axes in every[len(panels) :]:
            axes.set_visible(False)
        label = chart.options[0][0]
        figure.suptitle(
            chart.title + (f", {chart.option_title[0]} = {label}" if label else ""), x=0.01, ha="left", weight="bold"
        )
        if chart.keys:
            handles = [_handle(key, colours) for key in chart.keys]
            figure.legend(
                handles=handles,
                loc="outside lower left",
                ncols=legend,
                title=chart.keys_title or None,
            )
        paths = [folder / f"{chart.key}.{kind}" for kind in ("png", "svg")]
        figure.savefig(paths[0], dpi=150)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _legend_columns(keys: Sequence[Key], width: float) -> int:
    """Columns that fit `width` inches; a letter takes about 0.075."""
    longest = max((len(key.label) for key in keys), default=1)
    return max(1, min(len(keys), int(width / (0.6 + 0.075 * longest))))


def columns_of(panels: int) -> int:
    """Panels side by side: two for two or four, otherwise up to three."""
    return {1: 1, 2: 2, 4: 2}.get(panels, 3)


def _draw(axes: "Axes", panel: Panel, colours: dict[str, str]) -> None:
    labelled = any(text.y >= panel.y.range[1] * 0.999 for text in panel.texts) or any(
        line.axis == "x" and line.label for line in panel.references
    )
    axes.set_title(panel.title, loc="left", fontsize=9, color=colours["muted"], pad=16 if labelled else 6)
    for name, axis in (("x", panel.x), ("y", panel.y)):
        _set_axis(axes, name, axis)
    axes.grid(True, color=colours["faint"], linewidth=0.6)
    axes.set_axisbelow(True)
    for line in panel.references:
        style = {"color": colours[line.tone], "linewidth": 1, "linestyle": _DASH[line.dash], "zorder": 1.5}
        if line.axis == "y":
            axes.axhline(line.value, **style)
            at, transform = (0.01 if line.side == "left" else 0.99, line.value), axes.get_yaxis_transform()
        else:
            axes.axvline(line.value, **style)
            at, transform = (line.value, 1.0), axes.get_xaxis_transform()
        align = line.side if line.axis == "y" else "center"
        axes.annotate(line.label, at, xycoords=transform, fontsize=8, color=colours[line.tone], ha=align, va="bottom",
                      xytext=(0, 1), textcoords="offset points")  # fmt: skip
    for series in panel.series:
        _draw_series(axes, series, colours[series.tone])
    for text in panel.texts:
        axes.annotate(text.text, (text.x, text.y), color=colours[text.tone], fontsize=8, ha=text.align,
                      va="bottom" if text.above else "center", annotation_clip=False,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if text.covers else None)  # fmt: skip


def _draw_series(axes: "Axes", series: Series, colour: str) -> None:
    x = [math.nan if value is None else value for value in series.x]
    y = [math.nan if value is None else value for value in series.y]
    if series.fill:
        axes.fill(x, y, color=colour, alpha=series.opacity, linewidth=0)
        return
    axes.plot(
        x,
        y,
        color=colour,
        alpha=series.opacity,
        linestyle=_DASH[series.dash],
        linewidth=series.width * _POINT,
        marker=_MARKER[series.marker],
        markersize=series.size * _POINT,
        markeredgewidth=1.8 if series.marker == "bar" else 1,
        clip_on=series.marker not in ("left", "right"),
    )


def _set_axis(axes: "Axes", name: str, axis: Axis) -> None:
    if axis.log:
        axes.set(**{f"{name}scale": "log"})
    axes.set(**{f"{name}lim": axis.range, f"{name}label": axis.title})
    drawn = axes.xaxis if name == "x" else axes.yaxis
    if axis.ticks:
        drawn.set_ticks([value for value, _ in axis.ticks], labels=[label for _, label in axis.ticks])
        drawn.set_ticks([], minor=True)
    if not axis.title:
        drawn.set_ticks([])
        axes.spines["bottom" if name == "x" else "left"].set_visible(False)


def _handle(key: Key, colours: dict[str, str]) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colour = colours[key.tone]
    if key.look == "band":
        return Patch(color=colour, alpha=0.2, label=key.label)
    marker = {"marker": "o", "diamond": "D", "triangle": "^"}.get(key.look, "")
    style = {"dashed": "dashed", "dotted": "dotted"}.get(key.look, "none" if marker else "solid")
    width = 3 if key.look == "thick" else 1.6
    return Line2D([], [], color=colour, marker=marker, linestyle=_DASH[style], linewidth=width, label=key.label)
