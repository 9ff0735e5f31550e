"""The health of a sweep: whether the loss curves of its runs are one curve of the share of compute spent.

Each run's train loss is divided by its own at the end. Curves of runs whose learning rate, batch and decay suit their
size and length lie on one another (arXiv 2507.02119, 2509.25087); a run that leaves the band of the others measures its
settings as much as its N and D. It is a sign, not a test: a run that learns its data by heart leaves the band too.
"""

from dataclasses import dataclass

import numpy as np

from amscale.scaling.curves import Array, Choice, Curves
from amscale.scaling.points import PointTable

_SHARES = np.linspace(0.3, 0.95, 14)
"""Shares of the steps at which curves are compared: before, the warm-up and the first descent differ by length."""

_WINDOW = 0.05
_LEAST_RUNS = 4
_LEAST_RECORDS = 40
_BEYOND, _LEAST_LEAVE = 4.0, 0.03
"""A run leaves the band where it is beyond so many robust deviations of the others, and by such a share at least."""


@dataclass(frozen=True)
class Health:
    """Loss curves on one scale.

    Attributes:
        shares: shares of the steps (S,).
        names: of the runs.
        curves: train loss over the run's own at the end (runs, S).
        median: of all runs (S,).
        band: half-width of the band about it (S,).
        leaving: by how much runs leave the band at their worst, by name: a share of the loss.
        short: runs with too few train losses.
    """

    shares: Array
    names: tuple[str, ...]
    curves: Array
    median: Array
    band: Array
    leaving: dict[str, float]
    short: tuple[str, ...]

    def remarks(self) -> tuple[str, ...]:
        """Return a sentence on the runs that leave the band, if any do."""
        if not self.leaving:
            return ()
        worst = sorted(self.leaving, key=lambda name: -abs(self.leaving[name]))
        named = ", ".join(f"{name} ({self.leaving[name]:+.0%})" for name in worst[:4])
        more = f" and {len(worst) - 4} more" if len(worst) > 4 else ""
        return (
            f"{len(worst)} of {len(self.names)} loss curves leave the band of the others, scaled to their ends: {named}"
            f"{more}; do learning rate, batch and decay suit them?",
        )


def health(table: PointTable) -> Health | None:
    """Return the loss curves of a sweep's runs on one scale; None where fewer than 4 have enough train losses."""
    known = [(point, _scaled(point.curves)) for point in table.points if point.curves is not None]
    scaled = [(point, curve) for point, curve in known if curve is not None]
    short = tuple(point.name for point, curve in known if curve is None)
    if len(scaled) < _LEAST_RUNS:
        return None
    curves = np.stack([curve for _, curve in scaled])
    median = np.median(curves, axis=0)
    deviation = 1.4826 * np.median(np.abs(curves - median), axis=0)
    band = np.maximum(_BEYOND * deviation, _LEAST_LEAVE * median)
    names = tuple(point.name for point, _ in scaled)
    leaving = {point.name: far for point, curve in scaled if (far := _leaves(curve, median, band))}
    return Health(_SHARES, names, curves, median, band, leaving, short)


def _scaled(curves: Curves) -> Array | None:
    """Return the train loss about each share of the steps over that at the end (S,); None where records are too few."""
    all_of_it = curves.train_at(lambda steps: steps > 0)
    if len(all_of_it) < _LEAST_RECORDS or not all_of_it.finite:
        return None
    *near, ends = (curves.train_at(choice) for choice in windows(curves))
    if min(len(losses) for losses in (*near, ends)) < 2:
        return None
    end = ends.mean
    return np.array([losses.mean for losses in near]) / end if end > 0 else None


def windows(curves: Curves) -> list[Choice]:
    """Return the intervals of steps about the shares that are compared, and last that at the end of a run."""
    most = max(curves.steps, float(curves.train_steps[-1]))

    def about(share: float) -> Choice:
        return lambda steps: np.abs(steps / most - share) <= _WINDOW

    return [*map(about, _SHARES), lambda steps: steps / most > 1 - _WINDOW]


def _leaves(curve: Array, median: Array, band: Array) -> float:
    """Return by how much a curve leaves the band at its worst, as a share of the median; 0 where it does not."""
    excess = np.abs(curve - median) - band
    worst = int(np.argmax(excess))
    return float(curve[worst] / median[worst] - 1) if excess[worst] > 0 else 0.0
