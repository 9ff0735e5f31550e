"""Question-Formation: lines generated from the grammar, whose entropy is known exactly, or the original files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from amscale.data.corpus import Corpus, ShareOrCount, SourceStatistics
from amscale.data.grammar import LineGrammar, WordClasses
from amscale.data.readers import blocks, find_files, fingerprint, text_lines
from amscale.errors import InputError
from amscale.settings import Size

_BLOCK = 16384
"""Lines drawn from one random stream; the corpus of n lines is the beginning of that of more lines."""


class QuestionFormation(Corpus):
    """Question-Formation (McCoy, Frank & Linzen 2020), one document a line, from its weighted grammar or from files."""

    corpus: Literal["question_formation"] = "question_formation"
    documents: Size = Field(default=101_000, ge=2)
    """Lines to generate, held-out ones included. The default is what the original work trains on and holds out,
    100,000 + 1,000, which make 2.34M tokens."""
    generator_seed: int = Field(default=0, ge=0)
    """Seed of the generated lines."""
    validation: ShareOrCount = 1000
    word_classes: WordClasses = "full"
    """Words of each class that the grammar uses: all, the first half, or the first quarter (rounded up)."""
    copied_half: bool = True
    """Whether the output follows the task word. Without it a line has the same entropy in half the tokens."""
    declarative_only: bool = False
    """Whether every line is a `decl` line, of any structure."""
    files: str | tuple[str, ...] | None = None
    """Paths or patterns of original files, `question.train` and its like: a line is `source TAB target` and becomes the
    document `source target`. Their entropy is not known. None: lines are generated."""

    enlarging_setting: ClassVar[str] = "data.documents"

    @model_validator(mode="after")
    def _files_or_grammar(self) -> "QuestionFormation":
        for name in ("documents", "generator_seed", "word_classes", "copied_half", "declarative_only"):
            if self.files is not None and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is a setting of generated lines, files gives written ones; leave out one of the two"
                )
        return self

    def content(self) -> dict[str, Any]:
        return {} if self.files is None else {"files": [fingerprint(path) for path in find_files(self.files)]}

    @property
    def grammar(self) -> LineGrammar:
        return LineGrammar(self.word_classes, self.copied_half, self.declarative_only)

    def word_types(self) -> list[str] | None:
        return self.grammar.vocabulary if self.files is None else None

    def word_tokens(self) -> Iterator[tuple[np.ndarray, np.ndarray]] | None:
        return self._sample() if self.files is None else None

    def _sample(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        grammar = self.grammar
        for block in range(-(-self.documents // _BLOCK)):
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.generator_seed, block])))
            tokens, lengths = grammar.sample(generator, _BLOCK)
            wanted = lengths[: self.documents - block * _BLOCK]
            yield tokens[: wanted.sum()], wanted

    def texts(self) -> Iterator[list[str]]:
        if self.files is not None:
            yield from blocks(line for path in find_files(self.files) for line in _pairs(path))
            return
        words = np.array(self.grammar.vocabulary, dtype=object)
        for tokens, lengths in self._sample():
            stops = np.cumsum(lengths)
            yield [
                " ".join(words[tokens[start : stop - 1]]) for start, stop in zip(stops - lengths, stops, strict=True)
            ]

    def source_statistics(self) -> SourceStatistics | None:
        if self.files is not None:
            return None
        grammar = self.grammar
        return SourceStatistics(grammar.entropy_per_line, grammar.lengths if self.tokenizer == "word" else None)


def _pairs(path: Path) -> Iterator[str]:
    for number, line in enumerate(text_lines(path), 1):
        if line.strip():
            source, tab, target = line.strip().partition("\t")
            if not tab or "\t" in target:
                raise InputError(
                    f"data.files: {path}, line {number} is not `source TAB target`; give Question-Formation files, "
                    "or read others with corpus: text"
                )
            yield f"{source} {target}"
