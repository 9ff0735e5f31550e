"""D*(N): the least D at which a model of N parameters does not over-fit (arXiv 2405.08707, section on N against D).

    D*(N) = min{ D : mean over the W iterations before the step of least validation loss of
                     (train loss - least validation loss)^2 < threshold }

The grid of D makes D* known only up to an interval: (previous D of the grid, D*]. Threshold and window are conventions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amscale.errors import InputError
from amscale.scaling.curves import Choice, Curves
from amscale.scaling.points import Point, PointTable
from amscale.settings import format_size


@dataclass(frozen=True)
class Criterion:
    """The criterion of one run, nats² per token²: value = gap² + variance.

    `gap` is the mean of (train loss - least validation loss) over the window and `variance` the variance of the train
    loss there, which a small batch raises on its own.
    """

    value: float
    gap: float
    variance: float
    step: int
    window: int
    cut: bool
    at_end: bool


@dataclass(frozen=True)
class DStar:
    """D* of one N, inside (lower, upper]; lower 0 is left-censored, upper infinite right-censored.

    `value` is D* by its definition, None where no D passes. `D` and `criteria` are the grid and the criterion there
    (mean over seeds).
    """

    N: float
    lower: float
    upper: float
    value: float | None
    D: tuple[float, ...]
    criteria: tuple[float, ...]
    flags: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """How D* is censored: interval, left, right, or none where nothing is known."""
        left, right = self.lower == 0, math.isinf(self.upper)
        return {(False, False): "interval", (True, False): "left", (False, True): "right", (True, True): "none"}[
            (left, right)
        ]


def check_window(window: float) -> None:
    """Check a window: a share of the run, at most 1, or a whole number of steps above 1.

    Raises:
        InputError: it is neither.
    """
    number = isinstance(window, int | float) and not isinstance(window, bool)
    if not number or not (0 < window <= 1 or (window > 1 and window == int(window))):
        raise InputError(f"window={window!r} must be a whole number of steps (1000) or a share of the run (0.2)")


def criterion(curves: Curves, window: float = 0.2) -> Criterion:
    """Return the criterion of one run over `window` iterations, in steps or as a share (at most 1) of the run.

    Raises:
        ValueError: there is no validation loss, or no train loss inside the window.
    """
    least = _least(curves)
    step, floor = int(curves.validation_steps[least]), float(curves.validation_losses[least])
    width = _width(curves, window)
    losses = curves.train_at(_before(step, width))
    if not len(losses) or not losses.finite:
        raise ValueError(f"no finite train losses in the {width} steps before step {step}")
    return Criterion(
        value=losses.squared_about(floor),
        gap=losses.mean - floor,
        variance=losses.squared_about(losses.mean),
        step=step,
        window=width,
        cut=step < width,
        at_end=least == len(curves.validation_steps) - 1,
    )


def window_before_least(curves: Curves, window: float) -> Choice:
    """Return the window of the criterion, which chooses among steps.

    Raises:
        ValueError: there is no validation loss.
    """
    return _before(int(curves.validation_steps[_least(curves)]), _width(curves, window))


def _before(step: int, width: int) -> Choice:
    return lambda steps: (steps > step - width) & (steps <= step)


def _least(curves: Curves) -> int:
    finite = np.isfinite(curves.validation_losses)
    if not finite.any():
        raise ValueError("no finite validation loss")
    return int(np.argmin(np.where(finite, curves.validation_losses, np.inf)))


def _width(curves: Curves, window: float) -> int:
    return max(1, round(window * curves.steps)) if window <= 1 else int(window)


def place_of(lower: float, upper: float | None) -> str:
    """Return where D* lies: `8k to 20k`, or the end that is known. An upper end that JSON has as null is infinite."""
    if upper is None or math.isinf(upper):
        return f"above {format_size(lower)}"
    return f"{format_size(lower)} to {format_size(upper)}" if lower else f"at most {format_size(upper)}"


def locate(N: float, D: Sequence[float], criteria: Sequence[float], threshold: float = 0.04) -> DStar:
    """Locate D* of one N from the criterion on a grid of D.

    Where passing is not monotone in D, the interval that enters the fit is widened to (last D before which none passed,
    first D from which all pass], because the threshold may be crossed anywhere between; `value` keeps the definition.
    """
    order = np.argsort(D)
    grid, values = np.asarray(D, dtype=float)[order], np.asarray(criteria, dtype=float)[order]
    passed = values < threshold
    flags: tuple[str, ...] = ()
    if not passed.any():
        return DStar(N, float(grid[-1]), math.inf, None, tuple(grid), tuple(values))
    first = int(np.argmax(passed))
    lower = float(grid[first - 1]) if first else 0.0
    upper = float(grid[first])
    if not passed[first:].all():
        last_failure = int(np.flatnonzero(~passed)[-1])
        upper = float(grid[last_failure + 1]) if last_failure + 1 < len(grid) else math.inf
        flags = (f"passing is not monotone in D: passes at {grid[first]:.4g}, fails at {grid[last_failure]:.4g}",)
    return DStar(N, lower, upper, float(grid[first]), tuple(grid), tuple(values), flags)


def cell_criteria(
    cells: dict[tuple[float, float], list[Point]], window: float
) -> tuple[dict[tuple[float, float], list[Criterion]], list[str]]:
    """Return the criterion of every run by (N, D), and a line for each run without one."""
    criteria: dict[tuple[float, float], list[Criterion]] = {}
    left_out: list[str] = []
    for cell, points in cells.items():
        for point in points:
            try:
                if point.curves is None:
                    raise ValueError("no loss curve")
                criteria.setdefault(cell, []).append(criterion(point.curves, window))
            except ValueError as error:
                left_out.append(f"{point.name}: {error}")
    return criteria, left_out


def locate_all(criteria: dict[tuple[float, float], list[float]], threshold: float = 0.04) -> list[DStar]:
    """Locate D* of every N, ascending, by the mean criterion over the seeds of a cell."""
    rows: dict[float, list[tuple[float, float]]] = {}
    for (N, D), values in sorted(criteria.items()):
        rows.setdefault(N, []).append((D, float(np.mean(values))))
    return [locate(N, [D for D, _ in row], [value for _, value in row], threshold) for N, row in rows.items()]


def choice_remark(table: PointTable) -> tuple[str, ...]:
    """Return at which settings the runs of a table were compared, where its cells were run at several."""
    if not table.others:
        return ()
    cells = {(point.N, point.D) for point in table.others}
    axes = dict.fromkeys(axis for point in table.points for axis in point.settings)
    by = f" (tuned: {', '.join(axes)})" if axes else ""
    return (
        f"{len(cells)} cells were run at several settings{by}, and count with those of their least validation loss: "
        "other settings have another D*",
    )


def criterion_remarks(criteria: dict[tuple[float, float], list[Criterion]], threshold: float) -> tuple[str, ...]:
    """Return what a reader must know of the runs before trusting D*."""
    runs = [item for items in criteria.values() for item in items]
    remarks = []
    for number, text in (
        (
            sum(item.at_end for item in runs),
            "have their least validation loss at the last evaluation: trained longer, D* may move",
        ),
        (sum(item.cut for item in runs), "have a window cut short by the start of the run"),
        (
            sum(item.variance >= threshold for item in runs),
            "have a batch-to-batch variance that alone exceeds the threshold",
        ),
    ):
        if number:
            remarks.append(f"{number} of {len(runs)} runs {text}")
    return tuple(remarks)
