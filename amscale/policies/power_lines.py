"""Power Lines (Bergsma et al. 2025, arXiv 2505.13738) as nanochat has it."""

import math
from typing import Any, ClassVar

from amscale.policies.policy import Policy, PolicyCell

_BATCH = 2**19
_TOKENS = 12 * (12 * 12 * 768**2 + 32768 * 768)
"""Tokens of nanochat's reference run: 12 a parameter of matrices and output head, of 12 layers of width 768."""
_RATE, _DECAY = 1e-3, 0.1


class PowerLines(Policy):
    """Batch ∝ D^0.383, rounded to a power of 2; learning rate ∝ √batch, weight decay ∝ √batch / D; D tokens seen.

    The exponents and the reference of batch and tokens are the source's. Its learning rates are those of another
    optimiser for most matrices, so the rate and the decay at the reference are AdamW's usual 1e-3 and 0.1:
    `learning_rate: policy * 2` moves the rate and keeps the form.
    """

    source = "Power Lines, arXiv 2505.13738, as nanochat's base_train has it"
    counts = "no N; D tokens seen; batch in tokens"
    sets: ClassVar = ("learning_rate", "batch_tokens", "weight_decay")

    def batch_tokens(self, cell: PolicyCell) -> float:
        return float(2 ** round(math.log2(_BATCH * (cell.tokens / _TOKENS) ** 0.383)))

    def settings(self, cell: PolicyCell) -> dict[str, Any]:
        scale = math.sqrt(cell.batch_tokens / _BATCH)
        return {"learning_rate": _RATE * scale, "weight_decay": _DECAY * scale * _TOKENS / cell.tokens}
