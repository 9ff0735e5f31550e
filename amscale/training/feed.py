"""The batches of one rank; for a GPU each is made in a thread while the step before it trains."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from amscale.data import Batches


@dataclass(frozen=True)
class RankBatch:
    """One rank's rows of a global batch."""

    inputs: tuple[torch.Tensor, ...]
    """Tokens (B, T) of each forward pass, int64, on the CPU; page-locked where they go to a GPU."""
    targets: tuple[torch.Tensor, ...]
    """Targets (B, T) of each forward pass; -100 where a token does not count."""
    counted: int
    """Counted targets of the whole batch, over all ranks."""

    def moved(self, micro: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of one forward pass on a device, where the copy may still be under way."""
        inputs_BT, targets_BT = self.inputs[micro], self.targets[micro]
        return inputs_BT.to(device, non_blocking=True), targets_BT.to(device, non_blocking=True)


class Feed:
    """The rank's rows of the batches, in the order of steps.

    Rank r of w has rows [(m·w + r)·b, (m·w + r + 1)·b) in forward pass m of b sequences. Each rank knows how many
    targets the whole batch has: the sum of losses over that number is the exact token mean, however the batch is cut.

    Args:
        batches: global batches by step.
        rank: r.
        world: w.
        micro_batch: b, sequences of a forward pass.
        accumulation: forward passes of a step.
        pinned: whether to make the tensors page-locked, from which a GPU copies without the processor.
    """

    def __init__(
        self, batches: Batches, rank: int, world: int, micro_batch: int, accumulation: int, pinned: bool
    ) -> None:
        self._batches = batches
        starts_M = (np.arange(accumulation) * world + rank) * micro_batch
        self._rows_R = (starts_M[:, None] + np.arange(micro_batch)).ravel()
        self._micro_batch, self._pinned = micro_batch, pinned

    def make(self, step: int) -> RankBatch:
        """Return the rank's rows of the batch of a step, which is counted from 1."""
        inputs_RT, targets_RT, counted = self._batches.part(step - 1, self._rows_R)
        tensors = [torch.from_numpy(array) for array in (inputs_RT, targets_RT)]
        if self._pinned:
            tensors = [tensor.pin_memory() for tensor in tensors]
        inputs, targets = (tensor.split(self._micro_batch) for tensor in tensors)
        return RankBatch(inputs, targets, counted)

    @contextmanager
    def ahead(self, first: int, last: int, in_thread: bool) -> Iterator[Iterator[RankBatch]]:
        """Give the batches of steps `first` to `last`, in a thread each made while the one before is in use.

        Where a CPU trains, a thread would take its time from the cores that do, and make them wait for the
        interpreter's lock.
        """
        if not in_thread:
            yield (self.make(step) for step in range(first, last + 1))
            return
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:

            def batches() -> Iterator[RankBatch]:
                coming = thread.submit(self.make, first)
                for step in range(first, last + 1):
                    batch = coming.result()
                    if step < last:
                        coming = thread.submit(self.make, step + 1)
                    yield batch

            yield batches()
