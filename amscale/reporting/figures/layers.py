"""Energies and radii inside the networks, layer by layer, over training; the radius beside its controls."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal

from amscale.reporting.axes import linear_axis, log_axis
from amscale.reporting.chart import Axis, Chart, LegendItem, Panel, Reference, Series
from amscale.reporting.figures.common import evenly_spaced
from amscale.reporting.report_data import ReportData, ReportTrial
from amscale.settings import format_size

_MAX_LAYERS = 8
_MAX_PANELS = 6

Values = Sequence[float | None]
Runs = Sequence[ReportTrial]
"""The seeds of one N and D."""
ValuesByStep = dict[float, list[float]]
"""Step to the values of all runs; steps ascend."""


def energies(report: ReportData) -> Chart | None:
    """Build the energy E of the queries against each layer's stored patterns, and the global energy."""

    def global_energy(runs: Runs) -> tuple[list[Series], Sequence[Reference]]:
        steps, means = _medians(_values_by_step(runs, "energy/global/E_mean"))
        return [Series("global, mean", steps, means, "ink", "global", "dashed", 1.6)], ()

    return _by_layer(
        report,
        "energy",
        "Energy by layer",
        "E of held-out probe sequences against the patterns that a layer stores (theory: g − log d ≤ E ≤ g). "
        "Line: mean over the queries; band: 5 to 95 % of them. Dashed: the global energy over all layers.",
        ("E_mean", "E_q05", "E_q95"),
        lambda values: linear_axis("energy E (dimensionless)", values),
        global_energy,
        [LegendItem("global", "global", "ink", "dashed")],
    )


def radii(report: ReportData) -> Chart | None:
    """Build the sampled radius of each layer's patterns beside r*."""

    def theory_radius(runs: Runs) -> tuple[list[Series], Sequence[Reference]]:
        found = {
            value
            for trial in runs
            for _, values in trial.probes
            for name, value in values.items()
            if name.startswith("radius/") and name.endswith("/r_star")
        }
        return [], [Reference(value, f"r* {value:.3g}", colour="accent", dash="dashed") for value in sorted(found)]

    return _by_layer(
        report,
        "radius",
        "Radius by layer",
        "Half the Euclidean distance from a stored pattern to its nearest neighbour, median over the patterns. "
        "Dashed: r* = √(n/(2πe)), n being the dimension of a pattern, at which the volume of a ball is about 1/√(πn).",
        ("sampled_median",),
        lambda values: log_axis("radius (activation units)", values),
        theory_radius,
        [],
    )


def _by_layer(
    report: ReportData,
    group: str,
    title: str,
    caption: str,
    suffixes: Sequence[str],
    y_axis: Callable[[Values], Axis],
    extra: Callable[[Runs], tuple[list[Series], Sequence[Reference]]],
    extra_legend: Sequence[LegendItem],
) -> Chart | None:
    """Build a panel per N with a line per layer, for each D to choose from; several seeds as their median and range.

    Args:
        group: the first part of a measurement's name, and the name of the chart.
        suffixes: the last part of the names of the line and, where the band is of one run, of the band's two ends.
        y_axis: builds the y axis around the values of all panels of one D.
        extra: further series and reference lines of a panel.
        extra_legend: their legend items.
    """
    trials = [trial for trial in report.with_result if _depth(trial, group)]
    if not trials:
        return None
    sizes = evenly_spaced(sorted({trial.N for trial in trials if trial.N}), _MAX_PANELS)
    options: list[tuple[str, Sequence[Panel]]] = []
    layers: set[int] = set()
    for D in sorted({trial.D for trial in trials if trial.D}, reverse=True):
        cells = [runs for N in sizes if (runs := [trial for trial in trials if (trial.N, trial.D) == (N, D)])]
        if not cells:
            continue
        parts = []
        for runs in cells:
            shown = evenly_spaced(range(max(_depth(trial, group) for trial in runs)), _MAX_LAYERS)
            layers.update(shown)
            parts.append((runs, *_layer_series(runs, shown, group, suffixes), *extra(runs)))
        y = y_axis([v for _, _, values, _, lines in parts for v in (*values, *(line.value for line in lines))])
        panels = []
        for runs, series, _, more, lines in parts:
            x = linear_axis("step", [0.0, *(float(step) for trial in runs for step, _ in trial.probes)], 0.02)
            seeds = f"seed {runs[0].seed}" if len(runs) == 1 else f"{len(runs)} runs"
            name = f"{_shape(runs[0])}N = {format_size(runs[0].N or 0)}, {seeds}"
            panels.append(Panel(name, x, y, [*series, *more], tuple(lines), height=290))
        options.append((format_size(D), panels))
    legend = [LegendItem(f"layer:{layer}", str(layer), f"layer:{layer}") for layer in sorted(layers)]
    if len(trials) > len({(trial.N, trial.D) for trial in trials}):
        caption += " Where a panel has several runs (seeds, or other axes of the grid), a line is their median and a "
        caption += "band their range."
    if max(_depth(trial, group) for trial in trials) > _MAX_LAYERS:
        caption += f" At most {_MAX_LAYERS} layers of a network are shown, evenly spaced."
    return Chart(group, title, caption, options, [*legend, *extra_legend], "layer", "D (unique tokens)")


