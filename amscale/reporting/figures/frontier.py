"""The frontier D*(N), where each size stops over-fitting, and the exponents that are compared with it."""

import math
from typing import Any

from amscale.reporting.axes import finite, log_axis
from amscale.reporting.chart import Axis, Chart, ChartText, LegendItem, Marker, Panel, Reference, Series
from amscale.reporting.figures.common import D_TITLE, N_TITLE, hypothesis_line, line_legend, power_line, size_legend
from amscale.reporting.fit_data import FitData
from amscale.settings import format_size

_RAYS = 90
"""Points along the outer edge of an interval's area."""
_OPTIMUM_LEGEND = (
    LegendItem("optimum", "N_opt(D)", "ink", "diamond"),
    LegendItem("edge", "N_opt(D) at the grid's edge or beyond", "muted", "triangle"),
)


def frontier(data: FitData) -> Chart | None:
    """Build D*(N) with the hypotheses' lines and the criterion that decides it, and N_opt(D) where it is known."""
    rows: list[dict[str, Any]] = data.detail("dstar") or []
    optima: list[dict[str, Any]] = data.detail("optima") or []
    if not rows and not optima:
        return None
    panels = [_plane(data, rows, optima)]
    if not panels[0].series:
        return None
    if rows:
        panels.append(_criterion(data, rows))
    groups = {series.group for series in panels[0].series}
    caption = ""
    if rows:
        caption += (
            "Bars: D* lies inside, between the last D of the grid that over-fits and the first that does not (circle); "
            "an arrow says that side is open. "
        )
    if groups & {"estimate", "open", "rejected"}:
        caption += (
            "Lines: N ∝ D^k through the centre of the bars that are closed on both sides, with k at the line's end; "
            "only the slope is tested. "
        )
    if groups & {"optimum", "edge"}:
        caption += (
            "Diamonds: N of least validation loss at each D; a triangle says that it lies at the grid's edge, so at "
            "that N or beyond. "
        )
    if rows:
        caption += "Second panel: the criterion of each cell; D* is the first D below the threshold."
    return Chart(
        "frontier",
        "Frontier D*(N)" if rows else "Least loss at each D",
        caption,
        [("", panels)],
        [*(size_legend(data) if rows else []), *line_legend(panels[0], *_OPTIMUM_LEGEND)],
        N_TITLE if rows else "",
    )


def _plane(data: FitData, rows: list[dict[str, Any]], optima: list[dict[str, Any]]) -> Panel:
    tokens = [D for row in rows for D in row["D"]] or data.tokens
    x = log_axis(D_TITLE, tokens, sizes=True, margin=0.12)
    y = log_axis(N_TITLE, data.sizes, sizes=True, margin=0.30)
    series: list[Series] = []
    texts: list[ChartText] = []
    centre = _centre(rows)
    estimate = data.estimate_with("dstar")
    if centre is not None and estimate is not None:
        if estimate["value"] is not None:
            low, high = estimate["interval"]
            series += _interval_areas(centre, max(low, 0.0), high, x, y)
        for test in estimate["hypotheses"]:
            line_and_label = hypothesis_line(test, x, y, centre, test["value"])
            if line_and_label is not None:
                series.append(line_and_label[0])
                texts.append(line_and_label[1])
        if estimate["value"] is not None:
            name = f"estimate k = {estimate['value']:.3g}"
            line = power_line(x, y, centre, estimate["value"], name=name, colour="accent", group="estimate", width=2.5)
            series += [line] if line is not None else []
    series += [item for row in rows for item in _dstar_bar(data, row, x)]
    series += _optimum_marks(data, optima)
    title = "D* of each N, and N of least loss at each D" if optima else "D* of each N"
    return Panel(title if rows else "N of least loss at each D", x, y, series, (), texts)


def _centre(rows: list[dict[str, Any]]) -> tuple[float, float] | None:
    """Return the geometric mean of the middles of the bars that are closed on both sides, as (D, N)."""
    closed = [row for row in rows if row["lower"] and row["upper"] is not None]
    if not closed:
        return None
    D = sum(0.5 * math.log(row["lower"] * row["upper"]) for row in closed) / len(closed)
    return math.exp(D), math.exp(sum(math.log(row["N"]) for row in closed) / len(closed))


