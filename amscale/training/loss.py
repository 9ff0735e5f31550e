"""Cross-entropy of next tokens in nats, what training may add to it, and its mean over fixed sequences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.nn import functional

from amscale.data import Sequences
from amscale.planning.memory import LARGE_LOGITS
from amscale.probes.capture import uncompiled


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


_EVALUATED_TOKENS = 4096
_EVALUATED_LOGITS = 2**24
"""What a forward pass without gradients may hold beyond a micro-batch: little beside what training keeps."""


@dataclass(frozen=True)
class Measured:
    """A mean loss over tokens."""

    loss: float
    """Nats per token."""
    standard_error: float
    """Of the loss, by the differences between sequences: as a sample of all text like it."""
    tokens: int


@dataclass(frozen=True)
class Evaluation:
    """The loss of some sequences of the validation or of the training documents.

    Sequences of similar length go through the model together, so that little of a batch is padding.
    """

    sequences: Sequences
    count: int
    """How many of the sequences are measured."""
    micro_batch: int
    """Sequences per forward pass of one rank in training; here as many or more."""
    vocabulary: int = 2**24
    """Logits of a token, which limit what more there can be."""
    spaced: bool = False
    """Whether they are evenly spaced over all, and not the first: where a corpus leaves out repeated texts, the first
    that it has are the likelier ones."""

    def loss(self, accelerator: Accelerator, engine: Any) -> float:
        """Return the mean over the tokens of −ln p, in nats per token, the same number on every rank.

        Every rank runs the same number of forward passes, as ZeRO-3 needs; past the last sequence no target counts.
        """
        total = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        for logits_BTV, targets_BT in self._passes(accelerator, engine):
            total[0] += summed_loss(logits_BTV, targets_BT)
            total[1] += (targets_BT != -100).sum()
        total = accelerator.reduce(total, reduction="sum")
        return float(total[0] / total[1])

    def measure(self, accelerator: Accelerator, engine: Any) -> Measured:
        """Return the mean with its standard error, that of a ratio of sums over sequences; on every rank the same."""
        sums = torch.zeros(5, dtype=torch.float64, device=accelerator.device)
        for logits_BTV, targets_BT in self._passes(accelerator, engine):
            rows = zip(logits_BTV.split(1), targets_BT.split(1), strict=True)
            loss_B = torch.stack([summed_loss(*row) for row in rows]).double()
            count_B = (targets_BT != -100).sum(1).double()
            parts = (loss_B, count_B, loss_B.square(), loss_B * count_B, count_B.square())
            sums += torch.stack([part.sum() for part in parts])
        loss, count, squares, products, squared_counts = accelerator.reduce(sums, reduction="sum").tolist()
        mean = loss / count
        deviations = max(squares - 2 * mean * products + mean**2 * squared_counts, 0.0)
        return Measured(mean, deviations**0.5 / count, int(count))

    def _passes(self, accelerator: Accelerator, engine: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield logits and targets of each forward pass of this rank, in evaluation mode and without gradients."""
        world, rank = accelerator.num_processes, accelerator.process_index
        chosen = np.arange(self.count)
        if self.spaced:
            chosen = chosen * self.sequences.sequences_total // self.count
        lengths = self.sequences.lengths(chosen)
        order = chosen[np.argsort(lengths, kind="stable")]
        tokens = min(_EVALUATED_TOKENS, _EVALUATED_LOGITS // self.vocabulary)
        size = max(self.micro_batch, tokens // int(lengths.max()))
        training = engine.training
        engine.eval()
        try:
            # Other shapes in another mode would be compiled anew, for some passes.
            with torch.no_grad(), uncompiled(engine):
                for start in range(0, self.count, world * size):
                    first = start + rank * size
                    inputs_BT, targets_BT = self._tensors(order[first : first + size], accelerator.device)
                    yield engine(inputs_BT), targets_BT
        finally:
            engine.train(training)

    def _tensors(self, chosen: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = self.sequences.batch(chosen if len(chosen) else np.array([0]))
        inputs_BT, targets_BT = torch.from_numpy(inputs), torch.from_numpy(targets)
        if not len(chosen):
            targets_BT = torch.full_like(targets_BT, -100)
        return inputs_BT.to(device), targets_BT.to(device)
