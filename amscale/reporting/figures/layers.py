"""Energies and radii inside the networks, layer by layer, over training.

The radius of a trained model beside its controls, from a radius experiment on a trial of the sweep.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, Literal

from amscale.reporting.axes import linear_axis, log_axis
from amscale.reporting.chart import Axis, Chart, Key, Panel, Reference, Series
from amscale.reporting.figures.common import evenly_chosen
from amscale.reporting.gather import Sweep, Trial
from amscale.settings import format_size

_MOST_LAYERS = 8
_MOST_PANELS = 6

Values = Sequence[float | None]
Runs = Sequence[Trial]
"""The seeds of one N and D."""
Curves = dict[float, list[float]]
"""Values over the seeds by step."""


def energies(sweep: Sweep) -> Chart | None:
    """Energy E of the queries against each layer's stored patterns, and the global energy."""
    suffixes = ("E_mean", "E_q05", "E_q95")
    return _layers(
        sweep,
        "energy",
        "Energy by layer",
        "E of held-out probe sequences against the patterns that a layer stores (theory: g − log d ≤ E ≤ g). "
        "Line: mean over the queries; band: 5 to 95 % of them. Dashed: the global energy over all layers.",
        suffixes,
        lambda values: linear_axis("energy E (dimensionless)", values),
        lambda runs: (
            [Series("global, mean", *_median(_each(runs, "energy/global/E_mean")), "ink", "global", "dashed", 1.6)],
            (),
        ),
        [Key("global", "global", "ink", "dashed")],
    )


def radii(sweep: Sweep) -> Chart | None:
    """Sampled radius of each layer's patterns beside r*."""

    def reference(runs: Runs) -> tuple[list[Series], Sequence[Reference]]:
        found = {
            v
            for trial in runs
            for _, values in trial.probes
            for k, v in values.items()
            if k.startswith("radius/") and k.endswith("/r_star")
        }
        return [], [Reference(value, f"r* {value:.3g}", tone="accent", dash="dashed") for value in sorted(found)]

    return _layers(
        sweep,
        "radius",
        "Radius by layer",
        "Half the Euclidean distance from a stored pattern to its nearest neighbour, median over the patterns. "
        "Dashed: r* = √(n/(2πe)), n being the dimension of a pattern, at which the volume of a ball is about 1/√(πn).",
        ("sampled_median",),
        lambda values: log_axis("radius (activation units)", values),
        reference,
        [],
    )  # fmt: skip


def _layers(
    sweep: Sweep,
    group: str,
    title: str,
    caption: str,
    suffixes: Sequence[str],
    axis: Callable[[Values], Axis],
    extra: Callable[[Runs], tuple[list[Series], Sequence[Reference]]],
    keys: Sequence[Key],
) -> Chart | None:
    """A panel per N with a line per layer, for each D to choose from; several seeds as their median and range."""
    trials = [trial for trial in sweep.shown if _depth(trial, group)]
    if not trials:
        return None
    sizes = evenly_chosen(sorted({trial.N for trial in trials if trial.N}), _MOST_PANELS)
    options: list[tuple[str, Sequence[Panel]]] = []
    drawn: set[int] = set()
    for D in sorted({trial.D for trial in trials if trial.D}, reverse=True):
        cells = [runs for N in sizes if (runs := [trial for trial in trials if (trial.N, trial.D) == (N, D)])]
        if not cells:
            continue
        built = [(runs, *_lines(runs, group, suffixes, drawn), *extra(runs)) for runs in cells]
        shared = axis([v for _, _, values, _, lines in built for v in (*values, *(line.value for line in lines))])
        panels = []
        for runs, lines, _, more, references in built:
            x = linear_axis("step", [0.0, *(float(step) for trial in runs for step, _ in trial.probes)], 0.02)
            seeds = f"seed {runs[0].seed}" if len(runs) == 1 else f"{len(runs)} runs"
            name = f"N = {format_size(runs[0].N or 0)}, {seeds}"
            panels.append(Panel(name, x, shared, [*lines, *more], tuple(references), height=290))
        options.append((format_size(D), panels))
    depth = max(_depth(trial, group) for trial in trials)
    layers = [Key(f"layer:{i}", str(i), f"layer:{i}") for i in sorted(drawn)]
    if len(trials) > len({(trial.N, trial.D) for trial in trials}):
        caption += " Where a panel has several runs (seeds, or other axes of the grid), a line is their median and a "
        caption += "band their range."
    if depth > _MOST_LAYERS:
        caption += f" At most {_MOST_LAYERS} layers of a network are shown, evenly spread."
    return Chart(group, title, caption, options, [*layers, *keys], "layer", "D (unique tokens)")


