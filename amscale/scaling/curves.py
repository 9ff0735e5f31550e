"""The loss curves of one run, step by step or, as an archive keeps them, summed up over blocks of steps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from amscale.errors import InputError

Array = NDArray[np.float64]
Choice = Callable[[Array], NDArray[np.bool_]]
"""Says of each step whether it is wanted."""

_DRAWN = 50
"""Blocks of equal length that a summed-up curve has at least, for whoever draws it."""


@dataclass(frozen=True)
class TrainLosses:
    """Train losses of some steps, nats per token: of one step each, or means of `counts` steps with `variances`."""

    losses: Array
    counts: Array | None = None
    variances: Array | None = None

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.losses) if self.counts is None else int(self.counts.sum())

    @property
    def finite(self) -> bool:
        """Whether every loss is a finite number."""
        return bool(np.isfinite(self.losses).all())

    @property
    def mean(self) -> float:
        """The mean over the steps."""
        return float(self.losses.mean() if self.counts is None else np.average(self.losses, weights=self.counts))

    def squared_about(self, value: float) -> float:
        """Return the mean over the steps of (loss - value)²."""
        squared = (self.losses - value) ** 2
        if self.counts is None or self.variances is None:
            return float(np.mean(squared))
        return float(np.average(squared + self.variances, weights=self.counts))

    def split(self, number: int) -> list["TrainLosses"]:
        """Return consecutive parts of as many steps each, the first ones longer by one where that cannot be.

        Raises:
            InputError: a block lies in two parts.
        """
        ends = part_ends(len(self), number)
        if self.counts is None:
            return [TrainLosses(part) for part in np.split(self.losses, ends[:-1])]
        known = np.cumsum(self.counts).astype(int)
        if not np.isin(ends, known).all():
            raise _straddled()
        cuts = np.searchsorted(known, ends[:-1]) + 1
        parts = zip(*(np.split(values, cuts) for values in (self.losses, self.counts, self.variances)), strict=True)  # type: ignore[arg-type]
        return [TrainLosses(*part) for part in parts]


@dataclass(frozen=True)
class Curves:
    """Losses of one run against its step, nats per token; steps ascend and occur once.

    In an archive a train loss is the mean of `train_counts` steps up to its own, with `train_variances`.
    """

    train_steps: Array
    train_losses: Array
    validation_steps: Array
    validation_losses: Array
    steps: int
    train_counts: Array | None = None
    train_variances: Array | None = None

    def train_at(self, choice: Choice) -> TrainLosses:
        """Return the train losses of the steps that are wanted, an interval.

        Raises:
            InputError: a block lies in it with some of its steps only.
        """
        wanted = choice(self.train_steps)
        if self.train_counts is None or self.train_variances is None:
            return TrainLosses(self.train_losses[wanted])
        if (choice(self.train_steps - self.train_counts + 1) != wanted).any():
            raise _straddled()
        return TrainLosses(self.train_losses[wanted], self.train_counts[wanted], self.train_variances[wanted])


def part_ends(steps: int, number: int) -> NDArray[np.int_]:
    """Return where the parts end that `number` consecutive parts of `steps` have, counted from 1."""
    sizes = [steps // number + (index < steps % number) for index in range(number)]
    return np.cumsum(sizes)


def sum_up(curves: Curves, choices: Iterable[Choice], parts: Sequence[tuple[Choice, int]] = ()) -> Curves:
    """Return curves whose train losses are means and variances over blocks, of which every choice has whole ones.

    Args:
        curves: step by step.
        choices: intervals of steps.
        parts: intervals with the number of parts that each will be split into.
    """
    steps, losses = curves.train_steps, curves.train_losses
    if not steps.size or curves.train_counts is not None:
        return curves
    ends = np.zeros(len(steps), dtype=bool)
    ends[-1] = True
    drawn = np.ceil(steps * _DRAWN / max(curves.steps, 1))
    ends[:-1] |= drawn[1:] != drawn[:-1]
    for choice in [*choices, *(choice for choice, _ in parts)]:
        wanted = choice(steps)
        ends[:-1] |= wanted[1:] != wanted[:-1]
    for choice, number in parts:
        inside = np.flatnonzero(choice(steps))
        last = part_ends(len(inside), number)
        ends[inside[last[last > 0] - 1]] = True
    blocks = np.split(losses, np.flatnonzero(ends)[:-1] + 1)
    with np.errstate(invalid="ignore"):  # of a run that diverged
        means, variances = np.array([block.mean() for block in blocks]), np.array([block.var() for block in blocks])
    counts = np.array([len(block) for block in blocks], dtype=float)
    return replace(curves, train_steps=steps[ends], train_losses=means, train_counts=counts, train_variances=variances)


def _straddled() -> InputError:
    return InputError(
        "an archive keeps train losses as means over blocks of steps, and no block begins or ends where this window "
        "does: give the window of the archive's configuration, or fit the sweep's own folder"
    )
