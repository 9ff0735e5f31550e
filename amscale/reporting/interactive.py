"""Figures as Plotly's traces and layouts, their colours named by tone: the page looks them up for light or dark."""

import math
import re
from typing import TYPE_CHECKING, Any

from amscale.reporting.chart import Axis, Chart, Panel, Reference, Series

if TYPE_CHECKING:
    from markupsafe import Markup

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
    """What the page's script draws: `options`, each with `panels` of traces and a layout."""
    return {
        "key": chart.key,
        "options": [{"label": label, "panels": [_panel(panel) for panel in panels]} for label, panels in chart.options],
    }


def _panel(panel: Panel) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "height": panel.height,
        "xaxis": _axis(panel.x),
        "yaxis": _axis(panel.y),
        "shapes": [],
        "annotations": [],
    }
    for line in panel.references:
        along, across = ("y", "x") if line.axis == "y" else ("x", "y")
        layout["shapes"].append(
            {
                "type": "line",
                f"{along}0": line.value,
                f"{along}1": line.value,
                f"{across}ref": f"{across} domain",
                f"{across}0": 0,
                f"{across}1": 1,
                "layer": "above",
                "line": {"width": 1.2, "dash": _DASH[line.dash]},
                "tone": line.tone,
            }
        )
        if line.label:
            layout["annotations"].append(_reference_label(line, panel))
    for text in panel.texts:
        layout["annotations"].append(
            {
                "x": _position(text.x, panel.x),
                "y": _position(text.y, panel.y),
                "text": _escaped(text.text).replace("\n", "<br>"),
                "showarrow": False,
                "align": "left",
                "covers": 1.0 if text.covers else 0.0,
                "xanchor": text.align,
                "yanchor": "bottom" if text.above else "middle",
                "tone": text.tone,
            }
        )
    return {"title": panel.title, "traces": [_trace(series, panel) for series in panel.series], "layout": layout}


def _reference_label(line: Reference, panel: Panel) -> dict[str, Any]:
    place: dict[str, Any] = {"text": _escaped(line.label), "showarrow": False, "tone": line.tone, "covers": 0.6}
    if line.axis == "x":
        at = {"yref": "y domain", "y": 1, "yanchor": "bottom", "x": _position(line.value, panel.x), "xanchor": "center"}
    else:
        x = 0.01 if line.side == "left" else 0.99
        at = {
            "xref": "x domain",
            "x": x,
            "xanchor": line.side,
            "y": _position(line.value, panel.y),
            "yanchor": "bottom",
        }
    return place | at


def _axis(axis: Axis) -> dict[str, Any]:
    made: dict[str, Any] = {
        "title": {"text": _escaped(axis.title)},
        "type": "log" if axis.log else "linear",
        "range": [_position(end, axis) for end in axis.range],
    }
    if axis.ticks:
        made |= {
            "tickmode": "array",
            "tickvals": [value for value, _ in axis.ticks],
            "ticktext": [label for _, label in axis.ticks],
        }
    if not axis.title:
        made["visible"] = False
    return made


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
        "meta": {"tone": series.tone, "group": series.group},
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
    """The axis title without its unit."""
    return _escaped(axis.title.partition(" (")[0])


def _position(value: float, axis: Axis) -> float:
    """Plotly places ranges and annotations of a logarithmic axis by the decimal logarithm."""
    return math.log10(value) if axis.log else value


def _numbers(values: Any) -> list[float | None]:
    """Numbers short enough for a page; what is not finite becomes a gap."""
    return [float(f"{value:.{_DIGITS}g}") if value is not None and math.isfinite(value) else None for value in values]


def _escaped(text: str) -> str:
    """Plotly reads a little HTML in its texts: ours is escaped, formulas aside."""
    return str(formula(text))


_POWER = re.compile(r"\^(-?(?:\d+(?:\.\d+)?|[A-Za-zα-ω](?:_[A-Z]\b)?)|\([^()]*\))")
_SUBSCRIPT = re.compile(r"(?<!\w)([A-Za-zα-ω])_(opt|global|c|[A-Z0-9])(?!\w)")


def formula(text: str) -> "Markup":
    """`text`, escaped, with powers and subscripts set as such: D^k, D^1.35, N^-α, N_opt, α_D, x^(α_N/α_D)."""
    from markupsafe import Markup, escape

    marked = re.sub(_POWER, r"<sup>\1</sup>", str(escape(text)))
    return Markup(re.sub(_SUBSCRIPT, r"\1<sub>\2</sub>", marked))
