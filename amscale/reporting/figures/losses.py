"""Loss over N and D: a line per N, and iso-loss lines over the plane.

Loss curves over steps, a panel per D.
"""

import math

import numpy as np

from amscale.reporting.analysis import MOST_TONES, Analysis
from amscale.reporting.axes import every_other, linear_axis, log_axis, mean_of_neighbours, records_a_point, references
from amscale.reporting.chart import Chart, Key, Panel, Series, Text
from amscale.reporting.figures.common import D_TITLE, N_TITLE, beside, evenly_chosen, known_figures, size_keys
from amscale.reporting.gather import Curve, Sweep, Trial
from amscale.settings import format_size

_LEVELS = 6


def losses(analysis: Analysis) -> Chart | None:
    """Validation and train loss against D with a line per N, and iso-loss lines of the validation loss."""
    runs = analysis.losses("validation_least")
    if not runs or analysis.mixed:
        return None
    known = known_figures(analysis, analysis.finished if isinstance(analysis, Sweep) else None)
    title = "least validation loss" if isinstance(analysis, Sweep) else "loss"
    panels = [_against_tokens(analysis, title, runs, known)]
    caption = "Each point is one run"
    if len(analysis.sizes) <= MOST_TONES:
        caption += ", each line the mean over the seeds of one N"
    caption += "." + analysis.thinned
    if isinstance(analysis, Sweep):
        panels.append(_against_tokens(analysis, "least train loss", analysis.losses("train_least"), known))
        window = first.losses.train_window if (first := analysis.finished[0].result) else None
        over = f"{window} consecutive steps" if window else "a window of steps"
        caption += f" The train loss is the least mean over {over}."
    contours = _iso_loss(analysis)
    if contours is not None:
        panels.append(contours)
        caption += " Iso-loss lines are interpolated linearly in ln N and ln D between the runs (dots): a guide only."
    return Chart(
        key="loss",
        title="Loss over N and D",
        caption=caption + beside(known),
        options=[("", panels)],
        keys=size_keys(analysis),
        keys_title=N_TITLE,
    )


def _against_tokens(
    analysis: Analysis, title: str, runs: list[tuple[float, float, float, str]], known: list[tuple[str, float]]
) -> Panel:
    x = log_axis(D_TITLE, [D for _, D, _, _ in runs], sizes=True)
    y = log_axis("loss (nats per token)", [value for _, _, value, _ in runs] + [value for _, value in known])
    by_tone: dict[str, list[tuple[float, float, float, str]]] = {}
    for run in runs:
        by_tone.setdefault(analysis.tone(run[0]), []).append(run)
    lines, dots = [], []
    for tone, row in by_tone.items():
        name = f"N = {format_size(row[0][0])}"
        if len(analysis.sizes) <= MOST_TONES:
            tokens = sorted({D for _, D, _, _ in row})
            means = [float(np.mean([value for _, d, value, _ in row if d == D])) for D in tokens]
            lines.append(Series(name, tokens, means, tone, group=tone))
        dots.append(
            Series(
                name,
                [D for _, D, _, _ in row],
                [value for _, _, value, _ in row],
                tone,
                group=tone,
                dash="none",
                marker="circle",
                size=7 if len(runs) < 300 else 4,
                labels=[f"{called}: {value:.4f}" for _, _, value, called in row],
            )
        )
    return Panel(title, x, y, [*lines, *dots], references(known, y))


def _iso_loss(analysis: Analysis) -> Panel | None:
    """Iso-loss lines, where every cell of at least 2 N and 2 D has a run."""
    cells = analysis.cells()
    sizes, tokens = sorted({N for N, _ in cells}), sorted({D for _, D in cells})
    if len(sizes) < 2 or len(tokens) < 2 or len(cells) < len(sizes) * len(tokens):
        return None
    from contourpy import contour_generator

    grid = np.array([[math.log(cells[(N, D)]) for D in tokens] for N in sizes])
    generator = contour_generator(np.log(tokens), np.log(sizes), grid)
    levels = np.linspace(grid.min(), grid.max(), _LEVELS + 2)[1:-1]
    reach = np.log([tokens[-1] / tokens[0], sizes[-1] / sizes[0]])
    series: list[Series] = []
    texts: list[Text] = []
    for level in levels:
        value = f"{math.exp(level):.3g}"
        for line in generator.lines(level):
            points = np.exp(np.asarray(line, dtype=float))
            if len(points) < 2:
                continue
            x, y = points[:, 0].tolist(), points[:, 1].tolist()
            series.append(Series(f"loss {value}", x, y, "muted", width=1.3))
            place = _free_place(points, texts, reach)
            texts.append(Text(*place, value, "ink", above=False, covers=True))
    series.append(
        Series(
            "runs",
            [D for _, D in cells],
            [N for N, _ in cells],
            "muted",
            dash="none",
            marker="circle",
            size=5,
            labels=[f"N = {format_size(N)}, D = {format_size(D)}: {value:.4f}" for (N, D), value in cells.items()],
        )
    )
    return Panel(
        "iso-loss lines of the validation loss",
        log_axis(D_TITLE, tokens, sizes=True, margin=0.08),
        log_axis(N_TITLE, sizes, sizes=True, margin=0.12),
        series,
        texts=texts,
    )


