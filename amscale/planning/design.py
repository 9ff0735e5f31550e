"""What a grid cannot tell, before anything is spent, and a grid of the same cost that tells more.

The expected interval of k is simulated: losses of the coupled law with noise are drawn on the grid and refitted. The
law is nominal, since nothing has been run: what it says of one grid beside another is worth more than its numbers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from amscale.scaling.bootstrap import percentile_interval
from amscale.scaling.design import follows
from amscale.scaling.laws.coupled import Coupled
from amscale.scaling.laws.law import SQUARED_LOG, Rows, minimise
from amscale.scaling.points import Array
from amscale.settings import format_size

if TYPE_CHECKING:
    from amscale.planning.trial_plan import TrialPlan

_NOISE = 0.003
"""Deviation of ln loss between seeds: that of small models on text, and about that of published grids."""

_FLOOR, _RISE, _KAPPA, _SLOPE = 1.5, 1.0, 0.5, 0.3
"""The nominal law: its floor and what the middle of the grid is above it, nats per token; κ; κα = κβ, so that k = 1."""

_DRAWS = 200
_MOST_CELLS = 150
_LEAST_GAIN = 0.8
"""A grid is proposed where its interval of k is narrower than this share of that of the grid asked for."""

_DECADE = 10.0
_SETTINGS = ("train.learning_rate", "train.batch_tokens")


@dataclass(frozen=True)
class Proposal:
    """A grid of at most the cost of the one planned, and the 95 % intervals of k that both would give where k is 1.

    Attributes:
        N, D: the values of its axes.
        flops: of all its runs; `flops_planned` those of the grid planned.
        interval: expected by it; `interval_planned` by the grid planned, None where that determines no k.
        runs: runs of a cell, as in the grid planned.
    """

    N: tuple[float, ...]
    D: tuple[float, ...]
    flops: float
    flops_planned: float
    interval: tuple[float, float]
    interval_planned: tuple[float, float] | None
    runs: int

    def describe(self) -> str:
        """Return the proposal in a sentence."""
        sizes, amounts = (", ".join(map(format_size, axis)) for axis in (self.N, self.D))
        now = "no interval" if self.interval_planned is None else "{:.2f} to {:.2f}".format(*self.interval_planned)
        return (
            f"More of k for no more cost ({self.flops:.2g} of {self.flops_planned:.2g} FLOPs): N {sizes} by D "
            f"{amounts}. "
            f"Where k is 1, its 95 % interval would be {self.interval[0]:.2f} to {self.interval[1]:.2f}; with the grid "
            f"above {now} (simulated with the coupled law, noise {_NOISE:.1%})."
        )


@dataclass(frozen=True)
class _Grid:
    """The runs of a plan as columns (R,), and the runs of a cell."""

    N: Array
    D: Array
    flops: Array
    runs: int
    batch: float
    """Tokens of the largest batch: no smaller D is proposed."""


class DesignCheck:
    """What the trials of a plan cannot tell, and a better grid."""

    def __init__(self, trials: "Sequence[TrialPlan]") -> None:
        self._trials = trials
        columns = [[float(value) for value in (trial.N, trial.D, trial.flops)] for trial in trials]
        N, D, flops = np.array(columns).reshape(-1, 3).T
        seeds = {trial.cell.seed for trial in trials}
        cells = len(set(zip(N.tolist(), D.tolist(), strict=True)))
        runs = max(1, round(len(trials) / max(cells, 1)))
        self._grid = _Grid(N, D, flops, runs, max(float(trial.cell.train.batch_tokens) for trial in trials))
        self._seeds = len(seeds)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What the grid cannot tell, a sentence each; none for a single cell, which is no grid."""
        if len(set(zip(self._grid.N.tolist(), self._grid.D.tolist(), strict=True))) < 2:
            return ()
        return tuple(self._warnings())

    def _warnings(self) -> Iterator[str]:
        grid = self._grid
        sizes, amounts = len(np.unique(grid.N)), len(np.unique(grid.D))
        few = [f"{count} {name}" for name, count in (("N", sizes), ("D", amounts)) if count < 3]
        if few:
            yield f"{' and '.join(few)}: an exponent beside a floor needs at least three of each, so no k of a law."
        if sizes > 1 and amounts > 1 and (reason := follows(grid.N, grid.D)):
            yield f"{reason}: k would be a fact of the design."
        yield from self._overfitting()
        if self._seeds == 1:
            yield (
                "One seed: the noise of runs is then what a law leaves over, and whether a law describes the points is "
                "not tested against it."
            )
        large = [trial for trial in self._trials if trial.cell.train.batch_tokens > trial.D]
        if large:
            least = min(large, key=lambda trial: trial.D)
            yield (
                f"{len(large)} trials have a batch ({format_size(least.cell.train.batch_tokens)} tokens) larger than "
                f"their data (D {format_size(least.D)}): each step sees it more than once, and their loss is as much "
                "that of the batch as of D."
            )
        yield from self._one_setting_for_all()

    def _overfitting(self) -> Iterator[str]:
        """Say where no D can be on the small side of D*: nothing over-fits that sees its data about once."""
        seen = [trial.step_plan.steps * trial.cell.train.batch_tokens / trial.D for trial in self._trials]
        if max(seen) <= 1.5:
            yield "No trial repeats its data, so none over-fits: D* has no D below it, and nothing is said of k there."
        elif min(seen) > 1.5 and len(np.unique(self._grid.D)) > 1 and max(seen) / min(seen) < 1.5:
            yield (
                f"Every trial sees its data about {np.mean(seen):.0f} times: what few data do and what many passes do "
                "are one here; with train.steps they are two."
            )

    def _one_setting_for_all(self) -> Iterator[str]:
        span = float(self._grid.N.max() / self._grid.N.min())
        if span < _DECADE:
            return
        fixed = [key for key in _SETTINGS if len({trial.setting(key) for trial in self._trials}) == 1]
        if fixed:
            names = " and ".join(f"one {key.rpartition('.')[2].replace('_', ' ')}" for key in fixed)
            names = names.replace("batch tokens", "batch").capitalize()
            yield (
                f"{names} for N over a factor of {span:.3g}: k will be that of these settings. On one public grid it "
                "was 0.73 with every cell tuned, 0.60 at one learning rate and 0.98 at one batch; on another 1.4 and, "
                "at one batch, 2.1 to 3.6."
            )

    @cached_property
    def proposal(self) -> Proposal | None:
        """A grid of at most the same cost whose interval of k is narrower by a fifth or more; None where none is."""
        grid = self._grid
        cells = len(set(zip(grid.N.tolist(), grid.D.tolist(), strict=True)))
        if not 6 <= cells <= _MOST_CELLS or grid.N.max() == grid.N.min() or grid.D.max() == grid.D.min():
            return None
        centre = float(np.log(grid.N).mean()), float(np.log(grid.D).mean())
        now = _width(grid.N, grid.D, centre)
        budget = float(grid.flops.sum())
        best: tuple[float, Array, Array] | None = None
        for N, D in _candidates(grid, cells):
            if self._cost(N, D) > budget:
                continue
            sizes, amounts = (axis.ravel() for axis in np.meshgrid(N, D))
            width = _width(np.repeat(sizes, grid.runs), np.repeat(amounts, grid.runs), centre)
            if best is None or width < best[0]:
                best = width, N, D
        if best is None or not best[0] < _LEAST_GAIN * now:
            return None
        _, N, D = best
        sizes, amounts = (axis.ravel() for axis in np.meshgrid(N, D))
        then = _simulated(np.repeat(sizes, grid.runs), np.repeat(amounts, grid.runs), centre)
        planned = _simulated(grid.N, grid.D, centre) if math.isfinite(now) else None
        if then is None or (planned is not None and then[1] - then[0] > _LEAST_GAIN * (planned[1] - planned[0])):
            return None
        cost = self._cost(N, D)
        return Proposal(tuple(N.tolist()), tuple(D.tolist()), cost, budget, then, planned, grid.runs)

    def _cost(self, N: Array, D: Array) -> float:
        """Return the FLOPs of all runs of a product of N and D, by least squares of ln C on ln N and ln D."""
        columns = np.stack([np.ones_like(self._grid.N), np.log(self._grid.N), np.log(self._grid.D)], axis=1)
        level, by_N, by_D = np.linalg.lstsq(columns, np.log(self._grid.flops), rcond=None)[0]
        return self._grid.runs * float(np.exp(level) * np.sum(N**by_N) * np.sum(D**by_D))


