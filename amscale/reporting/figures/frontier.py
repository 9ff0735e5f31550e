"""The frontier D*(N): where each size stops over-fitting, and the exponents that are held against it."""

import math
from typing import Any

from amscale.reporting.analysis import Analysis
from amscale.reporting.axes import finite, log_axis
from amscale.reporting.chart import Axis, Chart, Key, Marker, Panel, Reference, Series, Text
from amscale.reporting.figures.common import D_TITLE, N_TITLE, hypothesis_line, line_keys, power_line, size_keys
from amscale.settings import format_size

_RAYS = 90
_MARKS = (
    Key("optimum", "N_opt(D)", "ink", "diamond"),
    Key("edge", "N_opt(D) at the grid's edge or beyond", "muted", "triangle"),
)


def frontier(analysis: Analysis) -> Chart | None:
    """D*(N) as intervals with the hypotheses' lines, and the criterion that decides it."""
    rows: list[dict[str, Any]] = analysis.detail("dstar") or []
    optima: list[dict[str, Any]] = analysis.detail("optima") or []
    if not rows and not optima:
        return None
    panels = [_plane(analysis, rows, optima)]
    if not panels[0].series:
        return None
    if rows:
        panels.append(_criterion(analysis, rows))
    drawn = {series.group for series in panels[0].series}
    caption = ""
    if rows:
        caption += (
            "Bars: D* lies inside, between the last D of the grid that over-fits and the first that does not (circle); "
            "an arrow says that side is open. "
        )
    if drawn & {"estimate", "open", "rejected"}:
        caption += (
            "Lines: N ∝ D^k through the centre of the bars that are closed on both sides, with k at the line's end; "
            "only the slope is tested. "
        )
    if drawn & {"optimum", "edge"}:
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
        [*(size_keys(analysis) if rows else []), *line_keys(panels[0], *_MARKS)],
        N_TITLE if rows else "",
    )


def _plane(analysis: Analysis, rows: list[dict[str, Any]], optima: list[dict[str, Any]]) -> Panel:
    tokens = [D for row in rows for D in row["D"]] or analysis.tokens
    x = log_axis(D_TITLE, tokens, sizes=True, margin=0.12)
    y = log_axis(N_TITLE, analysis.sizes, sizes=True, margin=0.30)
    series: list[Series] = []
    texts: list[Text] = []
    centre = _centre(rows)
    estimate = next((e for e in analysis.fit["estimates"] if (e.get("details") or {}).get("dstar")), None)
    if centre is not None and estimate is not None:
        if estimate["value"] is not None:
            low, high = estimate["interval"]
            series += _wedge(centre, max(low, 0.0), high, x, y)
        for test in estimate["hypotheses"]:
            drawn = hypothesis_line(test, x, y, centre, test["value"])
            if drawn is not None:
                series.append(drawn[0])
                texts.append(drawn[1])
        if estimate["value"] is not None:
            name, look = f"estimate k = {estimate['value']:.3g}", {"tone": "accent", "group": "estimate", "width": 2.5}
            line = power_line(x, y, centre, estimate["value"], name=name, **look)
            series += [line] if line is not None else []
    series += [item for row in rows for item in _bar(analysis, row, x)]
    series += _optimum_marks(optima)
    title = "D* of each N, and N of least loss at each D" if optima else "D* of each N"
    return Panel(title if rows else "N of least loss at each D", x, y, series, (), texts)


def _centre(rows: list[dict[str, Any]]) -> tuple[float, float] | None:
    """Geometric mean of the middles of the bars that are closed on both sides."""
    closed = [row for row in rows if row["lower"] and row["upper"] is not None]
    if not closed:
        return None
    D = sum(0.5 * math.log(row["lower"] * row["upper"]) for row in closed) / len(closed)
    return math.exp(D), math.exp(sum(math.log(row["N"]) for row in closed) / len(closed))


def _exit(centre: tuple[float, float], angle: float, x: Axis, y: Axis) -> tuple[float, float]:
    """Where a ray from `centre`, at `angle` in the plane of logarithms, leaves the panel."""
    start = math.log(centre[0]), math.log(centre[1])
    reach = math.inf
    for direction, begin, limits in ((math.cos(angle), start[0], x.range), (math.sin(angle), start[1], y.range)):
        if abs(direction) > 1e-12:
            edge = math.log(limits[1] if direction > 0 else limits[0])
            reach = min(reach, (edge - begin) / direction)
    return math.exp(start[0] + reach * math.cos(angle)), math.exp(start[1] + reach * math.sin(angle))


def _wedge(centre: tuple[float, float], low: float, high: float, x: Axis, y: Axis) -> list[Series]:
    """The area between the lines of the two ends of the interval."""
    first, last = math.atan(low), math.atan(high)
    angles = [first + (last - first) * step / _RAYS for step in range(_RAYS + 1)]
    areas = []
    for turn in (0.0, math.pi):
        outline = [centre, *(_exit(centre, angle + turn, x, y) for angle in angles), centre]
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


def _bar(analysis: Analysis, row: dict[str, Any], x: Axis) -> list[Series]:
    tone, N = analysis.tone(row["N"]), row["N"]
    lower, upper = row["lower"] or x.range[0] * 1.04, row["upper"] or x.range[1] / 1.04
    if row["lower"] and row["upper"]:
        said = f"above {format_size(row['lower'])}, up to {format_size(row['upper'])}"
    elif row["upper"]:
        said = f"up to {format_size(row['upper'])}"
    else:
        said = f"above {format_size(row['lower'])}"
    name = f"N = {format_size(N)}: D* {said}"
    series = [Series(name, [lower, upper], [N, N], tone, tone, width=6, opacity=0.55)]
    ends: list[tuple[float, Marker]] = [
        (lower, "bar" if row["lower"] else "left"),
        (upper, "bar" if row["upper"] else "right"),
    ]
    for place, marker in ends:
        series.append(Series(name, [place], [N], tone, tone, "none", marker=marker, size=12, labels=[name]))
    if row["value"] is not None:
        series.append(
            Series(name, [row["value"]], [N], tone, tone, "none", marker="circle", size=9, labels=[name]),
        )
    return series


def _optimum_marks(optima: list[dict[str, Any]]) -> list[Series]:
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
            marker: Marker = "down" if "smallest" in item["reason"] else "up"
            label, place = f"D = {format_size(item['D'])}: {item['reason']}", ([item["D"]], [item["least_observed"]])
            marks.append(Series(label, *place, "muted", "edge", "none", marker=marker, size=8, labels=[label]))
    return marks


def _criterion(analysis: Analysis, rows: list[dict[str, Any]]) -> Panel:
    threshold = float(analysis.fit["settings"].get("threshold") or 0.04)
    x = log_axis(D_TITLE, [D for row in rows for D in row["D"]], sizes=True)
    y = log_axis("mean (train − least validation)² (nats²)", [v for r in rows for v in r["criteria"]] + [threshold])
    series = []
    for row in rows:
        tone, name = analysis.tone(row["N"]), f"N = {format_size(row['N'])}"
        values = [value if finite([value]) and value > 0 else None for value in row["criteria"]]
        labels = [
            f"{name}, D = {format_size(D)}: " + ("none" if value is None else f"{value:.3g} nats²")
            for D, value in zip(row["D"], values, strict=True)
        ]
        series.append(Series(name, row["D"], values, tone, tone, marker="circle", labels=labels))
    return Panel(
        "over-fitting criterion", x, y, series, (Reference(threshold, f"threshold {threshold:g}", side="right"),)
    )
