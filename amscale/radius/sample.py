"""Random chunks of a corpus, and one vector per chunk and place: the activation that predicts the next token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from amscale.data import Sequences, TokenStore
from amscale.data.corpus import Corpus
from amscale.errors import InputError
from amscale.probes.capture import capture, preserved
from amscale.probes.patterns import UNCOUNTED, to_patterns
from amscale.radius.configuration import SampleSettings
from amscale.radius.subject import Subject

_PASS_BYTES = 2**28
"""Activations and logits of one forward pass, roughly."""


@dataclass(frozen=True)
class Chunks:
    """Random chunks of a corpus in random order, so that the first s of them are a random sample of s."""

    sequences: Sequences
    index_P: np.ndarray
    """Which sequences of the corpus they are."""
    tokens: int
    """Tokens of a chunk, at most."""

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (tokens_BT, counted_BT) of at most `size` chunks at a time."""
        for start in range(0, len(self.index_P), size):
            tokens, targets = self.sequences.batch(self.index_P[start : start + size])
            yield torch.from_numpy(tokens), torch.from_numpy(targets != UNCOUNTED)


def choose_chunks(settings: SampleSettings, data: Corpus, store: TokenStore, context: int | None) -> Chunks:
    """Choose k of the corpus's chunks of T tokens at random, without replacement.

    Args:
        settings: k, T and the seed.
        data: the corpus; its training part is sampled, D of it where that is set.
        store: its tokens.
        context: tokens that the model takes at most.

    Raises:
        InputError: more tokens than the model takes, or more chunks than the corpus has.
    """
    tokens = settings.tokens or data.context or context or store.longest_document
    if context is not None and tokens > context:
        raise InputError(f"sample.tokens={tokens}: the model takes at most {context} tokens; lower it")
    subset = store.training(data.size, data.packing, data.copies)
    # Under `stream` packing the last sequence may be cut short.
    sequences = Sequences(subset, tokens)
    whole = subset.unique_tokens // tokens if data.packing == "stream" else sequences.sequences_total // subset.copies
    if whole < settings.chunks:
        kind = f"chunks of {tokens} tokens" if data.packing == "stream" else "documents"
        raise InputError(
            f"sample.chunks={settings.chunks}: the training part of {store.corpus} has only {whole} {kind}; lower "
            f"sample.chunks{' or sample.tokens' if data.packing == 'stream' else ''}, or raise "
            f"{store.enlarging_setting}"
        )
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([settings.seed])))
    return Chunks(sequences, generator.choice(whole, settings.chunks, replace=False), tokens)


def places(subject: Subject, layers: Sequence[int]) -> dict[str, str]:
    """Return module names by place: `layer_23` after a layer, and `final_norm` where the last layer is among them.

    Raises:
        InputError: a layer that the model does not have.
    """
    count = len(subject.layers)
    wrong = [layer for layer in layers if not -count <= layer < count]
    if wrong:
        raise InputError(f"sample.layers: the model has no layer {wrong[0]}; give 0 to {count - 1}, or −1 to −{count}")
    chosen = sorted({layer % count for layer in layers})
    found = {f"layer_{layer:02d}": subject.layers[layer] for layer in chosen}
    if count - 1 in chosen and subject.final_norm is not None:
        found["final_norm"] = subject.final_norm
    return found


def vectors(subject: Subject, chunks: Chunks, layers: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """Return one vector per chunk at each place, (P, C) float32 on the CPU: the activation at its last input token.

    Raises:
        InputError: tokens that the model does not know, a place whose output is not a residual stream, or activations
            that are not finite.
    """
    named = places(subject, layers)
    model = subject.model.to(device)
    found: dict[str, Tensor] = {}
    size = _pass_size(subject, chunks.tokens)
    done = 0
    with preserved(model):
        for tokens_BT, counted_BT in chunks.batches(size):
            if int(tokens_BT.max()) >= subject.vocabulary:
                raise InputError(
                    f"data.tokenizer: token {int(tokens_BT.max())} is beyond the {subject.vocabulary} tokens that the "
                    "model knows; give the tokenizer that the model was trained with"
                )
            reduce = partial(to_patterns, counted_BT=counted_BT.to(device), pattern="last_token", context=chunks.tokens)
            with capture(model, list(named.values()), reduce) as records:
                subject.forward(tokens_BT.to(device))
            for place, module in named.items():
                if len(records[module]) != 1:
                    raise InputError(f"{subject.name}: {module} ran {len(records[module])} times in one forward pass")
                vectors_BC = records[module][0]
                if place not in found:
                    found[place] = torch.empty(len(chunks.index_P), vectors_BC.shape[1])
                found[place][done : done + len(tokens_BT)] = vectors_BC.cpu()
            done += len(tokens_BT)
    for place, vectors_PC in found.items():
        bad_P = ~vectors_PC.isfinite().all(1)
        if bool(bad_P.any()):
            first = int(chunks.index_P[int(bad_P.nonzero()[0])])
            raise InputError(
                f"{subject.name}: {int(bad_P.sum())} of {len(bad_P)} chunks have activations of {named[place]} "
                f"that are not finite, chunk {first} of the corpus for one; the weights are broken or overflow"
            )
    return found


def _pass_size(subject: Subject, tokens: int) -> int:
    """Return how many chunks one forward pass takes."""
    widest = max(parameter.shape[-1] for parameter in subject.model.parameters())
    return max(1, _PASS_BYTES // (4 * tokens * (subject.logits + 16 * widest)))
