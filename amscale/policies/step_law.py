"""Step Law (Li et al. 2025, arXiv 2503.04715): power laws through 3700 dense and mixture-of-experts models."""

from typing import Any, ClassVar

from amscale.policies.policy import Policy, PolicyCell

_FINAL = 1e-5
"""Learning rate at the end of every run, whatever the peak."""


class StepLaw(Policy):
    """Learning rate 1.79 N^-0.713 D^0.307 and a batch of 0.58 D^0.571 tokens; D are the tokens seen."""

    source = "Step Law, arXiv 2503.04715"
    counts = "N without embeddings and output head; D tokens seen; batch in tokens"
    sets: ClassVar = ("learning_rate", "batch_tokens", "schedule", "final_learning_rate")

    def batch_tokens(self, cell: PolicyCell) -> float:
        return float(0.58 * cell.tokens**0.571)

    def settings(self, cell: PolicyCell) -> dict[str, Any]:
        rate = 1.79 * cell.shape.parameters.under("non_embedding") ** -0.713 * cell.tokens**0.307
        return {"learning_rate": rate, "schedule": "cosine", "final_learning_rate": min(1.0, _FINAL / rate)}
