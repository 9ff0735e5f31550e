"""Loss curves over steps, a panel per D, and the downsampling of long curves."""

import math

from amscale.reporting.axes import linear_axis, log_axis, references
from amscale.reporting.chart import Chart, LegendItem, Panel, Series
from amscale.reporting.figures.common import N_TITLE, evenly_spaced, known_losses, known_losses_note, size_legend
from amscale.reporting.report_data import Curve, ReportData, ReportTrial
from amscale.settings import format_size

MAX_CURVE_POINTS = 500
_MAX_PANELS = 9


def curves(report: ReportData) -> Chart | None:
    """Build train and validation loss of every trial with a result, diverged ones too."""
    trials = [trial for trial in report.with_result if trial.train or trial.validation]
    if not trials:
        return None
    tokens = sorted({trial.D for trial in trials if trial.D})
    shown = evenly_spaced(tokens, _MAX_PANELS)
    trials = [trial for trial in trials if trial.D in shown]
    losses = [loss for trial in trials for _, loss in (*downsample_means(trial.train), *trial.validation)]
    known = known_losses(report, trials)
    y = log_axis("loss (nats per token)", losses + [value for _, value in known])
    x = linear_axis("step", [0.0, *(step for trial in trials for step, _ in (*trial.train, *trial.validation))], 0.02)
    panels = []
    for D in shown:
        row = [trial for trial in trials if trial.D == D]
        lines = references(known_losses(report, row, memorised=True), y)
        panels.append(Panel(f"D = {format_size(D)}", x, y, [s for trial in row for s in _series(report, trial)], lines))
    caption = "Thin: train loss; thick: validation loss." + known_losses_note(known)
    if any(report.corpus_fact("memorised_per_token", [t for t in trials if t.D == D]) is not None for D in shown):
        caption += " Memorised: what a model that knows these D tokens by heart scores."
    most = max(records_per_point(trial.train) for trial in trials)
    if most > 1:
        caption += (
            f" Each point of a train curve is the mean of up to {most} consecutive steps; all are in metrics.jsonl."
        )
    if len(shown) < len(tokens):
        caption += f" {len(shown)} of {len(tokens)} D are shown, evenly spaced."
    diverged = [] if all(trial.finished for trial in trials) else [LegendItem("diverged", "diverged", "accent")]
    return Chart("curves", "Loss curves", caption, [("", panels)], [*size_legend(report), *diverged], N_TITLE)


def _series(report: ReportData, trial: ReportTrial) -> list[Series]:
    colour = report.size_colour(trial.N) if trial.finished else "accent"
    group = colour if trial.finished else "diverged"
    name = f"N = {format_size(trial.N or 0)}, seed {trial.seed}" + ("" if trial.finished else f", {trial.status.state}")
    parts = (
        ("train", downsample_means(trial.train), 1.0, 0.75),
        ("validation", downsample_keeping_least(trial.validation), 2.4, 1.0),
    )
    series = []
    for part, curve, width, opacity in parts:
        if curve:
            losses = [loss if math.isfinite(loss) and loss > 0 else None for _, loss in curve]
            steps = [step for step, _ in curve]
            series.append(Series(f"{name}, {part}", steps, losses, colour, group, width=width, opacity=opacity))
    return series


def records_per_point(curve: Curve, most: int = MAX_CURVE_POINTS) -> int:
    """Return how many records each point of a downsampled curve is the mean of."""
    return max(1, math.ceil(len(curve) / most))


def downsample_means(curve: Curve, most: int = MAX_CURVE_POINTS) -> Curve:
    """Return at most `most` points, each the mean of consecutive records; a short curve as it is.

    Means keep the level of the curve and lose its scatter.
    """
    width = records_per_point(curve, most)
    if width == 1:
        return list(curve)
    groups = [curve[start : start + width] for start in range(0, len(curve), width)]
    return [(sum(step for step, _ in g) / len(g), sum(loss for _, loss in g) / len(g)) for g in groups]


def downsample_keeping_least(curve: Curve, most: int = MAX_CURVE_POINTS) -> Curve:
    """Return about `most` of the records unchanged, the least and the last among them."""
    stride = records_per_point(curve, most)
    if stride == 1:
        return list(curve)
    least = min(range(len(curve)), key=lambda index: curve[index][1])
    kept = sorted({*range(0, len(curve), stride), least, len(curve) - 1})
    return [curve[index] for index in kept]