def _shape(trial: ReportTrial) -> str:
    """Return `2 x 32, `, layers and width, where these are known: two shapes may have almost the same N."""
    shape = trial.result.shape if trial.result else None
    return f"{shape.layers} x {shape.width}, " if shape and shape.layers and shape.width else ""


def _depth(trial: ReportTrial, group: str) -> int:
    """Return the number of layers that the probes of a trial measured."""
    names = {name.split("/")[1] for _, values in trial.probes for name in values if name.startswith(f"{group}/layer_")}
    return max((int(name.removeprefix("layer_")) + 1 for name in names), default=0)


def _layer_series(
    runs: Runs, layers: Sequence[int], group: str, suffixes: Sequence[str]
) -> tuple[list[Series], list[float | None]]:
    """Return a line and a band for each layer, and every value on them.

    The band is of the quantiles of a single run, where they are measured, and the range over several runs.
    """
    series: list[Series] = []
    drawn: list[float | None] = []
    for layer in layers:
        colour, name, prefix = f"layer:{layer}", f"layer {layer}", f"{group}/layer_{layer:02d}"
        values = _values_by_step(runs, f"{prefix}/{suffixes[0]}")
        steps, medians = _medians(values)
        band = {step: (min(found), max(found)) for step, found in values.items()} if len(runs) > 1 else {}
        band_name = "range over the runs"
        if len(runs) == 1 and len(suffixes) == 3:
            low, high = (_values_by_step(runs, f"{prefix}/{suffix}") for suffix in suffixes[1:])
            band = {step: (low[step][0], high[step][0]) for step in low if step in high}
            band_name = "5 to 95 %"
        if band:
            x, ends = list(band), list(band.values())
            y = [end for end, _ in ends] + [end for _, end in reversed(ends)]
            outline = [*x, *reversed(x)]
            series.append(Series(f"{name}, {band_name}", outline, y, colour, colour, "none", opacity=0.16, fill=True))
            drawn += y
        series.append(Series(name, steps, medians, colour, colour, marker="circle", size=5))
        drawn += medians
    return series, drawn


def _values_by_step(runs: Runs, name: str) -> ValuesByStep:
    """Return the values of a measurement by step, of every run that has it there."""
    found: ValuesByStep = {}
    for trial in runs:
        for step, values in trial.probes:
            if values.get(name) is not None:
                found.setdefault(float(step), []).append(values[name])
    return dict(sorted(found.items()))


def _medians(values: ValuesByStep) -> tuple[list[float], list[float]]:
    return list(values), [statistics.median(found) for found in values.values()]


_STYLES: dict[str, tuple[str, Literal["solid", "dashed", "dotted"]]] = {
    "trained": ("accent", "solid"),
    "random weights": ("ink", "dashed"),
    "gaussian": ("ink", "dotted"),
    "shuffled": ("muted", "solid"),
}
"""Colour and dash of each set of vectors."""


def controls(report: ReportData) -> Chart | None:
    """Build the median radius against the size of the sample, a panel per place in the network."""
    options: list[tuple[str, list[Panel]]] = []
    drawn: set[str] = set()
    for experiment in report.radius_experiments:
        # A summary.json keeps the radii of one place and one set of vectors as an item of "spreads".
        measured = [item for item in experiment["spreads"] if item["samples"]]
        if not measured:
            continue
        options.append((experiment["model"], _panels(measured)))
        drawn |= {item["vectors"] for item in measured}
    if not options:
        return None
    return Chart(
        "controls",
        "Radius beside its controls",
        "Median of half the distance to the nearest neighbour, against the size of the sample. Controls: the "
        "same network with random weights; a Gaussian of the same covariance; the coordinates shuffled. A radius that "
        "falls with the sample, or that the controls share, is by itself no sign of stored patterns.",
        options,
        [
            LegendItem(name, name, colour, "line" if dash == "solid" else dash)
            for name, (colour, dash) in _STYLES.items()
            if name in drawn
        ],
        "vectors",
        "trial",
    )


def _panels(measured: list[dict[str, Any]]) -> list[Panel]:
    radii = [row["radius_median"] for item in measured for row in item["samples"]]
    sizes = [row["size"] for item in measured for row in item["samples"]]
    x = log_axis("vectors in the sample", sizes, sizes=True)
    y = log_axis("radius (activation units)", radii + [item["r_star"] for item in measured])
    panels = []
    for place in dict.fromkeys(item["place"] for item in measured):
        here = [item for item in measured if item["place"] == place]
        r_star = Reference(here[0]["r_star"], f"r* {here[0]['r_star']:.3g}", colour="accent", dash="dashed")
        panels.append(Panel(place.replace("_", " "), x, y, [_series(item) for item in here], (r_star,)))
    return panels


def _series(item: dict[str, Any]) -> Series:
    name, rows = item["vectors"], item["samples"]
    colour, dash = _STYLES.get(name, ("muted", "dashed"))
    labels = [f"{name}, {row['size']:,} vectors: radius {row['radius_median']:.4g}" for row in rows]
    sizes, radii = [row["size"] for row in rows], [row["radius_median"] for row in rows]
    return Series(name, sizes, radii, colour, name, dash, marker="circle", size=5, labels=labels)
