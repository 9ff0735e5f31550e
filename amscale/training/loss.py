"""Cross-entropy of next tokens, in nats."""

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
