"""Sequences and batches of them, each a pure function of its index: resuming needs nothing but the step."""

from collections.abc import Iterator

import numpy as np

from amscale.data.token_store import Subset
from amscale.errors import InputError

IGNORED = -100
"""Target that is not counted: the one that cross-entropy in PyTorch ignores."""


class Sequences:
    """A subset cut into sequences, in the subset's order; every token of the subset is a target exactly once.

    Under `document` packing a sequence is one document, or a piece of one longer than `context`; under `stream`
    packing it is the next `context` tokens. The input is the target one token earlier; before a document, and so
    before the subset, that is an end token, which doubles as the beginning mark. (Documents that are stored without
    end tokens have the mark before them under `document` packing; under `stream` only the subset has it.)

    A subset with copies repeats all of its sequences: sequence i equals sequence i + n, n their number without copies.
    """

    def __init__(self, subset: Subset, context: int) -> None:
        """Index the sequences.

        Args:
            context: tokens a sequence, at most.

        Raises:
            InputError: the context is below 1.
        """
        if context < 1:
            raise InputError(f"data.context: {context} tokens a sequence; give at least 1")
        self.subset = subset
        self.context = context
        self._pieces: np.ndarray | None = None
        if subset.packing == "document":
            # The first sequence of each document, and the number of all: enough to find a sequence's place.
            self._pieces = np.zeros(subset.documents + 1, dtype=np.int64)
            np.cumsum(-(-np.diff(subset.offsets) // context), out=self._pieces[1:])
            self._unique = int(self._pieces[-1])
        else:
            self._unique = -(-subset.unique_tokens // context)

    @property
    def sequences_total(self) -> int:
        """Sequences of one epoch, copies included."""
        return self._unique * self.subset.copies

    @property
    def tokens_per_epoch(self) -> int:
        """Targets counted in one pass: all of the subset's tokens, as often as it has copies."""
        return self.subset.unique_tokens * self.subset.copies

    @property
    def mean_targets_per_sequence(self) -> float:
        """Mean number of counted targets of a sequence."""
        return self.tokens_per_epoch / self.sequences_total

    def _place(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return where sequences start and stop in the subset's tokens, and which begin with the mark [B]."""
        unique_B = np.asarray(indices) % self._unique
        if self._pieces is None:
            starts_B = unique_B * self.context
            return starts_B, np.minimum(starts_B + self.context, self.subset.unique_tokens), starts_B == 0
        document_B = np.searchsorted(self._pieces, unique_B, side="right") - 1
        piece_B = unique_B - self._pieces[document_B]
        starts_B = self.subset.offsets[document_B] + self.context * piece_B
        return starts_B, np.minimum(starts_B + self.context, self.subset.offsets[document_B + 1]), piece_B == 0

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Return the counted targets of the sequences of these indices [B], without reading a token."""
        starts_B, stops_B, _ = self._place(indices)
        return stops_B - starts_B

    def width(self, longest: int) -> int:
        """Return the T of a batch whose longest sequence has so many tokens: a multiple of 8, at most `context`.

        Multiples of 8 are the tile of matrix hardware, and fewer distinct shapes.
        """
        return min(-(-longest // 8) * 8, self.context)

    def batch(self, indices: np.ndarray, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the sequences of these indices [B].

        Args:
            indices: of the sequences.
            width: T; None: that of the longest of these sequences.

        Returns:
            inputs_BT and targets_BT, int64. Shorter sequences are padded on the right with the end token and targets
            of -100.
        """
        starts_B, stops_B, marked_B = self._place(indices)
        lengths_B = stops_B - starts_B
        if width is None:
            width = self.width(int(lengths_B.max()))
        counts_BT = np.arange(width) < lengths_B[:, None]
        position_BT = np.where(counts_BT, starts_B[:, None] + np.arange(width), 0)
        targets_BT = np.where(counts_BT, self.subset.tokens[position_BT].astype(np.int64), IGNORED)
        before_BT = self.subset.tokens[np.maximum(position_BT - 1, 0)].astype(np.int64)
        inputs_BT = np.where(counts_BT, before_BT, self.subset.end_token)
        inputs_BT[marked_B, 0] = self.subset.end_token
        return inputs_BT, targets_BT


def nested_order(count: int, seed: int, growth: float) -> np.ndarray:
    """Return an order [count] whose beginning is the same for every larger count: the first `nested_length` places.

    Places are shuffled within blocks, each `growth` times as long as all before it, so that a block of `count` places
    and one of more have the same sequences but in the last block. Block by block the order is as random as any; a
    sequence moves by about `growth` of its place, on top of the random order of documents in a store.
    """
    order = np.arange(count)
    for first, after in _blocks(count, growth):
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0, first])))
        generator.shuffle(order[first:after])
    return order


