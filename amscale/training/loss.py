"""Cross-entropy of next tokens, in nats, and what can be added to it in training."""

import torch
from torch.nn import functional


def token_losses(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """−ln p(target) of every counted target, in float32, shape (number of targets that are not −100,)."""
    counted_BT = targets_BT != -100
    return functional.cross_entropy(logits_BTV[counted_BT].float(), targets_BT[counted_BT], reduction="none")


def summed_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Sum over the counted targets of −ln p(target): a scalar in nats, in float32, 0 where nothing counts."""
    return functional.cross_entropy(
        logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=-100, reduction="sum"
    )


def objective(
    logits_BTV: torch.Tensor, targets_BT: torch.Tensor, z_loss: float, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What training minimises, and the plain cross-entropy, each summed over the counted targets, in float32.

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
