"""Loss on held-out tokens, split over the ranks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from amscale.data import Sequences
from amscale.training.loss import summed_loss


@dataclass(frozen=True)
class HeldOut:
    """The validation sequences that are measured each time, the first of the held-out documents."""

    sequences: Sequences
    count: int
    micro_batch: int

    def loss(self, accelerator: Accelerator, engine: Any) -> float:
        """Mean over the tokens of −ln p, nats per token; every rank returns the same number.

        Every rank runs the same number of forward passes, as ZeRO-3 needs, the last ones with nothing that counts.
        """
        world, rank = accelerator.num_processes, accelerator.process_index
        total = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        training = engine.training
        engine.eval()
        try:
            with torch.no_grad():
                for start in range(0, self.count, world * self.micro_batch):
                    first = start + rank * self.micro_batch
                    chosen = range(first, min(first + self.micro_batch, self.count))
                    inputs_BT, targets_BT = self._tensors(chosen, accelerator.device)
                    total[0] += summed_loss(engine(inputs_BT), targets_BT)
                    total[1] += (targets_BT != -100).sum()
        finally:
            engine.train(training)
        total = accelerator.reduce(total, reduction="sum")
        return float(total[0] / total[1])

    def _tensors(self, chosen: range, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = self.sequences.batch(np.array(chosen if chosen else [0]))
        inputs_BT, targets_BT = torch.from_numpy(inputs), torch.from_numpy(targets)
        if not chosen:
            targets_BT = torch.full_like(targets_BT, -100)
        return inputs_BT.to(device), targets_BT.to(device)
