"""How much of the training text a network knows by heart, read from the forward passes that the probe makes anyway.

    memorised bits = Σ over the D training tokens of (entropy of the source − loss) / ln 2      Morris et al. 2025

where the entropy of the source is known. The loss is that of the first training sequences, without dropout, taken for
all D tokens. Below 0: the network has not reached what the source alone allows.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from amscale.probes.measurement import Measurement
from amscale.probes.patterns import UNCOUNTED, Sequences


@dataclass(frozen=True)
class Corpus:
    """What memorised bits are counted against."""

    entropy_per_token: float | None
    """Of the source, in nats; None where nobody knows it."""
    tokens: int
    """D, the unique training tokens."""
    parameters: int
    """All parameters of the model, embeddings included."""


@dataclass
class Recall:
    """What a model says to the sequences of a probe set, batch by batch.

    A continuation is reproduced greedily from its prefix if and only if the likeliest token is the true one at each of
    its places while the true tokens are fed: up to the first error both are one computation. So no text is generated.
    """

    prefix: int
    """Tokens of the prefix, the beginning mark not counted."""
    continuation: int
    """Tokens that are to be reproduced."""
    loss: float = 0.0
    tokens: int = 0
    reproduced: int = 0
    long_enough: int = 0
    refused: str = ""

    def add(self, logits_BTV: object, batch: Sequences) -> None:
        """Take in one batch of logits."""
        shape = tuple(batch.tokens_BT.shape)
        if not isinstance(logits_BTV, Tensor) or logits_BTV.ndim != 3 or logits_BTV.shape[:2] != shape:
            self.refused = f"the model does not answer with logits of shape {shape} and the vocabulary"
            return
        targets_BT = batch.targets_BT
        summed = F.cross_entropy(
            logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=UNCOUNTED, reduction="sum"
        )
        self.loss += float(summed)
        self.tokens += int(batch.counted_BT.sum())
        wanted = slice(self.prefix, self.prefix + self.continuation)
        long_B = batch.counted_BT[:, wanted].sum(1) == self.continuation
        right_B = (logits_BTV[:, wanted].argmax(-1) == targets_BT[:, wanted]).all(1)
        self.long_enough += int(long_B.sum())
        self.reproduced += int((long_B & right_B).sum())


def measure_memorisation(measurement: Measurement, stored: Recall, queries: Recall, corpus: Corpus | None) -> None:
    """memorisation/: losses without dropout, memorised bits, and the share of continuations reproduced exactly.

    The share among validation sequences is what reproduction owes to the language alone.
    """
    refused = stored.refused or queries.refused
    if refused:
        measurement.reasons["memorisation"] = refused
        return
    for part, recall in (("train", stored), ("validation", queries)):
        measurement.add(f"memorisation/{part}_loss", recall.loss / recall.tokens)
        name = f"memorisation/exact_continuation_{part}"
        if recall.long_enough:
            measurement.add(name, recall.reproduced / recall.long_enough)
        else:
            measurement.reasons[name] = (
                f"no {part} sequence of the probe set has {recall.prefix} + {recall.continuation} tokens; "
                "lower probes.prefix or probes.continuation"
            )
    if corpus is None or corpus.entropy_per_token is None:
        measurement.reasons["memorisation/bits"] = "the entropy of the corpus's source is not known"
        return
    bits_per_token = (corpus.entropy_per_token - stored.loss / stored.tokens) / math.log(2)
    measurement.add("memorisation/bits", bits_per_token * corpus.tokens)
    measurement.add("memorisation/bits_per_parameter", bits_per_token * corpus.tokens / corpus.parameters)
