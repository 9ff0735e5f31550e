"""Loss curves over steps, a panel per D."""

import math

from amscale.reporting.report.axes import linear_axis, log_axis, references
from amscale.reporting.report.chart import Chart, Key, Panel, Series
from amscale.reporting.report.figures.common import N_TITLE, beside, known_figures, size_keys, spread
from amscale.reporting.report.gather import Curve, Sweep, Trial
from amscale.reporting.report.thin import every_other, mean_of_neighbours, records_a_point
from amscale.settings import format_size

_MOST_PANELS = 9


def loss_curves(sweep: Sweep) -> Chart | None:
    """Train and validation loss of every trial with a result, diverged ones too."""
    trials = [trial for trial in sweep.shown if trial.train or trial.validation]
    if not trials:
        return None
    tokens = sorted({trial.D for trial in trials if trial.D})
    shown = spread(tokens, _MOST_PANELS)
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
    name = f"N = {format_size(trial.N or 0)}, seed {trial.seed}" + (
        "" if trial.finished else f", {trial.standing.state}"
    )
    series = []
    parts = (("train", _drawn_train(trial), 1.0, 0.75), ("validation", every_other(trial.validation), 2.4, 1.0))
    for part, curve, width, opacity in parts:
        if curve:
            losses = [loss if math.isfinite(loss) and loss > 0 else None for _, loss in curve]
            steps = [step for step, _ in curve]
            series.append(Series(f"{name}, {part}", steps, losses, tone, group, width=width, opacity=opacity))
    return series
