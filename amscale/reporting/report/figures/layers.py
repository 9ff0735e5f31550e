"""Energies and radii inside the networks, layer by layer, over training."""

from collections.abc import Callable, Sequence

from amscale.reporting.report.axes import linear_axis, log_axis
from amscale.reporting.report.chart import Axis, Chart, Key, Panel, Reference, Series
from amscale.reporting.report.gather import Sweep, Trial
from amscale.settings import format_size

_MOST_LAYERS = 8
_MOST_PANELS = 6

Values = Sequence[float | None]


def energies(sweep: Sweep) -> Chart | None:
    """Energy E of the queries against each layer's stored patterns, and the global energy."""
    suffixes = ("E_mean", "E_q05", "E_q95")
    return _layers(
        sweep,
        "energy",
        "Energy by layer",
        "E of held-out probe sequences against the patterns that a layer stores (theory: g − log d ≤ E ≤ g). "
        "Line: mean over the queries; band: 5 to 95 %. Dashed: the global energy over all layers.",
        suffixes,
        lambda values: linear_axis("energy E (dimensionless)", values),
        lambda trial: (
            [Series("global, mean", *_over_steps(trial, "energy/global/E_mean"), "ink", "global", "dashed", 1.6)],
            (),
        ),
        [Key("global", "global", "ink", "dashed")],
    )


def radii(sweep: Sweep) -> Chart | None:
    """Sampled radius of each layer's patterns beside r*."""

    def reference(trial: Trial) -> tuple[list[Series], Sequence[Reference]]:
        found = {
            v
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
    extra: Callable[[Trial], tuple[list[Series], Sequence[Reference]]],
    keys: Sequence[Key],
) -> Chart | None:
    """A panel per N with a line per layer, for each D to choose from."""
    trials = [trial for trial in sweep.shown if _depth(trial, group)]
    if not trials:
        return None
    sizes = _sizes(trials)
    options: list[tuple[str, Sequence[Panel]]] = []
    drawn: set[int] = set()
    for D in sorted({trial.D for trial in trials if trial.D}, reverse=True):
        first = {trial.N: trial for trial in reversed(trials) if trial.D == D and trial.N in sizes}
        if not first:
            continue
        row = [first[N] for N in sizes if N in first]
        built = [(trial, *_lines(trial, group, suffixes, drawn), *extra(trial)) for trial in row]
        shared = axis([v for _, _, values, _, lines in built for v in (*values, *(line.value for line in lines))])
        panels = []
        for trial, lines, _, more, references in built:
            x = linear_axis("step", [0.0, *(float(step) for step, _ in trial.probes)], 0.02)
            name = f"N = {format_size(trial.N or 0)}, seed {trial.seed}"
            panels.append(Panel(name, x, shared, [*lines, *more], tuple(references), height=290))
        options.append((format_size(D), panels))
    depth = max(_depth(trial, group) for trial in trials)
    layers = [Key(f"layer:{i}", str(i), f"layer:{i}") for i in sorted(drawn)]
    if depth > _MOST_LAYERS:
        caption += f" At most {_MOST_LAYERS} layers of a network are shown, evenly spread."
    return Chart(group, title, caption, options, [*layers, *keys], "layer", "D (unique tokens)")


def _depth(trial: Trial, group: str) -> int:
    names = {key.split("/")[1] for _, values in trial.probes for key in values if key.startswith(f"{group}/layer_")}
    return max((int(name.removeprefix("layer_")) + 1 for name in names), default=0)


def _sizes(trials: Sequence[Trial]) -> list[float]:
    sizes = sorted({trial.N for trial in trials if trial.N})
    if len(sizes) <= _MOST_PANELS:
        return sizes
    return [sizes[round(i * (len(sizes) - 1) / (_MOST_PANELS - 1))] for i in range(_MOST_PANELS)]


def _lines(
    trial: Trial, group: str, suffixes: Sequence[str], drawn: set[int]
) -> tuple[list[Series], list[float | None]]:
    """Lines (and a band, where there are quantiles) of the layers shown, and every value on them."""
    depth = _depth(trial, group)
    most = min(depth, _MOST_LAYERS)
    chosen = sorted({round(i * (depth - 1) / max(most - 1, 1)) for i in range(most)})
    drawn.update(chosen)
    series: list[Series] = []
    seen: list[float | None] = []
    for layer in chosen:
        tone, name = f"layer:{layer}", f"layer {layer}"
        steps, middle = _over_steps(trial, f"{group}/layer_{layer:02d}/{suffixes[0]}")
        seen += middle
        if len(suffixes) == 3:
            low, high = (_over_steps(trial, f"{group}/layer_{layer:02d}/{suffix}")[1] for suffix in suffixes[1:])
            whole = [(s, a, b) for s, a, b in zip(steps, low, high, strict=True) if a is not None and b is not None]
            x = [s for s, _, _ in whole] + [s for s, _, _ in reversed(whole)]
            y = [a for _, a, _ in whole] + [b for _, _, b in reversed(whole)]
            series.append(Series(f"{name}, 5 to 95 %", x, y, tone, tone, "none", opacity=0.16, fill=True))
            seen += y
        series.append(Series(name, steps, middle, tone, tone, marker="circle", size=5))
    return series, seen


def _over_steps(trial: Trial, key: str) -> tuple[list[float], list[float | None]]:
    return [float(step) for step, _ in trial.probes], [values.get(key) for _, values in trial.probes]
