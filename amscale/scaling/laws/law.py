"""What a law of the loss must offer, and the rows that it is held against."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from amscale.scaling.bootstrap import cells_of
from amscale.scaling.laws.search import Predict
from amscale.scaling.points import Array, Points


@dataclass(frozen=True)
class Rows:
    """Columns of equal length: N parameters, D unique tokens, loss in nats per token, and what else is known.

    `tokens` counts the tokens seen until the loss was measured, None where unknown; `flops` is the training compute C.
    """

    N: Array
    D: Array
    loss: Array
    tokens: Array | None
    flops: Array

    def __len__(self) -> int:
        return len(self.loss)

    def take(self, chosen: NDArray[Any]) -> "Rows":
        """The chosen rows, by index or mask."""
        tokens = None if self.tokens is None else self.tokens[chosen]
        return Rows(self.N[chosen], self.D[chosen], self.loss[chosen], tokens, self.flops[chosen])


def rows_of(table: Points) -> Rows:
    """The points of a table; C is 6 N times the tokens seen (or D) where the table does not give it."""
    return Rows(table.N, table.D, table.loss, table.tokens, table.flops)


@dataclass(frozen=True)
class Problem:
    """One law on one set of rows, in the internal parameters theta (S, P) that the search moves.

    `starts` (S, P), made by `begin` when they are asked for, since on many rows they take the most memory; `low`,
    `high` (P,), `names` of theta; `natural` turns theta into the law's parameters, (S, P).
    """

    predict: Predict
    begin: Callable[[], Array]
    low: Array
    high: Array
    names: tuple[str, ...]
    natural: Callable[[Array], Array]

    @cached_property
    def starts(self) -> Array:
        """Where a search begins, (S, P)."""
        return self.begin()


class Law(Protocol):
    """A law of the loss. `parameters` are plain names; natural parameters come as (..., P), last axis in that order."""

    @property
    def name(self) -> str:
        """Name in every table."""

    @property
    def formula(self) -> str:
        """The law as text."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the natural parameters."""

    @property
    def optimum(self) -> str:
        """What the exponent of N ∝ D^k means under this law; empty where the law implies none."""

    def unsupported(self, rows: Rows) -> str:
        """Why the rows cannot hold this law; empty where they can."""

    def problem(self, rows: Rows) -> Problem:
        """The search for this law's parameters."""

    def loss(self, natural: Array, rows: Rows) -> Array:
        """Predicted loss (R,) for natural parameters (P,); `rows.loss` is not looked at."""

    def exponent(self, natural: Array) -> Array | None:
        """k of N ∝ D^k, or None."""

    def floor(self, natural: Array) -> Array | None:
        """The least loss that the law allows, or None where it has no floor of its own."""


def too_few(rows: Rows, parameters: int, sizes: int = 0, amounts: int = 0) -> str:
    """The common reasons of refusal: fewer cells than parameters + 3, or too few different N or D."""
    cells = int(cells_of(rows.N, rows.D, rows.flops).max(initial=-1)) + 1
    if cells < parameters + 3:
        return f"{cells} cells for {parameters} parameters; at least {parameters + 3} are needed"
    N, D = len(np.unique(rows.N)), len(np.unique(rows.D))
    if sizes and sizes > N:
        return f"{N} different N; an exponent in N with a floor needs at least {sizes}"
    if amounts and amounts > D:
        return f"{D} different D; an exponent in D with a floor needs at least {amounts}"
    return ""


def log_sum(terms: list[Array]) -> tuple[Array, list[Array]]:
    """ln of the sum of exponentials of `terms` and the share of each, all (S, R)."""
    top = terms[0]
    for term in terms[1:]:
        top = np.maximum(top, term)
    parts = [np.exp(term - top) for term in terms]
    total = sum(parts[1:], parts[0])
    return top + np.log(total), [part / total for part in parts]


def levels(columns: Array, target: Array, least: float) -> Array:
    """ln of the coefficients of `columns` (S, R, K) that fit `target`, (R,) or (S, R), by least squares, kept positive.

    Coefficients below `least` are lifted to it.
    """
    wanted = np.broadcast_to(target, columns.shape[:2])[..., None]
    solution = np.matmul(np.linalg.pinv(columns), wanted)[..., 0]
    return np.log(np.maximum(solution, least))
