"""Marin's recipes for iso-FLOP sweeps (2025), and that of its Delphi suite (2026)."""

import math
from typing import Any, ClassVar

from amscale.policies.policy import Policy, PolicyCell, power_of_two_above

_STEPS = 2**16
_SEQUENCE = 4096
"""Tokens of a sequence of the source, which counts batches in sequences."""
_MOST = 0.01
"""A batch is halved until the learning rate is no larger."""


class Marin(Policy):
    """Learning rate 0.33 √sequences / width; the batch makes about 2^16 steps, as a power of 2 of sequences.

    A sequence has 4096 tokens, and where the tokens seen are so few that a batch would be less than one of the cell's
    own sequences, the batch is one of these. (The source refuses batches below 8 sequences.)
    """

    source = "Marin's recipe marin-2025 (marin.scaling_laws.recipe)"
    counts = "no N, but the width; batch in sequences of 4096 tokens"
    sets: ClassVar[tuple[str, ...]] = (
        "learning_rate",
        "batch_tokens",
        "schedule",
        "warmup",
        "decay",
        "final_learning_rate",
        "betas",
        "epsilon",
        "weight_decay",
        "gradient_clip",
    )

    def batch_tokens(self, cell: PolicyCell) -> float:
        sequences = power_of_two_above(cell.tokens / (_STEPS * _SEQUENCE))
        while sequences > 1 and self._rate(cell, sequences) > _MOST:
            sequences //= 2
        tokens = sequences * _SEQUENCE
        if sequences == 1:
            tokens = min(tokens, power_of_two_above(cell.tokens / _STEPS))
        return float(max(cell.context, tokens))

    def settings(self, cell: PolicyCell) -> dict[str, Any]:
        sequences = cell.batch_tokens / _SEQUENCE
        return {
            "learning_rate": min(_MOST, self._rate(cell, sequences)),
            "schedule": "wsd",
            "warmup": 0.1,
            "decay": 0.2,
            "final_learning_rate": 0.0,
            **self._adam(sequences),
            "gradient_clip": 1.0,
        }

    def _rate(self, cell: PolicyCell, sequences: float) -> float:
        return 0.33 * math.sqrt(sequences) / cell.shape.width

    def _adam(self, sequences: float) -> dict[str, Any]:
        return {"betas": (0.95, max(0.95, 0.98 ** (sequences / 128))), "epsilon": 1e-15, "weight_decay": 0.1}


class MarinDelphi(Marin):
    """Learning rate ∝ √(sequences/8) (1e9/T)^0.3 / width, 5.2e-4 at width 512; batch and schedule as in `marin`.

    The suite trains matrices with AdamH, whose rate means something else; this is the rate of its Adam part. Without
    the factor of the tokens seen its first forecast was off by a factor of 30.
    """

    source = "Marin's Delphi suite (completed_adamh, pull request 3292), the rate of its Adam part"
    counts = "no N, but the width; T tokens seen; batch in sequences of 4096 tokens"
    sets: ClassVar[tuple[str, ...]] = tuple(
        key for key in Marin.sets if key not in ("epsilon", "weight_decay", "gradient_clip")
    )

    def settings(self, cell: PolicyCell) -> dict[str, Any]:
        return {key: value for key, value in super().settings(cell).items() if key in self.sets}

    def _rate(self, cell: PolicyCell, sequences: float) -> float:
        return 5.204192548239702e-4 * 512 / cell.shape.width * math.sqrt(sequences / 8) * (1e9 / cell.tokens) ** 0.3

    def _adam(self, sequences: float) -> dict[str, Any]:
        return {"betas": (0.9, min(0.9999, max(0.9, 0.9999 ** (sequences / 8))))}