def _candidates(grid: _Grid, cells: int) -> Iterator[tuple[Array, Array]]:
    """Yield products of at most as many cells, up to four times beyond the sizes planned; no D above the largest."""
    for sizes in range(3, min(cells // 3, 12) + 1):
        amounts = min(cells // sizes, 12)
        if amounts < 3:
            continue
        for low in (0.25, 0.5, 1.0):
            for high in (0.25, 0.5, 1.0, 2.0):
                for few in (1 / 16, 1 / 4, 1.0):
                    least = max(few * grid.D.min(), min(2 * grid.batch, grid.D.min()))
                    N = np.geomspace(low * grid.N.min(), high * grid.N.max(), sizes)
                    D = np.geomspace(least, grid.D.max(), amounts)
                    if N[-1] > 3 * N[0] and D[-1] > 3 * D[0]:
                        yield _rounded(N), _rounded(D)


def _rounded(values: Array) -> Array:
    return np.array([float(f"{value:.2g}") for value in values])


def _law(N: Array, D: Array, centre: tuple[float, float]) -> tuple[Rows, Array]:
    """Return rows with the losses of the nominal law, and the law's own parameters, k being 1."""
    slope = _SLOPE / _KAPPA
    level = math.log(_RISE) / _KAPPA - math.log(2)
    A, B = (math.exp(level + slope * middle) for middle in centre)
    natural = np.array([A, B, _FLOOR, slope, slope, _KAPPA])
    rows = Rows(N, D, np.ones(len(N)), None, 6 * N * D)
    return Rows(N, D, Coupled().loss(natural, rows), None, rows.flops), natural


def _width(N: Array, D: Array, centre: tuple[float, float]) -> float:
    """Return the standard error of ln k by the nominal law's derivatives; infinite where these points leave k open."""
    rows, natural = _law(N, D, centre)
    problem = Coupled().problem(rows)
    _, jacobian = problem.predict(_theta(N, D, natural)[None])
    information = jacobian[0].T @ jacobian[0]
    if np.linalg.cond(information) > 1e13:
        return math.inf
    gradient = np.zeros(len(information))
    gradient[3], gradient[1] = 1 / _SLOPE, -1 / _SLOPE
    return _NOISE * math.sqrt(float(gradient @ np.linalg.solve(information, gradient)))


def _theta(N: Array, D: Array, natural: Array) -> Array:
    """Return the search's parameters of the coupled law about the means of rows, from the law's own."""
    A, B, E, alpha, beta, kappa = natural
    a = kappa * (np.log(A) - alpha * np.log(N).mean())
    b = kappa * (np.log(B) - beta * np.log(D).mean())
    return np.array([a, kappa * alpha, b, kappa * beta, np.log(E), np.log(kappa)])


def _simulated(N: Array, D: Array, centre: tuple[float, float]) -> tuple[float, float] | None:
    """Return the 2.5 and 97.5 % points of k over noisy losses of the nominal law; None where too few refits end."""
    rows, natural = _law(N, D, centre)
    problem = Coupled().problem(rows)
    noise = np.random.default_rng(0).normal(scale=_NOISE, size=(_DRAWS, len(N)))
    start = np.repeat(_theta(N, D, natural)[None], _DRAWS, axis=0)
    target, weights = rows.loss * np.exp(noise), np.ones(len(N))
    theta, _ = minimise(
        problem.predict, SQUARED_LOG, start, target, weights, problem.low, problem.high, iterations=60, tolerance=1e-5
    )
    k = theta[:, 3] / theta[:, 1]
    return percentile_interval(k) if np.isfinite(k).mean() > 0.9 else None


def design_lines(check: DesignCheck) -> list[str]:
    """Return what a plan prints of it."""
    lines = [f"The grid cannot tell: {text}" for text in check.warnings]
    if check.proposal is not None:
        lines.append(check.proposal.describe())
    return lines
