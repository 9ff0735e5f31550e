"""Sequences of random tokens, in which nothing can be learnt but the sequences themselves."""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from amscale.data.corpus import Corpus, ShareOrCount, SourceStatistics
from amscale.settings import Size

_BLOCK = 1 << 20
"""Tokens drawn from one random stream; the corpus of n sequences is the beginning of that of more sequences."""


class RandomTokens(Corpus):
    """Tokens drawn independently and uniformly from V symbols: exactly ln V nats per token of a new sequence.

    A document is one sequence of exactly `sequence_length` tokens. No end token is stored, since a model would learn
    its position and the mean would fall below ln V; the id of the end token, V, only marks the beginning of an input.
    The vocabulary of a model is therefore V + 1, and each of its targets is one of V equally likely symbols. The
    tokenizer is always `word`.
    """

    corpus: Literal["random_tokens"] = "random_tokens"
    vocabulary: Size = Field(default=32, ge=2)
    """V: number of symbols."""
    sequence_length: Size = Field(default=32, ge=1)
    """Tokens of a sequence."""
    sequences: Size = Field(default=20_000, ge=2)
    """Sequences to generate, held-out ones included."""
    generator_seed: int = Field(default=0, ge=0)
    """Seed of the tokens."""
    validation: ShareOrCount = 0.05
    tokenizer: Literal["word"] = "word"
    """The symbols are words; no other tokenizer is allowed."""

    enlarging_setting: ClassVar[str] = "data.sequences"

    def word_types(self) -> list[str]:
        return [str(symbol) for symbol in range(self.vocabulary)]

    def word_tokens(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rows = max(1, _BLOCK // self.sequence_length)
        for block in range(-(-self.sequences // rows)):
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.generator_seed, block])))
            wanted = min(rows, self.sequences - block * rows)
            tokens = generator.integers(0, self.vocabulary, size=(rows, self.sequence_length))[:wanted]
            yield tokens.ravel(), np.full(wanted, self.sequence_length, dtype=np.int64)

    def texts(self) -> Iterator[list[str]]:
        for tokens, lengths in self.word_tokens():
            yield [" ".join(map(str, row)) for row in tokens.reshape(len(lengths), -1).tolist()]

    def source_statistics(self) -> SourceStatistics:
        return SourceStatistics(self.sequence_length * math.log(self.vocabulary), {self.sequence_length: 1.0})
