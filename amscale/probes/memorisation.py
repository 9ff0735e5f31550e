"""How much of the training text a network reproduces, from the logits of the shared forward passes.

    memorised bits = Σ over the D training tokens of (entropy of the source − loss) / ln 2      Morris et al. 2025

where the entropy of the source is known. The loss is that of the first training sequences, without dropout, taken for
all D tokens. Below 0: the network has not reached what the source alone allows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amscale.probes.interface import Activations, Probe, ProbeContext, ScalarChart
from amscale.probes.measurement import Measurement
from amscale.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

    from amscale.probes.patterns import ProbeBatch


class MemorisationSettings(Settings):
    """What is to be continued; the defaults are those of the section `probes`."""

    prefix: int
    """Tokens of the prefix, the beginning mark not counted."""
    continuation: int
    """Tokens that are to be reproduced."""


@dataclass(frozen=True)
class Recall:
    """What a model predicts of some sequences.

    A continuation is reproduced greedily from its prefix if and only if the likeliest token is the true one at each of
    its places while the true tokens are fed: up to the first error both are one computation. So no text is generated.
    """

    loss: float = 0.0
    """Cross-entropy summed over the tokens, in nats."""
    tokens: int = 0
    reproduced: int = 0
    """Sequences whose continuation is reproduced exactly."""
    long_enough: int = 0
    """Sequences that have a prefix and a continuation."""

    def __add__(self, other: "Recall") -> "Recall":
        return Recall(
            self.loss + other.loss,
            self.tokens + other.tokens,
            self.reproduced + other.reproduced,
            self.long_enough + other.long_enough,
        )


class Memorisation(Probe):
    """Measure losses without dropout, memorised bits, and the share of continuations reproduced exactly."""

    name = "memorisation"
    wants = ("logits",)
    of_tokens = ("memorisation/bits", "memorisation/bits_per_parameter")
    Settings = MemorisationSettings
    settings: MemorisationSettings
    charts = (
        *(
            ScalarChart("memorisation", f"{part} loss without dropout", (f"^memorisation/{part}_loss$",))
            for part in ("train", "validation")
        ),
        *(
            ScalarChart(
                "memorisation", f"{part} continuations reproduced", (f"^memorisation/exact_continuation_{part}$",)
            )
            for part in ("train", "validation")
        ),
    )

    def reduce_logits(self, batch: "ProbeBatch", logits_BTV: "Tensor") -> Recall:
        """Return loss and exact continuations of one micro-batch."""
        from torch.nn import functional as F

        from amscale.probes.patterns import UNCOUNTED

        targets_BT, prefix, continuation = batch.targets_BT, self.settings.prefix, self.settings.continuation
        summed = F.cross_entropy(
            logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=UNCOUNTED, reduction="sum"
        )
        wanted = slice(prefix, prefix + continuation)
        long_B = batch.counted_BT[:, wanted].sum(1) == continuation
        right_B = (logits_BTV[:, wanted].argmax(-1) == targets_BT[:, wanted]).all(1)
        return Recall(float(summed), int(batch.counted_BT.sum()), int((long_B & right_B).sum()), int(long_B.sum()))

    def measure(self, context: ProbeContext, activations: Activations) -> Measurement:
        """Measure memorisation/.

        The share of validation sequences reproduced exactly is what reproduction owes to the language alone.
        """
        measurement = Measurement()
        if activations.logits_reason:
            measurement.reasons["memorisation"] = activations.logits_reason
            return measurement
        stored, queries = _total(activations.stored_logits), _total(activations.query_logits)
        for part, recall in (("train", stored), ("validation", queries)):
            measurement.add(f"memorisation/{part}_loss", recall.loss / recall.tokens)
            name = f"memorisation/exact_continuation_{part}"
            if recall.long_enough:
                measurement.add(name, recall.reproduced / recall.long_enough)
            else:
                measurement.reasons[name] = (
                    f"no {part} sequence of the probe set has {self.settings.prefix} + {self.settings.continuation} "
                    "tokens; lower probes.prefix or probes.continuation"
                )
        corpus = context.corpus
        if corpus is None or corpus.entropy_per_token is None:
            measurement.reasons["memorisation/bits"] = "the entropy of the corpus's source is not known"
            return measurement
        bits_per_token = (corpus.entropy_per_token - stored.loss / stored.tokens) / math.log(2)
        measurement.add("memorisation/bits", bits_per_token * corpus.tokens)
        measurement.add("memorisation/bits_per_parameter", bits_per_token * corpus.tokens / corpus.parameters)
        return measurement


def _total(recalls: Sequence[Recall]) -> Recall:
    return sum(recalls, Recall())
