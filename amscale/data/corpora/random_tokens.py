"""Sequences of random tokens: separated by construction, with nothing to learn but the sequences themselves."""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from amscale.data.corpus import CorpusSettings, HeldOut, KnownSource
from amscale.settings import Size

_BLOCK = 1 << 20
"""Tokens drawn from one random stream; the corpus of n sequences is the beginning of that of more sequences."""


class RandomTokens(CorpusSettings):
    """Every token of every sequence drawn alike from V symbols: exactly ln V nats per token, whatever the model knows.

    A document is one sequence of exactly `sequence_length` tokens. No end token is stored, since a model would learn
    its place and the mean would fall below ln V; the end token's id, V, only marks the beginning of an input. A
    model's vocabulary is therefore V + 1, and each of its targets is one of V equally likely symbols.
    """

    corpus: Literal["random_tokens"]
    """Which corpus this is."""
    vocabulary: Size = Field(default=32, ge=2)
    """V: symbols that a token is drawn from."""
    sequence_length: Size = Field(default=32, ge=1)
    """Tokens of a sequence."""
    sequences: Size = Field(default=20_000, ge=2)
    """Sequences to generate, held-out ones included."""
    generator_seed: int = Field(default=0, ge=0)
    """Seed of the tokens."""
    validation: HeldOut = 0.05
    """Held out for validation: a share of the sequences if below 1, else their count."""
    tokenizer: Literal["word"] = "word"
    """The symbols are words; there is no other way to cut them."""

    more: ClassVar[str] = "data.sequences"
    ends: ClassVar[bool] = False

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

    def known_source(self) -> KnownSource:
        return KnownSource(self.sequence_length * math.log(self.vocabulary), {self.sequence_length: 1.0})