def _panel_edge(centre: tuple[float, float], angle: float, x: Axis, y: Axis) -> tuple[float, float]:
    """Return where a ray from `centre`, at `angle` in the plane of logarithms, leaves the panel."""
    start = math.log(centre[0]), math.log(centre[1])
    reach = math.inf
    for direction, origin, limits in ((math.cos(angle), start[0], x.range), (math.sin(angle), start[1], y.range)):
        if abs(direction) > 1e-12:
            edge = math.log(limits[1] if direction > 0 else limits[0])
            reach = min(reach, (edge - origin) / direction)
    return math.exp(start[0] + reach * math.cos(angle)), math.exp(start[1] + reach * math.sin(angle))


def _interval_areas(centre: tuple[float, float], low: float, high: float, x: Axis, y: Axis) -> list[Series]:
    """Return the areas, on both sides of `centre`, between the lines of the two ends of the interval."""
    first, last = math.atan(low), math.atan(high)
    angles = [first + (last - first) * step / _RAYS for step in range(_RAYS + 1)]
    areas = []
    for rotation in (0.0, math.pi):
        outline = [centre, *(_panel_edge(centre, angle + rotation, x, y) for angle in angles), centre]
        areas.append(
            Series(
                "95 % interval of k",
                [point[0] for point in outline],
                [point[1] for point in outline],
                "accent",
                "interval",
                dash="none",
                opacity=0.12,
                fill=True,
            )
        )
    return areas


def _dstar_bar(data: FitData, row: dict[str, Any], x: Axis) -> list[Series]:
    """Return the bar of D* of one N: an arrow at an open side, a circle at the first D that does not over-fit."""
    colour, N = data.size_colour(row["N"]), row["N"]
    lower, upper = row["lower"] or x.range[0] * 1.04, row["upper"] or x.range[1] / 1.04
    if row["lower"] and row["upper"]:
        text = f"above {format_size(row['lower'])}, up to {format_size(row['upper'])}"
    elif row["upper"]:
        text = f"up to {format_size(row['upper'])}"
    else:
        text = f"above {format_size(row['lower'])}"
    name = f"N = {format_size(N)}: D* {text}"
    series = [Series(name, [lower, upper], [N, N], colour, colour, width=6, opacity=0.55)]
    ends: list[tuple[float, Marker]] = [
        (lower, "bar" if row["lower"] else "left"),
        (upper, "bar" if row["upper"] else "right"),
    ]
    for end, marker in ends:
        series.append(Series(name, [end], [N], colour, colour, "none", marker=marker, size=12, labels=[name]))
    if row["value"] is not None:
        series.append(
            Series(name, [row["value"]], [N], colour, colour, "none", marker="circle", size=9, labels=[name]),
        )
    return series


def _optimum_marks(data: FitData, optima: list[dict[str, Any]]) -> list[Series]:
    """Return N_opt at the D that have one, and elsewhere a triangle at the N of least loss."""
    inside = [item for item in optima if item["N"] is not None]
    marks = []
    if inside:
        labels = [f"N_opt = {format_size(i['N'])} at D = {format_size(i['D'])}" for i in inside]
        marks.append(
            Series(
                "N_opt(D)",
                [item["D"] for item in inside],
                [item["N"] for item in inside],
                "ink",
                "optimum",
                "none",
                marker="diamond",
                size=9,
                labels=labels,
            )
        )
    for item in optima:
        if item["N"] is None and item["sizes"] >= 3:
            smallest = min((row["N"] for row in data.rows if row["D"] == item["D"]), default=0)
            marker: Marker = "down" if item["least_observed"] <= smallest else "up"
            label = f"D = {format_size(item['D'])}: {item['reason']}"
            point = ([item["D"]], [item["least_observed"]])
            marks.append(Series(label, *point, "muted", "edge", "none", marker=marker, size=8, labels=[label]))
    return marks


def _criterion(data: FitData, rows: list[dict[str, Any]]) -> Panel:
    threshold = float(data.fit["settings"].get("threshold") or 0.04)
    x = log_axis(D_TITLE, [D for row in rows for D in row["D"]], sizes=True)
    y = log_axis("mean (train − least validation)² (nats²)", [v for r in rows for v in r["criteria"]] + [threshold])
    series = []
    for row in rows:
        colour, name = data.size_colour(row["N"]), f"N = {format_size(row['N'])}"
        values = [value if finite([value]) and value > 0 else None for value in row["criteria"]]
        labels = [
            f"{name}, D = {format_size(D)}: " + ("none" if value is None else f"{value:.3g} nats²")
            for D, value in zip(row["D"], values, strict=True)
        ]
        series.append(Series(name, row["D"], values, colour, colour, marker="circle", labels=labels))
    return Panel(
        "over-fitting criterion", x, y, series, (Reference(threshold, f"threshold {threshold:g}", side="right"),)
    )
