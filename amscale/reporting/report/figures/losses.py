"""Loss over N and D: a line per N, and iso-loss lines over the plane."""

import math

import numpy as np

from amscale.reporting.report.axes import log_axis, references
from amscale.reporting.report.chart import Chart, Panel, Series, Text
from amscale.reporting.report.figures.common import D_TITLE, N_TITLE, beside, known_figures, size_keys
from amscale.reporting.report.gather import Sweep, Trial
from amscale.settings import format_size

_LEVELS = 6


def losses(sweep: Sweep) -> Chart | None:
    """Validation and train loss against D with a line per N, and iso-loss lines of the validation loss."""
    if not sweep.finished:
        return None
    known = known_figures(sweep, sweep.finished)
    panels = [
        _against_tokens(sweep, "least validation loss", "validation_least", known),
        _against_tokens(sweep, "least train loss", "train_least", known),
    ]
    window = (sweep.finished[0].result or {})["losses"].get("train_window")
    caption = (
        "Each point is one run, each line the mean over the seeds of one N. "
        f"The train loss is the least mean over {f'{window} consecutive steps' if window else 'a window of steps'}."
    )
    contours = _iso_loss(sweep)
    if contours is not None:
        panels.append(contours)
        caption += " Iso-loss lines are interpolated linearly in ln N and ln D between the runs (dots): a guide only."
    return Chart(
        key="loss",
        title="Loss over N and D",
        caption=caption + beside(known),
        options=[("", panels)],
        keys=size_keys(sweep),
        keys_title=N_TITLE,
    )


def _cells(sweep: Sweep, key: str) -> dict[tuple[float, float], list[tuple[Trial, float]]]:
    cells: dict[tuple[float, float], list[tuple[Trial, float]]] = {}
    for trial in sweep.finished:
        value = (trial.result or {})["losses"].get(key)
        if value is not None and math.isfinite(value) and trial.N and trial.D:
            cells.setdefault((trial.N, trial.D), []).append((trial, float(value)))
    return cells


def _against_tokens(sweep: Sweep, title: str, key: str, known: list[tuple[str, float]]) -> Panel:
    cells = _cells(sweep, key)
    x = log_axis(D_TITLE, [D for _, D in cells], sizes=True)
    y = log_axis("loss (nats per token)", [v for runs in cells.values() for _, v in runs] + [v for _, v in known])
    series = []
    for N in sweep.sizes:
        row = sorted((D, runs) for (size, D), runs in cells.items() if size == N)
        name, tone = f"N = {format_size(N)}", sweep.tone(N)
        means = [float(np.mean([value for _, value in runs])) for _, runs in row]
        series.append(Series(name, [D for D, _ in row], means, tone, group=tone))
        points = [(D, value, trial) for D, runs in row for trial, value in runs]
        series.append(
            Series(
                name,
                [D for D, _, _ in points],
                [value for _, value, _ in points],
                tone,
                group=tone,
                dash="none",
                marker="circle",
                labels=[f"{name}, D = {format_size(D)}, seed {t.seed}: {value:.4f}" for D, value, t in points],
            )
        )
    return Panel(title, x, y, series, references(known, y))


def _iso_loss(sweep: Sweep) -> Panel | None:
    """Iso-loss lines, where every cell of at least 2 N and 2 D has a run."""
    cells = {cell: float(np.mean([v for _, v in runs])) for cell, runs in _cells(sweep, "validation_least").items()}
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
