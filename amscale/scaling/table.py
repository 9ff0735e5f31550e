"""The points that every fit starts from, and the record of what was left out."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amscale.errors import InputError

Array = NDArray[np.float64]

COUNTS: dict[str, tuple[str, ...]] = {
    "non_embedding": ("attention", "feed_forward"),
    "with_head": ("attention", "feed_forward", "output_head"),
    "total": ("total",),
}
"""Conventions for N, as sums of the parameter counts that a result keeps."""


@dataclass(frozen=True)
class Curves:
    """Losses of one run against its step, nats per token; steps ascend and occur once."""

    train_steps: Array
    train_losses: Array
    validation_steps: Array
    validation_losses: Array
    steps: int


@dataclass(frozen=True)
class Point:
    """One run: N parameters, D unique tokens, least validation loss (nats per token)."""

    name: str
    N: float
    D: float
    loss: float
    seed: int | None = None
    flops: float | None = None
    curves: Curves | None = None
    result: dict[str, Any] = field(default_factory=dict)


@dataclass
class Table:
    """All points of a source, with the convention for N, what was left out and what a reader should know."""

    source: str
    convention: str
    points: list[Point]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def N(self) -> Array:
        """Shape (points,)."""
        return np.array([point.N for point in self.points], dtype=float)

    @property
    def D(self) -> Array:
        """Shape (points,)."""
        return np.array([point.D for point in self.points], dtype=float)

    @property
    def loss(self) -> Array:
        """Shape (points,)."""
        return np.array([point.loss for point in self.points], dtype=float)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was left out, one line each."""
        return tuple(f"{name}: {reason}" for name, reason in self.left_out)

    def cells(self) -> dict[tuple[float, float], list[Point]]:
        """Points by (N, D): those of one cell differ in their seed."""
        cells: dict[tuple[float, float], list[Point]] = {}
        for point in sorted(self.points, key=lambda point: (point.N, point.D)):
            cells.setdefault((point.N, point.D), []).append(point)
        return cells


def check_count(count: str) -> None:
    """Raises InputError unless `count` names a convention for N."""
    if count not in COUNTS:
        raise InputError(f"count={count!r} is not a convention for N; choose one of {', '.join(COUNTS)}")


def drop_highest(table: Table, number: int) -> Table:
    """The table without its `number` highest losses, which are named in `left_out`.

    Raises:
        InputError: `number` is negative, not whole, or leaves nothing.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < max(len(table.points), 1):
        raise InputError(f"drop_highest={number!r} must be a whole number from 0 to {len(table.points) - 1}")
    order = np.argsort(-table.loss, kind="stable")
    dropped = {int(index) for index in order[:number]}
    return Table(
        table.source,
        table.convention,
        [point for index, point in enumerate(table.points) if index not in dropped],
        table.left_out + [(table.points[i].name, f"among the {number} highest losses") for i in sorted(dropped)],
        list(table.warnings),
    )
