"""Charts as Plotly's traces and layouts, with colours by name: the page looks them up for light or dark."""

import math
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from amscale.reporting.chart import Axis, Chart, ChartText, Number, Panel, Reference, Series

_DASH = {"solid": "solid", "dashed": "6px,4px", "dotted": "2px,3px", "none": "solid"}
_MARKER = {
    "circle": "circle",
    "diamond": "diamond",
    "up": "triangle-up",
    "down": "triangle-down",
    "left": "triangle-left",
    "right": "triangle-right",
    "bar": "line-ns-open",
}
_DIGITS = 6


def to_plotly(chart: Chart) -> dict[str, Any]:
    """Return what the page's script draws: `options`, each with `panels` of traces and a layout."""
    return {
        "name": chart.name,
        "options": [{"label": label, "panels": [_panel(panel) for panel in panels]} for label, panels in chart.options],
    }


def _panel(panel: Panel) -> dict[str, Any]:
    labels = [_reference_label(line, panel) for line in panel.references if line.label]
    return {
        "title": panel.title,
        "traces": [_trace(series, panel) for series in panel.series],
        "layout": {
            "height": panel.height,
            "xaxis": _axis(panel.x),
            "yaxis": _axis(panel.y),
            "shapes": [_reference_line(line) for line in panel.references],
            "annotations": labels + [_annotation(text, panel) for text in panel.texts],
        },
    }


def _reference_line(line: Reference) -> dict[str, Any]:
    along, across = ("y", "x") if line.axis == "y" else ("x", "y")
    return {
        "type": "line",
        f"{along}0": line.value,
        f"{along}1": line.value,
        f"{across}ref": f"{across} domain",
        f"{across}0": 0,
        f"{across}1": 1,
        "layer": "above",
        "line": {"width": 1.2, "dash": _DASH[line.dash]},
        "colour": line.colour,
    }


def _reference_label(line: Reference, panel: Panel) -> dict[str, Any]:
    """Return a label above a vertical line, or at one side of a horizontal one."""
    label = {
        "text": _escaped(line.label),
        "showarrow": False,
        "colour": line.colour,
        "background_opacity": 0.6,
        "yanchor": "bottom",
    }
    if line.axis == "x":
        return label | {"yref": "y domain", "y": 1, "x": _position(line.value, panel.x), "xanchor": "center"}
    x = 0.01 if line.side == "left" else 0.99
    return label | {"xref": "x domain", "x": x, "xanchor": line.side, "y": _position(line.value, panel.y)}


def _annotation(text: ChartText, panel: Panel) -> dict[str, Any]:
    return {
        "x": _position(text.x, panel.x),
        "y": _position(text.y, panel.y),
        "text": _escaped(text.text).replace("\n", "<br>"),
        "showarrow": False,
        "align": "left",
        "background_opacity": 1.0 if text.opaque else 0.0,
        "xanchor": text.align,
        "yanchor": "bottom" if text.above else "middle",
        "colour": text.colour,
    }


def _axis(axis: Axis) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "title": {"text": _escaped(axis.title)},
        "type": "log" if axis.log else "linear",
        "range": [_position(end, axis) for end in axis.range],
    }
    if axis.ticks:
        layout |= {
            "tickmode": "array",
            "tickvals": [value for value, _ in axis.ticks],
            "ticktext": [label for _, label in axis.ticks],
        }
    if not axis.title:
        layout["visible"] = False
    return layout


def _trace(series: Series, panel: Panel) -> dict[str, Any]:
    mode = "+".join(part for part, on in (("lines", series.dash != "none"), ("markers", series.marker)) if on)
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": _escaped(series.name),
        "mode": mode or "none",
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "showlegend": False,
        "opacity": series.opacity,
        "meta": {"colour": series.colour, "group": series.group},
        "line": {"width": series.width, "dash": _DASH[series.dash]},
    }
    if series.marker:
        trace["marker"] = {"size": series.size, "symbol": _MARKER[series.marker], "opacity": 1}
        if series.marker == "bar":
            trace["marker"]["line"] = {"width": 2.5}
        trace["cliponaxis"] = series.marker not in ("left", "right")
    if series.fill:
        return trace | {
            "fill": "toself",
            "hoverinfo": "skip",
            "opacity": 1,
            "meta": trace["meta"] | {"fill": series.opacity},
        }
    if series.labels is not None:
        return trace | {"text": [_escaped(label) for label in series.labels], "hovertemplate": "%{text}<extra></extra>"}
    x_format, y_format = (":.3s" if panel.x.log else ":.4~g"), ":.4~g"
    x_name, y_name = _quantity(panel.x), _quantity(panel.y)
    hover = f"{_escaped(series.name)}<br>{x_name} %{{x{x_format}}}<br>{y_name} %{{y{y_format}}}<extra></extra>"
    return trace | {"hovertemplate": hover}


def _quantity(axis: Axis) -> str:
    """Return the axis title without its unit."""
    return _escaped(axis.title.partition(" (")[0])


def _position(value: float, axis: Axis) -> float:
    """Return a position as Plotly wants it: on a logarithmic axis, the decimal logarithm."""
    return math.log10(value) if axis.log else value


def _numbers(values: Sequence[Number]) -> list[float | None]:
    """Return numbers rounded to _DIGITS significant digits; None for those that are not finite, which is a gap."""
    return [float(f"{value:.{_DIGITS}g}") if value is not None and math.isfinite(value) else None for value in values]


def _escaped(text: str) -> str:
    """Escape a text for Plotly, which reads some HTML; powers and subscripts become tags."""
    return str(html_formula(text))


_POWER = re.compile(r"\^(-?(?:\d+(?:\.\d+)?|[A-Za-zα-ω](?:_[A-Z]\b)?)|\([^()]*\))")
_SUBSCRIPT = re.compile(r"(?<!\w)([A-Za-zα-ω])_(opt|global|c|[A-Z0-9])(?!\w)")


def html_formula(text: str) -> Markup:
    """Return `text` escaped, with HTML for powers and subscripts: D^k, D^1.35, N^-α, N_opt, α_D, x^(α_N/α_D)."""
    marked = re.sub(_POWER, r"<sup>\1</sup>", str(escape(text)))
    return Markup(re.sub(_SUBSCRIPT, r"\1<sub>\2</sub>", marked))
