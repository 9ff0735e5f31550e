"""The model ladder of OLMo-core (Allen AI), after Porian et al. 2024: multiples of 20 tokens a parameter."""

import math
from typing import Any, ClassVar

from amscale.policies.policy import Policy, PolicyCell

_REFERENCE = 108e6
_TOKENS_PER_PARAMETER = 20
_SMALL_BATCH = 524_288


class OlmoLadder(Policy):
    """Learning rate and batch follow N, and the rate also the multiple c = T / 20 N of Chinchilla's tokens.

    The rate is halved for warm-up-stable-decay, and divided by √c above c = 1. The warm-up of N tokens is at most half
    of the run here: the source has no run of fewer than 10 tokens a parameter.
    """

    source = "OLMo-core's model ladder (WSDSChinchillaRunConfigurator), stepped schedule"
    counts = "N without the token embedding, output head and norms included; batch in tokens"
    sets: ClassVar = (
        "learning_rate",
        "batch_tokens",
        "schedule",
        "warmup",
        "decay",
        "final_learning_rate",
        "betas",
        "weight_decay",
    )

    def batch_tokens(self, cell: PolicyCell) -> float:
        return float(2048 * 160 * (self._parameters(cell) / _REFERENCE) ** (2 / 3))

    def settings(self, cell: PolicyCell) -> dict[str, Any]:
        N, tokens, batch = self._parameters(cell), cell.tokens, cell.batch_tokens
        multiple = max(1.0, tokens / (_TOKENS_PER_PARAMETER * N))
        return {
            "learning_rate": 0.0047 * (N / _REFERENCE) ** (-1 / 3) / 2 / math.sqrt(multiple),
            "schedule": "wsd",
            "warmup": float(max(1, round(min(N, tokens / 2) / batch))),
            "decay": 0.1,
            "final_learning_rate": 0.0,
            "betas": (0.9, 0.95 if batch >= _SMALL_BATCH else 0.99),
            "weight_decay": 0.1,
        }

    def _parameters(self, cell: PolicyCell) -> int:
        return cell.shape.parameters.total - cell.shape.parameters.embedding
