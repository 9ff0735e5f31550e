"""Points, which every fit starts from, in tables that also record what was left out."""

from dataclasses import dataclass, field, replace

import numpy as np

from amscale.errors import InputError
from amscale.scaling.curves import Array, Curves
from amscale.trials.records import ResultParameters, TrialResult

COUNTS: dict[str, tuple[str, ...]] = {
    "non_embedding": ("attention", "feed_forward"),
    "non_embedding_with_norms": ("attention", "feed_forward", "norms_and_rest"),
    "with_head": ("attention", "feed_forward", "output_head"),
    "total": ("total",),
    "active": ("attention", "active_feed_forward"),
}
"""Conventions for N, as sums of the parameter counts that a result keeps. `active` counts only the experts that one
token passes through; a result without experts keeps no `active_feed_forward`, and all of its feed_forward counts."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run: N parameters, D unique tokens, least validation loss (nats per token).

    `flops` is the whole run's; `tokens` those seen until the least validation loss.
    """

    name: str
    N: float
    D: float
    loss: float
    seed: int | None = None
    flops: float | None = None
    tokens: float | None = None
    curves: Curves | None = None
    result: TrialResult | None = None
    """The trial's; None in a table of points."""
    labels: tuple[tuple[str, str], ...] = ()
    """Columns of a table that tell its rows apart in more than N and D, such as a corpus, with the row's value."""
    settings: dict[str, float] = field(default_factory=dict)
    """Learning rate, batch and other settings that are tuned by cell, by name; empty where none are."""


@dataclass
class PointTable:
    """The points of a source, with the convention for N, what was left out and why, and warnings."""

    source: str
    convention: str
    points: list[Point]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    deviations: Array | None = None
    """Resampled ln loss minus ln loss (resamples, points), where the points are tuned cells; see `scaling.tuning`."""
    unit_in_doubt: str = ""
    """Why the losses may be no nats per token; empty where nothing says so."""
    hopeless: list[Point] = field(default_factory=list)
    """Runs that diverged or were stopped early: their settings were tried, though they have no loss."""
    others: list[Point] = field(default_factory=list)
    """Finished runs at settings whose validation loss is greater: no points, but part of what was observed."""

    def with_points(self, points: list[Point], others: list[Point]) -> "PointTable":
        """Return a table of the same source with other points, without warnings, and what it says of its own points."""
        left_out, doubt = list(self.left_out), self.unit_in_doubt
        return PointTable(self.source, self.convention, points, left_out, others=others, unit_in_doubt=doubt)

    @property
    def N(self) -> Array:
        """Parameters, shape (points,)."""
        return np.array([point.N for point in self.points], dtype=float)

    @property
    def D(self) -> Array:
        """Unique tokens, shape (points,)."""
        return np.array([point.D for point in self.points], dtype=float)

    @property
    def loss(self) -> Array:
        """Least validation loss, nats per token, shape (points,)."""
        return np.array([point.loss for point in self.points], dtype=float)

    @property
    def tokens(self) -> Array | None:
        """Tokens seen until the loss was measured, shape (points,); None where any point lacks them."""
        values = [point.tokens for point in self.points]
        return None if not values or None in values else np.array(values, dtype=float)

    @property
    def flops(self) -> Array:
        """Training compute, shape (points,): as given, else 6 N times the tokens seen, else 6 N D."""
        values = [point.flops for point in self.points]
        if None not in values:
            return np.array(values, dtype=float)
        return 6 * self.N * (self.D if self.tokens is None else self.tokens)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was left out and why, one line each."""
        return tuple(f"{name}: {reason}" for name, reason in self.left_out)

    def cells(self) -> dict[tuple[float, float], list[Point]]:
        """Return points by (N, D): those of one cell differ in their seed."""
        cells: dict[tuple[float, float], list[Point]] = {}
        for point in sorted(self.points, key=lambda point: (point.N, point.D)):
            cells.setdefault((point.N, point.D), []).append(point)
        return cells

    def every_run(self) -> "PointTable":
        """Return the table of all finished runs, those at settings of a greater validation loss with the others."""
        names = {point.name for point in self.others}
        left_out = [pair for pair in self.left_out if pair[0] not in names]
        return replace(self, points=[*self.points, *self.others], left_out=left_out, deviations=None, others=[])

    def losses(self) -> dict[tuple[float, float], float]:
        """Return loss by (N, D): the mean over seeds, and the least over lengths of training."""
        runs: dict[tuple[float, float], dict[float, list[float]]] = {}
        for N, D, loss, flops in zip(self.N, self.D, self.loss, self.flops, strict=True):
            runs.setdefault((float(N), float(D)), {}).setdefault(float(f"{flops:.5g}"), []).append(float(loss))
        return {cell: min(float(np.mean(x)) for x in lengths.values()) for cell, lengths in sorted(runs.items())}


def counted(parameters: ResultParameters, count: str) -> float:
    """Return N under the convention `count`, from the parameter counts of a result."""
    counts = [getattr(parameters, part) for part in COUNTS[count]]
    return float(sum(parameters.feed_forward if number is None else number for number in counts))


def check_count(count: str) -> None:
    """Check that `count` is a convention for N.

    Raises:
        InputError: it is not.
    """
    if count not in COUNTS:
        raise InputError(f"count={count!r} is not a convention for N; choose one of {', '.join(COUNTS)}")


def drop_highest(table: PointTable, number: int) -> PointTable:
    """Return the table without its `number` highest losses, which `left_out` lists.

    Raises:
        InputError: `number` is negative, not whole, or leaves nothing.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < max(len(table.points), 1):
        raise InputError(f"drop_highest={number!r} must be a whole number from 0 to {len(table.points) - 1}")
    if not number:
        return table
    order = np.argsort(-table.loss, kind="stable")
    dropped = {int(index) for index in order[:number]}
    reason = f"among the {number} highest losses"
    return replace(
        table,
        points=[point for index, point in enumerate(table.points) if index not in dropped],
        left_out=table.left_out + [(table.points[i].name, reason) for i in sorted(dropped)],
        warnings=list(table.warnings),
    )


def sample(table: PointTable, number: int | None, seed: int = 0) -> PointTable:
    """Draw `number` points at random without replacement; all of them where it is None or exceeds their number.

    Raises:
        InputError: `number` is not a whole number of at least 20.
    """
    if number is None:
        return table
    if isinstance(number, bool) or not isinstance(number, int) or number < 20:
        raise InputError(f"sample={number!r} must be a whole number of rows, at least 20")
    if number >= len(table.points):
        return table
    chosen = np.sort(np.random.default_rng(seed).choice(len(table.points), number, replace=False))
    warning = f"{number} of {len(table.points)} rows drawn at random, as asked"
    points = [table.points[index] for index in chosen]
    return replace(table, points=points, left_out=list(table.left_out), warnings=[*table.warnings, warning])