def _free_place(points: np.ndarray, texts: list[Text], reach: np.ndarray) -> tuple[float, float]:
    """The place on a line, of shape (points, 2), that is farthest from the labels so far; the middle of the first."""
    line = np.log(points)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*(np.diff(line, axis=0) / reach).T))])
    shares = np.linspace(0.12, 0.88, 13) * along[-1]
    places = np.stack([np.interp(shares, along, line[:, column]) for column in range(2)], axis=1)
    taken = np.log([[text.x, text.y] for text in texts]) if texts else np.empty((0, 2))
    if not len(taken):
        best = len(places) // 2
    else:
        apart = ((places[:, None, :] - taken[None, :, :]) / reach) ** 2
        best = int(np.argmax(apart.sum(axis=2).min(axis=1)))
    return float(np.exp(places[best, 0])), float(np.exp(places[best, 1]))


_MOST_PANELS = 9


def loss_curves(sweep: Sweep) -> Chart | None:
    """Train and validation loss of every trial with a result, diverged ones too."""
    trials = [trial for trial in sweep.shown if trial.train or trial.validation]
    if not trials:
        return None
    tokens = sorted({trial.D for trial in trials if trial.D})
    shown = evenly_chosen(tokens, _MOST_PANELS)
    trials = [trial for trial in trials if trial.D in shown]
    values = [loss for trial in trials for _, loss in (*_drawn_train(trial), *trial.validation)]
    known = known_figures(sweep, trials)
    y = log_axis("loss (nats per token)", values + [value for _, value in known])
    x = linear_axis("step", [0.0, *(step for trial in trials for step, _ in (*trial.train, *trial.validation))], 0.02)
    panels = []
    for D in shown:
        row = [trial for trial in trials if trial.D == D]
        lines = references(known_figures(sweep, row, memorised=True), y)
        panels.append(Panel(f"D = {format_size(D)}", x, y, [s for t in row for s in _curves(sweep, t)], lines))
    caption = "Thin: train loss; thick: validation loss." + beside(known)
    if any(sweep.fact("memorised_per_token", [t for t in trials if t.D == D]) is not None for D in shown):
        caption += " Memorised: what a model that knows these D tokens by heart scores."
    most = max(records_a_point(trial.train) for trial in trials)
    if most > 1:
        caption += (
            f" Each point of a train curve is the mean of up to {most} consecutive steps; all are in metrics.jsonl."
        )
    if len(shown) < len(tokens):
        caption += f" {len(shown)} of {len(tokens)} D are shown, evenly spread."
    return Chart(
        "curves",
        "Loss curves",
        caption,
        [("", panels)],
        [*size_keys(sweep), *([] if all(t.finished for t in trials) else [Key("diverged", "diverged", "accent")])],
        N_TITLE,
    )


def _drawn_train(trial: Trial) -> Curve:
    return mean_of_neighbours(trial.train)


def _curves(sweep: Sweep, trial: Trial) -> list[Series]:
    tone = sweep.tone(trial.N) if trial.finished else "accent"
    group = tone if trial.finished else "diverged"
    name = f"N = {format_size(trial.N or 0)}, seed {trial.seed}" + ("" if trial.finished else f", {trial.status.state}")
    series = []
    parts = (("train", _drawn_train(trial), 1.0, 0.75), ("validation", every_other(trial.validation), 2.4, 1.0))
    for part, curve, width, opacity in parts:
        if curve:
            losses = [loss if math.isfinite(loss) and loss > 0 else None for _, loss in curve]
            steps = [step for step, _ in curve]
            series.append(Series(f"{name}, {part}", steps, losses, tone, group, width=width, opacity=opacity))
    return series