def _depth(trial: Trial, group: str) -> int:
    names = {key.split("/")[1] for _, values in trial.probes for key in values if key.startswith(f"{group}/layer_")}
    return max((int(name.removeprefix("layer_")) + 1 for name in names), default=0)


def _lines(runs: Runs, group: str, suffixes: Sequence[str], drawn: set[int]) -> tuple[list[Series], list[float | None]]:
    """Lines and bands of the layers shown, and every value on them.

    The band is of one run's quantiles, where it has them, and otherwise the range over the runs.
    """
    depth = max(_depth(trial, group) for trial in runs)
    chosen = evenly_chosen(range(depth), _MOST_LAYERS)
    drawn.update(chosen)
    series: list[Series] = []
    seen: list[float | None] = []
    for layer in chosen:
        tone, name, place = f"layer:{layer}", f"layer {layer}", f"{group}/layer_{layer:02d}"
        curves = _each(runs, f"{place}/{suffixes[0]}")
        steps, middle = _median(curves)
        band = {step: (min(values), max(values)) for step, values in curves.items()} if len(runs) > 1 else {}
        words = "range over the runs"
        if len(runs) == 1 and len(suffixes) == 3:
            low, high = (_each(runs, f"{place}/{suffix}") for suffix in suffixes[1:])
            band = {step: (low[step][0], high[step][0]) for step in low if step in high}
            words = "5 to 95 %"
        if band:
            x, ends = list(band), list(band.values())
            y = [end for end, _ in ends] + [end for _, end in reversed(ends)]
            series.append(
                Series(f"{name}, {words}", [*x, *reversed(x)], y, tone, tone, "none", opacity=0.16, fill=True)
            )
            seen += y
        series.append(Series(name, steps, middle, tone, tone, marker="circle", size=5))
        seen += middle
    return series, seen


def _each(runs: Runs, key: str) -> Curves:
    """The values of a measurement by step, of every run that has it there; steps ascend."""
    found: Curves = {}
    for trial in runs:
        for step, values in trial.probes:
            if values.get(key) is not None:
                found.setdefault(float(step), []).append(values[key])
    return dict(sorted(found.items()))


def _median(curves: Curves) -> tuple[list[float], list[float]]:
    return list(curves), [statistics.median(values) for values in curves.values()]


_LOOKS: dict[str, tuple[str, Literal["solid", "dashed", "dotted"]]] = {
    "trained": ("accent", "solid"),
    "random weights": ("ink", "dashed"),
    "gaussian": ("ink", "dotted"),
    "shuffled": ("muted", "solid"),
}
"""Tone and dash of each set of vectors."""


def controls(sweep: Sweep) -> Chart | None:
    """Median radius against the size of the sample, a panel per place in the network."""
    experiments = [item for item in sweep.radius_experiments if any(spread["samples"] for spread in item["spreads"])]
    if not experiments:
        return None
    options: list[tuple[str, list[Panel]]] = []
    drawn: set[str] = set()
    for experiment in experiments:
        spreads = [spread for spread in experiment["spreads"] if spread["samples"]]
        values = [row["radius_median"] for spread in spreads for row in spread["samples"]]
        sizes = [row["size"] for spread in spreads for row in spread["samples"]]
        x = log_axis("vectors in the sample", sizes, sizes=True)
        y = log_axis("radius (activation units)", values + [spread["r_star"] for spread in spreads])
        panels = []
        for place in dict.fromkeys(spread["place"] for spread in spreads):
            here = [spread for spread in spreads if spread["place"] == place]
            drawn |= {spread["vectors"] for spread in here}
            star = Reference(here[0]["r_star"], f"r* {here[0]['r_star']:.3g}", tone="accent", dash="dashed")
            panels.append(Panel(place.replace("_", " "), x, y, [_line(spread) for spread in here], (star,)))
        options.append((experiment["model"], panels))
    return Chart(
        "controls",
        "Radius beside its controls",
        "Median of half the distance to the nearest neighbour, against the size of the sample. Controls: the "
        "same network with random weights; a Gaussian of the same covariance; the coordinates shuffled. A radius that "
        "falls with the sample, or that the controls share, is by itself no sign of stored patterns.",
        options,
        [
            Key(name, name, tone, "line" if dash == "solid" else dash)
            for name, (tone, dash) in _LOOKS.items()
            if name in drawn
        ],
        "vectors",
        "trial",
    )


def _line(spread: dict[str, Any]) -> Series:
    tone, dash = _LOOKS.get(spread["vectors"], ("muted", "dashed"))
    rows = spread["samples"]
    labels = [f"{spread['vectors']}, {row['size']:,} vectors: radius {row['radius_median']:.4g}" for row in rows]
    sizes, radii = [row["size"] for row in rows], [row["radius_median"] for row in rows]
    return Series(
        spread["vectors"], sizes, radii, tone, spread["vectors"], dash, marker="circle", size=5, labels=labels
    )
