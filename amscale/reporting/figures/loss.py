"""Loss over N and D, and loss curves over steps."""

import math

import numpy as np

from amscale.reporting.axes import linear_axis, log_axis, references
from amscale.reporting.chart import Chart, ChartText, LegendItem, Panel, Series
from amscale.reporting.figures.common import (
    D_TITLE,
    N_TITLE,
    evenly_spaced,
    known_losses,
    known_losses_note,
    size_legend,
)
from amscale.reporting.fit_data import FitData, RunLoss, mean_by_cell, run_label
from amscale.reporting.report_data import Curve, ReportData, ReportTrial
from amscale.settings import format_size

_LEVELS = 6
_MANY_RUNS = 300
"""So many runs are drawn with smaller markers."""


def loss(data: FitData) -> Chart | None:
    """Build validation and train loss against D with a line per N, and iso-loss lines of the validation loss."""
    runs = data.losses("validation_least")
    if not runs or data.corpora:
        return None
    known, tuned = known_losses(data), bool(data.fit.get("tuning"))
    panels = [_loss_over_tokens(data, data.loss_name, runs, known, data.mean_losses())]
    caption = "Each point is one run"
    if data.one_colour_per_size:
        caption += ", each line the tuned cells of one N" if tuned else ", each line the mean over the seeds of one N"
    caption += "." + data.sample_note
    if isinstance(data, ReportData):
        least = data.losses("train_least")
        lines = {} if tuned else mean_by_cell((run.N, run.D, run.loss) for run in least)
        panels.append(_loss_over_tokens(data, "least train loss", least, known, lines))
        window = first.losses.train_window if (first := data.finished[0].result) else None
        over = f"{window} consecutive steps" if window else "a window of steps"
        caption += f" The train loss is the least mean over {over}."
    contours = _contours(data)
    if contours is not None:
        panels.append(contours)
        caption += " Iso-loss lines are interpolated linearly in ln N and ln D between the runs (dots): a guide only."
    caption += known_losses_note(known)
    return Chart("loss", "Loss over N and D", caption, [("", panels)], size_legend(data), N_TITLE)


def _loss_over_tokens(
    data: FitData,
    title: str,
    runs: list[RunLoss],
    known: list[tuple[str, float]],
    lines_through: dict[tuple[float, float], float],
) -> Panel:
    x = log_axis(D_TITLE, [run.D for run in runs], sizes=True)
    y = log_axis("loss (nats per token)", [run.loss for run in runs] + [value for _, value in known])
    by_colour: dict[str, list[RunLoss]] = {}
    for run in runs:
        by_colour.setdefault(data.size_colour(run.N), []).append(run)
    lines, points = [], []
    for colour, row in by_colour.items():
        name = f"N = {format_size(row[0].N)}"
        cells = sorted((D, value) for (N, D), value in lines_through.items() if N == row[0].N)
        if data.one_colour_per_size and cells:
            lines.append(Series(name, [D for D, _ in cells], [value for _, value in cells], colour, group=colour))
        points.append(
            Series(
                name,
                [run.D for run in row],
                [run.loss for run in row],
                colour,
                group=colour,
                dash="none",
                marker="circle",
                size=7 if len(runs) < _MANY_RUNS else 4,
                labels=[f"{run.label}: {run.loss:.4f}" for run in row],
            )
        )
    return Panel(title, x, y, [*lines, *points], references(known, y))


def _contours(data: FitData) -> Panel | None:
    """Build iso-loss lines, where every cell of at least 2 N and 2 D has a run."""
    cells = data.mean_losses()
    sizes, tokens = sorted({N for N, _ in cells}), sorted({D for _, D in cells})
    if len(sizes) < 2 or len(tokens) < 2 or len(cells) < len(sizes) * len(tokens):
        return None
    from contourpy import contour_generator

    grid = np.array([[math.log(cells[(N, D)]) for D in tokens] for N in sizes])
    generator = contour_generator(np.log(tokens), np.log(sizes), grid)
    levels = np.linspace(grid.min(), grid.max(), _LEVELS + 2)[1:-1]
    extent = np.log([tokens[-1] / tokens[0], sizes[-1] / sizes[0]])
    series: list[Series] = []
    texts: list[ChartText] = []
    for level in levels:
        value = f"{math.exp(level):.3g}"
        for line in generator.lines(level):
            points = np.exp(np.asarray(line, dtype=float))
            if len(points) < 2:
                continue
            x, y = points[:, 0].tolist(), points[:, 1].tolist()
            series.append(Series(f"loss {value}", x, y, "muted", width=1.3))
            place = _label_place(points, texts, extent)
            texts.append(ChartText(*place, value, "ink", above=False, opaque=True))
    series.append(
        Series(
            "runs",
            [D for _, D in cells],
            [N for N, _ in cells],
            "muted",
            dash="none",
            marker="circle",
            size=5,
            labels=[f"{run_label(N, D, None)}: {value:.4f}" for (N, D), value in cells.items()],
        )
    )
    return Panel(
        "iso-loss lines of the validation loss",
        log_axis(D_TITLE, tokens, sizes=True, margin=0.08),
        log_axis(N_TITLE, sizes, sizes=True, margin=0.12),
        series,
        texts=texts,
    )


def _label_place(points: np.ndarray, texts: list[ChartText], extent: np.ndarray) -> tuple[float, float]:
    """Return the place on a line that is farthest from the other labels; without any, the middle of the line.

    Args:
        points: the line, shape (points, 2).
        texts: the labels so far.
        extent: ln of the ranges of D and N, shape (2,).
    """
    line = np.log(points)
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*(np.diff(line, axis=0) / extent).T))])
    shares = np.linspace(0.12, 0.88, 13) * lengths[-1]
    places = np.stack([np.interp(shares, lengths, line[:, column]) for column in range(2)], axis=1)
    if texts:
        labels = np.log([[text.x, text.y] for text in texts])
        distances = ((places[:, None, :] - labels[None, :, :]) / extent) ** 2
        best = int(np.argmax(distances.sum(axis=2).min(axis=1)))
    else:
        best = len(places) // 2
    return float(np.exp(places[best, 0])), float(np.exp(places[best, 1]))


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
    averaged = max(trial.averaged for trial in trials)
    if averaged > 1:
        caption += (
            f" Each point of a train curve is the mean of up to {most * averaged} steps, as the archive has them."
        )
    elif most > 1:
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
