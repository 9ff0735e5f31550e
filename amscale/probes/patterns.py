"""The sequences that probes measure, and the pattern of each: one vector from its activations of one layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from amscale.errors import InputError
from amscale.probes.measurement import Pattern

UNCOUNTED = -100
"""The target of a position that does not count."""


@dataclass(frozen=True)
class ProbeBatch:
    """Sequences on the device on which the model takes its input."""

    tokens_BT: Tensor
    """Token ids, as the model takes them."""
    targets_BT: Tensor
    """The next token of each position, −100 at padding."""

    @property
    def counted_BT(self) -> Tensor:
        """True where a position belongs to the sequence, False at padding."""
        return self.targets_BT != UNCOUNTED

    @classmethod
    def of_batch(cls, tokens_BT: Tensor, targets_BT: Tensor) -> "ProbeBatch":
        """Make a batch from the tokens and targets of a training batch, whose padding has the target −100.

        Raises:
            InputError: the shapes differ, there is no sequence, or a sequence has no counted token.
        """
        if tokens_BT.shape != targets_BT.shape or tokens_BT.ndim != 2:
            raise InputError(
                f"tokens {tuple(tokens_BT.shape)} and targets {tuple(targets_BT.shape)} of a probe set must be "
                "matrices of one shape (sequences, context)"
            )
        counted_BT = targets_BT != UNCOUNTED
        if tokens_BT.shape[0] == 0 or not bool(counted_BT.any(1).all()):
            raise InputError(
                f"{tokens_BT.shape[0]} probe sequences, none or some of them empty; each needs a counted token"
            )
        return cls(tokens_BT, targets_BT)

    def first(self, count: int) -> "ProbeBatch":
        """Return the first `count` sequences, or all where there are fewer."""
        return ProbeBatch(self.tokens_BT[:count], self.targets_BT[:count])

    def split(self, size: int) -> list["ProbeBatch"]:
        """Split the sequences into batches of at most `size`."""
        batches = zip(self.tokens_BT.split(size), self.targets_BT.split(size), strict=True)
        return [ProbeBatch(tokens_BT, targets_BT) for tokens_BT, targets_BT in batches]


def to_patterns(activation_BTC: Tensor, counted_BT: Tensor, pattern: Pattern, context: int) -> Tensor:
    """Return one float32 vector per sequence from the activations of one layer.

    Args:
        activation_BTC: activations, (B, T, C), of any floating type.
        counted_BT: the positions that belong to each sequence.
        pattern: "last_token", the last counted position, (B, C); "mean_token", the mean over the counted positions,
            (B, C); "flattened", the whole sequence with 0 at padding, (B, context·C).
        context: length T to which "flattened" pads with zeros.

    Raises:
        InputError: the activations are not (B, T, C) for the sequences given.
    """
    if activation_BTC.ndim != 3 or activation_BTC.shape[:2] != counted_BT.shape:
        raise InputError(
            f"a probed module returns shape {tuple(activation_BTC.shape)}; a residual stream has shape "
            f"(sequences, context, width) and starts with {tuple(counted_BT.shape)} here: name other modules"
        )
    counted_BT1 = counted_BT[:, :, None]
    if pattern == "last_token":
        positions_T = torch.arange(1, counted_BT.shape[1] + 1, device=counted_BT.device)
        last_B = (counted_BT * positions_T).argmax(1)
        rows_B = torch.arange(last_B.shape[0], device=last_B.device)
        return activation_BTC[rows_B, last_B].float()
    clean_BTC = torch.where(counted_BT1, activation_BTC, 0).float()
    if pattern == "mean_token":
        return clean_BTC.sum(1) / counted_BT1.sum(1)
    if pattern == "flattened":
        padding = context - clean_BTC.shape[1]
        return torch.nn.functional.pad(clean_BTC, (0, 0, 0, padding)).flatten(1)
    raise InputError(f"pattern={pattern!r}; allowed are last_token, mean_token, flattened")


@dataclass(frozen=True)
class Retrieval:
    """Queries of one layer at some positions, and the keys among which each looks; float64."""

    query_BHQK: Tensor
    stepped_BHQK: Tensor
    """The queries that the same projections make of the layer's output, in the place of its input."""
    key_BHTK: Tensor
    bias_BHQT: Tensor
    """Added to the scores; minus infinity where a query may not see a key. Its first dimensions may be 1."""
    beta: float
    """Factor of the scores."""
