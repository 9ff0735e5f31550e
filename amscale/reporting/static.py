"""Charts as static pictures by matplotlib: a Figure to show, or PNG and SVG files."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from amscale.reporting.chart import Axis, Chart, LegendItem, Palette, Panel, Series

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
"""Points of a matplotlib size that one pixel of the page becomes."""
_DPI = 150


def write_charts(charts: Sequence[Chart], palette: Palette, folder: Path) -> list[Path]:
    """Write each chart as `<folder>/<name>.png` and `.svg`; return the paths."""
    folder.mkdir(exist_ok=True)
    paths = []
    for chart in charts:
        figure = draw_chart(chart, palette)
        png, svg = (folder / f"{chart.name}.{kind}" for kind in ("png", "svg"))
        with matplotlib.rc_context(_STYLE):
            # By the canvas of each kind: `savefig` would go through the whole drawing once more before either.
            figure.set_dpi(_DPI)
            FigureCanvasAgg(figure).print_png(png)
            figure.set_layout_engine("none")  # what was laid out stays; to find it again takes a quarter of the time
            FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
        paths += [png, svg]
    return paths


def draw_chart(chart: Chart, palette: Palette) -> Figure:
    """Draw the panels of a chart's first option in light colours, with its titles and legend, without its caption."""
    panels, columns = chart.panels, chart.columns
    rows = math.ceil(len(panels) / columns)
    colours = {name: light for name, (light, _) in palette.items()}
    width = 7.2 if columns == 1 else 4.2 * columns
    legend_columns = _legend_columns(chart.legend, width)
    legend_rows = math.ceil(len(chart.legend) / legend_columns)
    height = max(panel.height for panel in panels) / 100 * rows + 0.5 + 0.22 * legend_rows
    with matplotlib.rc_context(_STYLE):
        figure = ChartFigure(figsize=(width, height), layout="constrained")
        figure.set_facecolor("white")
        cells = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(cells, panels, strict=False):
            _draw_panel(axes, panel, colours)
        for axes in cells[len(panels) :]:
            axes.set_visible(False)
        option = chart.options[0][0]
        title = chart.title + (f", {chart.option_title[0]} = {option}" if option else "")
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
        if chart.legend:
            handles = [_legend_handle(item, colours) for item in chart.legend]
            legend_title = chart.legend_title or None
            figure.legend(handles=handles, loc="outside lower left", ncols=legend_columns, title=legend_title)
    return figure


class ChartFigure(Figure):
    """A figure that a notebook shows as a picture, though pyplot does not know of it."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=_DPI)
        return buffer.getvalue()


def _legend_columns(items: Sequence[LegendItem], width: float) -> int:
    """Return how many columns fit `width` inches; a letter takes about 0.075."""
    longest = max((len(item.label) for item in items), default=1)
    return max(1, min(len(items), int(width / (0.6 + 0.075 * longest))))


def _draw_panel(axes: Axes, panel: Panel, colours: dict[str, str]) -> None:
    # Labels above the panel need space below its title.
    labels_above = any(text.y >= panel.y.range[1] * 0.999 for text in panel.texts) or any(
        line.axis == "x" and line.label for line in panel.references
    )
    axes.set_title(panel.title, loc="left", fontsize=9, color=colours["muted"], pad=16 if labels_above else 6)
    for name, axis in (("x", panel.x), ("y", panel.y)):
        _set_axis(axes, name, axis)
    axes.grid(True, color=colours["faint"], linewidth=0.6)
    axes.set_axisbelow(True)
    for line in panel.references:
        style = {"color": colours[line.colour], "linewidth": 1, "linestyle": _DASH[line.dash], "zorder": 1.5}
        if line.axis == "y":
            axes.axhline(line.value, **style)
            position, transform = (0.01 if line.side == "left" else 0.99, line.value), axes.get_yaxis_transform()
        else:
            axes.axvline(line.value, **style)
            position, transform = (line.value, 1.0), axes.get_xaxis_transform()
        align = line.side if line.axis == "y" else "center"
        axes.annotate(
            line.label,
            position,
            xycoords=transform,
            fontsize=8,
            color=style["color"],
            ha=align,
            va="bottom",
            xytext=(0, 1),
            textcoords="offset points",
        )
    for series in panel.series:
        _draw_series(axes, series, colours[series.colour])
    for text in panel.texts:
        axes.annotate(text.text, (text.x, text.y), color=colours[text.colour], fontsize=8, ha=text.align,
                      va="bottom" if text.above else "center", annotation_clip=False,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1} if text.opaque else None)  # fmt: skip


def _draw_series(axes: Axes, series: Series, colour: str) -> None:
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


def _set_axis(axes: Axes, name: str, axis: Axis) -> None:
    if axis.log:
        axes.set(**{f"{name}scale": "log"})
    axes.set(**{f"{name}lim": axis.range, f"{name}label": axis.title})
    matplotlib_axis = axes.xaxis if name == "x" else axes.yaxis
    if axis.ticks:
        matplotlib_axis.set_ticks([value for value, _ in axis.ticks], labels=[label for _, label in axis.ticks])
        matplotlib_axis.set_ticks([], minor=True)
    if not axis.title:
        matplotlib_axis.set_ticks([])
        axes.spines["bottom" if name == "x" else "left"].set_visible(False)


def _legend_handle(item: LegendItem, colours: dict[str, str]) -> Any:
    colour = colours[item.colour]
    if item.symbol == "band":
        return Patch(color=colour, alpha=0.2, label=item.label)
    marker = {"marker": "o", "diamond": "D", "triangle": "^"}.get(item.symbol, "")
    style = {"dashed": "dashed", "dotted": "dotted"}.get(item.symbol, "none" if marker else "solid")
    width = 3 if item.symbol == "thick" else 1.6
    return Line2D([], [], color=colour, marker=marker, linestyle=_DASH[style], linewidth=width, label=item.label)
