"""Cross-entropy of next tokens in nats, what training may add to it, and its mean over fixed sequences."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional

from amscale.data import Sequences


def token_losses(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Return −ln p(target) of every counted target in float32, shape (number of targets that are not −100,)."""
    counted_BT = targets_BT != -100
    return functional.cross_entropy(logits_BTV[counted_BT].float(), targets_BT[counted_BT], reduction="none")


def summed_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Return the sum over the counted targets of −ln p(target): a float32 scalar in nats, 0 without counted targets."""
    return functional.cross_entropy(
        logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=-100, reduction="sum"
    )


def objective(
    logits_BTV: torch.Tensor, targets_BT: torch.Tensor, z_loss: float, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what training minimises and the plain cross-entropy, each summed over the counted targets, in float32.

    The first is the cross-entropy against targets smoothed by `label_smoothing` (Szegedy et al. 2016) plus
    `z_loss`·(log Σ exp logits)² (Chowdhery et al. 2022, PaLM, section 5). With both at 0 it is the second.
    """
    plain = summed_loss(logits_BTV, targets_BT)
    minimised = plain
    if label_smoothing:
        logits_BTV = logits_BTV.float()
        minimised = functional.cross_entropy(
            logits_BTV.flatten(0, 1),
            targets_BT.flatten(),
            ignore_index=-100,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
    if z_loss:
        log_Z_BT = logits_BTV.float().logsumexp(-1)
        minimised = minimised + z_loss * (log_Z_BT.square() * (targets_BT != -100)).sum()
    return minimised, plain


@dataclass(frozen=True)
class Evaluation:
    """The loss of the first sequences of the validation or of the training documents."""

    sequences: Sequences
    count: int
    """How many of the sequences are measured."""
    micro_batch: int
    """Sequences per forward pass of one rank."""

    def loss(self, accelerator: Accelerator, engine: Any) -> float:
        """Return the mean over the tokens of −ln p, in nats per token, the same number on every rank.

        Every rank runs the same number of forward passes, as ZeRO-3 needs; past the last sequence no target counts.
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
