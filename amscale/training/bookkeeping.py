"""Meet the other ranks for what is no training: checkpoints, uploads, the result.

Over gloo, whatever the device: NCCL ends a process whose partners are ten minutes late, and one that uploads a
checkpoint may be later than that. The time limit is `launch.files_timeout`.
"""

import os
from datetime import timedelta
from typing import Any

import torch.distributed as dist


class Bookkeeping:
    """The ranks of a trial as they meet outside of the engine. All must make it, and ask, together.

    Args:
        seconds: how long a rank waits for the others before it ends with an error.
    """

    def __init__(self, seconds: float) -> None:
        self._group: Any = None
        self.rank, self.world = 0, 1
        if dist.is_initialized():
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
        if self.world > 1:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    @property
    def is_first_of_machine(self) -> bool:
        """Whether this is the first rank of its machine."""
        return int(os.environ.get("LOCAL_RANK", "0")) == 0

    @property
    def machine_ranks(self) -> range:
        """The ranks of this machine."""
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        first = self.rank - int(os.environ.get("LOCAL_RANK", "0"))
        return range(first, first + here)

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self._group is not None:
            dist.barrier(group=self._group)

    def gather(self, item: Any) -> list[Any]:
        """Return the items of all ranks, in their order."""
        if self._group is None:
            return [item]
        items: list[Any] = [None] * self.world
        dist.all_gather_object(items, item, group=self._group)
        return items
