"""The interface of a policy, and what it knows of a cell."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from amscale.models.shape import Shape


@dataclass(frozen=True)
class PolicyCell:
    """One cell of a grid, before its settings are known.

    Attributes:
        shape: the model, with its parameters by component: `shape.parameters.under("non_embedding")`.
        D: unique tokens.
        context: tokens of a sequence, at most.
    """

    shape: Shape
    D: int
    context: int
    _tokens: Callable[[], float]
    _batch: Callable[[], float]

    @property
    def tokens(self) -> float:
        """Tokens seen: epochs of D, or steps of the batch.

        Raises:
            InputError: steps count batches, and the batch follows from the tokens seen.
        """
        return self._tokens()

    @property
    def batch_tokens(self) -> float:
        """Tokens of a global batch: as a person has set it, or the policy's own."""
        return self._batch()


class Policy(ABC):
    """A published way to choose settings of `train`, registered by a name; made without arguments.

    Attributes:
        source: where it is published.
        counts: what N means in it, and in which unit it has the batch, in words.
        sets: keys of `train` that it sets. What a person sets by hand wins.
    """

    source: ClassVar[str]
    counts: ClassVar[str]
    sets: ClassVar[tuple[str, ...]]

    def batch_tokens(self, cell: PolicyCell) -> float | None:
        """Return the tokens of a global batch, `cell.batch_tokens` not being known; None where the policy sets none."""
        return None

    @abstractmethod
    def settings(self, cell: PolicyCell) -> dict[str, Any]:
        """Return the settings but the batch, by key of `train`; `cell.batch_tokens` is the batch that the cell has."""


def power_of_two_above(number: float) -> int:
    """Return the least power of 2 that is no less than a number."""
    power = 1
    while power < number:
        power *= 2
    return power
