"""Cross-entropy of next tokens in nats, what training may add to it, and its mean over fixed sequences."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional

from amscale.data import Sequences
from amscale.planning.memory import LARGE_LOGITS


def token_losses(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Return −ln p(target) of every counted target in float32, shape (number of targets that are not −100,)."""
    counted_BT = targets_BT != -100
    return functional.cross_entropy(logits_BTV[counted_BT].float(), targets_BT[counted_BT], reduction="none")


_PIECE = 2**21
"""Logits of a piece: 8 MB."""


class _SummedInPieces(torch.autograd.Function):
    """The summed cross-entropy of logits_NV, row by row in pieces.

    PyTorch's own keeps the log-probabilities beside the logits until the gradient, a third array of their size, is
    made. This keeps Σ exp of each row alone; the results differ by rounding.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
        counted_N = targets_N != -100
        chosen_N = torch.where(counted_N, targets_N, 0)
        rows = max(1, _PIECE // logits_NV.shape[1])
        log_Z_N = torch.cat([piece.logsumexp(-1) for piece in logits_NV.split(rows)])
        ctx.save_for_backward(logits_NV, chosen_N, counted_N, log_Z_N)
        ctx.rows = rows
        losses_N = log_Z_N - logits_NV.gather(1, chosen_N[:, None])[:, 0]
        return torch.where(counted_N, losses_N, 0.0).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits_NV, chosen_N, counted_N, log_Z_N = ctx.saved_tensors
        gradient_NV = torch.empty_like(logits_NV)
        weight_N = counted_N * gradients[0]
        pieces = zip(*(x.split(ctx.rows) for x in (gradient_NV, logits_NV, chosen_N, log_Z_N, weight_N)), strict=True)
        for gradient_PV, logits_PV, chosen_P, log_Z_P, weight_P in pieces:
            torch.sub(logits_PV, log_Z_P[:, None], out=gradient_PV).exp_()
            gradient_PV.scatter_add_(1, chosen_P[:, None], torch.full_like(log_Z_P, -1.0)[:, None])
            gradient_PV.mul_(weight_P[:, None])
        return gradient_NV, None


def summed_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Return the sum over the counted targets of −ln p(target): a float32 scalar in nats, 0 without counted targets.

    From LARGE_LOGITS on it is taken in pieces, so that a large vocabulary is held twice and not three times.
    """
    logits_NV, targets_N = logits_BTV.float().flatten(0, 1), targets_BT.flatten()
    if logits_NV.numel() >= LARGE_LOGITS:
        loss: torch.Tensor = _SummedInPieces.apply(logits_NV, targets_N)
        return loss
    return functional.cross_entropy(logits_NV, targets_N, ignore_index=-100, reduction="sum")


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
