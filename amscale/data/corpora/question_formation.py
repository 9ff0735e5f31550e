"""Lines of the Question-Formation grammar, generated: a corpus whose entropy is known exactly."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from amscale.data.grammar import LineGrammar, WordClasses
from amscale.data.settings import CorpusSettings, HeldOut, KnownEntropy
from amscale.settings import Size

_BLOCK = 16384
"""Lines drawn from one random stream; the corpus of n lines is the beginning of that of more lines."""


class QuestionFormation(CorpusSettings):
    """Question-Formation (McCoy, Frank & Linzen 2020), one document a line, from its weighted grammar."""

    corpus: Literal["question_formation"] = "question_formation"
    """Which corpus this is."""
    documents: Size = Field(default=101_000, ge=2)
    """Lines to generate, held-out ones included; by default as many as the original work trains on
    and holds out, 100,000 + 1,000, which make 2.08M tokens."""
    generator_seed: int = Field(default=0, ge=0)
    """Seed of the generated lines."""
    validation: HeldOut = 1000
    """Held out for validation: a share of the lines if below 1, else their count. Copies of one line stay on one
    side, so the count can come out a few lines higher."""
    word_classes: WordClasses = "full"
    """Words of each class that the grammar uses: all, the first half, or the first quarter (rounded up)."""
    copied_half: bool = True
    """Whether the output follows the task word. Without it a line has the same entropy in half the tokens."""
    declarative_only: bool = False
    """Whether every line is a `decl` line, of any structure."""

    more: ClassVar[str] = "data.documents"

    @property
    def grammar(self) -> LineGrammar:
        return LineGrammar(self.word_classes, self.copied_half, self.declarative_only)

    def word_types(self) -> list[str]:
        return self.grammar.vocabulary

    def word_tokens(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        grammar = self.grammar
        for block in range(-(-self.documents // _BLOCK)):
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.generator_seed, block])))
            tokens, lengths = grammar.sample(generator, _BLOCK)
            wanted = lengths[: self.documents - block * _BLOCK]
            yield tokens[: wanted.sum()], wanted

    def texts(self) -> Iterator[list[str]]:
        words = np.array(self.grammar.vocabulary, dtype=object)
        for tokens, lengths in self.word_tokens():
            stops = np.cumsum(lengths)
            yield [
                " ".join(words[tokens[start : stop - 1]]) for start, stop in zip(stops - lengths, stops, strict=True)
            ]

    def known_entropy(self) -> KnownEntropy:
        grammar = self.grammar
        return KnownEntropy(grammar.entropy_per_line, grammar.tokens_per_line if self.tokenizer == "word" else None)