def nested_length(count: int, growth: float) -> int:
    """Return how many places of `nested_order(count, …)` are the same for every larger count.

    Under `stream` packing the last sequence of a subset is cut short, so it belongs to none of them.
    """
    return max((first for first, after in _blocks(count, growth)), default=0)


def _blocks(count: int, growth: float) -> Iterator[tuple[int, int]]:
    first = 0
    while first < count:
        after = max(first + 1, int(first * (1 + growth)))
        yield first, min(after, count)
        first = after


class Batches:
    """Training batches without end: each epoch draws all sequences once, in an order of the seed and the epoch."""

    def __init__(self, subset: Subset, context: int, sequences: int, seed: int, nested: float | None = None) -> None:
        """Prepare the sequences and their orders.

        Args:
            context: tokens a sequence, at most.
            sequences: B, sequences in a batch over all processes.
            seed: seed of the order of every epoch.
            nested: growth of the blocks of the first epoch's order, which is then nested; None shuffles all.

        Raises:
            InputError: the context or the batch is below 1.
        """
        if sequences < 1:
            raise InputError(f"a batch of {sequences} sequences; give at least 1")
        self.data = Sequences(subset, context)
        self.sequences = sequences
        self.seed = seed
        self._nested = nested
        self._orders: dict[int, np.ndarray] = {}

    @property
    def sequences_total(self) -> int:
        """Sequences of one epoch, copies included."""
        return self.data.sequences_total

    @property
    def tokens_per_epoch(self) -> int:
        """Targets counted in one epoch, copies included."""
        return self.data.tokens_per_epoch

    @property
    def mean_targets_per_sequence(self) -> float:
        """Mean number of counted targets of a sequence."""
        return self.data.mean_targets_per_sequence

    @property
    def steps_per_epoch(self) -> float:
        """Steps of one epoch, not a whole number in general: a batch may run from one epoch into the next."""
        return self.sequences_total / self.sequences

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs_BT and targets_BT of a step counted from 0, as `Sequences.batch` does."""
        return self.data.batch(self._indices(step))

    def part(self, step: int, rows_R: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Return inputs_RT and targets_RT of some rows of a batch, as wide as the whole batch, and its targets.

        Only the tokens of these rows are read. A row past the batch's end repeats row 0 with targets of -100.

        Args:
            step: counted from 0.
            rows_R: numbers of the rows, from 0.

        Returns:
            inputs_RT, targets_RT, and the number of counted targets of the whole batch.
        """
        indices_B = self._indices(step)
        lengths_B = self.data.lengths(indices_B)
        inside_R = rows_R < len(indices_B)
        chosen_R = indices_B[np.where(inside_R, rows_R, 0)]
        inputs_RT, targets_RT = self.data.batch(chosen_R, self.data.width(int(lengths_B.max())))
        targets_RT[~inside_R] = IGNORED
        return inputs_RT, targets_RT, int(lengths_B.sum())

    def _indices(self, step: int) -> np.ndarray:
        """Return the indices of the sequences of a step's batch [B]."""
        place_B = np.arange(step * self.sequences, (step + 1) * self.sequences)
        epoch_B, within_B = np.divmod(place_B, self.sequences_total)
        epochs = range(epoch_B[0], epoch_B[-1] + 1)
        return np.concatenate([self._order(epoch)[within_B[epoch_B == epoch]] for epoch in epochs])

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            if len(self._orders) >= 2:  # a batch rarely spans more than two epochs; the newest are worth keeping
                del self._orders[min(self._orders)]
            if epoch == 0 and self._nested is not None:
                self._orders[0] = nested_order(self.sequences_total, self.seed, self._nested)
                return self._orders[0]
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
            self._orders[epoch] = generator.permutation(self.sequences_total)
        return self._orders[epoch]
