"""Question-Formation: lines of a weighted grammar, generated, with their exact entropy; or the original files."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from amscale.data.corpus import Corpus, ShareOrCount, SourceStatistics
from amscale.data.file_patterns import find_files
from amscale.data.readers import blocks, fingerprint, text_lines
from amscale.errors import InputError
from amscale.settings import Size

WordClasses = Literal["full", "half", "quarter"]

_ANIMALS = (
    *("newt", "orangutan", "peacock", "quail", "raven", "salamander", "tyrannosaurus"),
    *("unicorn", "vulture", "walrus", "xylophone", "yak", "zebra"),
)
WORDS: dict[str, tuple[str, ...]] = {
    "determiner": ("the", "some", "my", "your", "our", "her"),
    "noun_one": _ANIMALS,
    "noun_many": tuple(animal + ("es" if animal.endswith("s") else "s") for animal in _ANIMALS),
    "intransitive": ("giggle", "smile", "sleep", "swim", "wait", "move", "change", "read", "eat"),
    "transitive": ("entertain", "amuse", "high_five", "applaud", "confuse", "admire", "accept", "remember", "comfort"),
    "auxiliary_one": ("does", "doesn't"),
    "auxiliary_many": ("do", "don't"),
    "preposition": ("around", "near", "with", "upon", "by", "behind", "above", "below"),
    "relative": ("who", "that"),
    ".": (".",),
    "?": ("?",),
    "decl": ("decl",),
    "quest": ("quest",),
}
END = "end of line"

_SUBJECTS = {
    "determiner noun_N": 455,
    "determiner noun_N preposition determiner noun": 238,
    "determiner noun_N relative auxiliary_N intransitive": 78,
    "determiner noun_N relative auxiliary_N transitive determiner noun": 77,
    "determiner noun_N relative determiner agreeing transitive": 152,
}
"""Shapes of a subject of number N, in thousandths of the declarative lines."""
_OBJECTS = {
    "determiner noun_N": 291,
    "determiner noun_N preposition determiner noun": 312,
    "determiner noun_N relative auxiliary_N intransitive": 194,
    "determiner noun_N relative auxiliary_N transitive determiner noun": 102,
    "determiner noun_N relative determiner agreeing transitive": 101,
}
"""Shapes of an object of number N, in thousandths of the transitive sentences."""
_INTRANSITIVE = {"bare": 11, "modified": 229}
"""Sentences with an intransitive main verb, in thousandths of those with a bare and with a modified subject."""


def _rules() -> dict[str, list[tuple[float, str]]]:
    """Return the right-hand sides of every symbol but the word classes, with their weights."""
    rules: dict[str, list[tuple[float, str]]] = {
        "noun": [(1, "noun_one"), (1, "noun_many")],
        "agreeing": [(1, "noun_one auxiliary_one"), (1, "noun_many auxiliary_many")],
        "object": [(w, right.replace("_N", f"_{n}")) for n in ("one", "many") for right, w in _OBJECTS.items()],
    }
    for number in ("one", "many"):
        rules[f"subject_{number}"] = [(w, right.replace("_N", f"_{number}")) for right, w in _SUBJECTS.items()]
        for subject, share in _INTRANSITIVE.items():
            rules[f"predicate_{number}_{subject}"] = [
                (share, f"auxiliary_{number} intransitive"),
                (1000 - share, f"auxiliary_{number} transitive object"),
            ]
    return rules


_RULES = _rules()

Classes = tuple[str, ...]


@cache
def expand(symbol: str) -> dict[Classes, float]:
    """Return every sequence of word classes that a symbol can become, with its probability."""
    if symbol in WORDS:
        return {(symbol,): 1.0}
    found: dict[Classes, float] = defaultdict(float)
    total = sum(weight for weight, _ in _RULES[symbol])
    for weight, right in _RULES[symbol]:
        for parts in product(*(expand(part).items() for part in right.split())):
            classes = tuple(name for sequence, _ in parts for name in sequence)
            found[classes] += weight / total * math.prod(probability for _, probability in parts)
    return dict(found)


@dataclass(frozen=True)
class Skeleton:
    """The word class at each position of a line, and the position whose word it repeats (itself if it is drawn)."""

    classes: Classes
    repeats: tuple[int, ...]


@dataclass(frozen=True)
class LineGrammar:
    """The distribution of lines, and variants of it with less entropy."""

    word_classes: WordClasses = "full"
    """Keep all words of each class, the first half or the first quarter (rounded up)."""
    copied_half: bool = True
    """Whether the output follows the task word; without it the entropy per line is the same."""
    declarative_only: bool = False
    """Whether every line is a `decl` line; nothing is rejected then."""

    @cached_property
    def skeletons(self) -> dict[Skeleton, float]:
        """The probability of each skeleton of a line, after rejection."""
        found: dict[Skeleton, float] = defaultdict(float)
        for number in ("one", "many"):
            for subject, p_subject in expand(f"subject_{number}").items():
                kind = "bare" if len(subject) == 2 else "modified"
                tasks = ("decl",) if self.declarative_only or "relative" in subject else ("decl", "quest")
                for (predicate, p), task in product(expand(f"predicate_{number}_{kind}").items(), tasks):
                    found[self._skeleton(subject, predicate, task)] += p_subject * p
        total = sum(found.values())
        return {skeleton: probability / total for skeleton, probability in found.items()}

    def _skeleton(self, subject: Classes, predicate: Classes, task: str) -> Skeleton:
        sentence = subject + predicate
        order = list(range(len(sentence)))
        if task == "quest":
            order.insert(0, order.pop(len(subject)))
        given = (*sentence, ".", task)
        if not self.copied_half:
            return Skeleton((*given, END), tuple(range(len(given) + 1)))
        output = (*(sentence[i] for i in order), "." if task == "decl" else "?", END)
        stop = len(given) + len(sentence)
        return Skeleton((*given, *output), (*range(len(given)), *order, stop, stop + 1))

    @cached_property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The words of each class that some line uses."""
        share = {"full": 1, "half": 2, "quarter": 4}[self.word_classes]
        used = {name for skeleton in self.skeletons for name in skeleton.classes}
        return {name: words[: -(-len(words) // share)] for name, words in WORDS.items() if name in used}

    @cached_property
    def vocabulary(self) -> list[str]:
        """Word types, in the order of their token ids; the end token's id comes next."""
        return [word for words in self.words.values() for word in words]

    @cached_property
    def entropy_per_line(self) -> float:
        """Exact entropy of a line in nats, the end token included: its cost under an ideal model."""
        fresh = {
            skeleton: sum(
                math.log(len(self.words[name]))
                for position, (name, source) in enumerate(zip(skeleton.classes, skeleton.repeats, strict=True))
                if source == position and name != END
            )
            for skeleton in self.skeletons
        }
        return sum(p * (fresh[skeleton] - math.log(p)) for skeleton, p in self.skeletons.items())

    @cached_property
    def lengths(self) -> dict[int, float]:
        """The probability of each length of a line in words, the end token included."""
        found: dict[int, float] = defaultdict(float)
        for skeleton, p in self.skeletons.items():
            found[len(skeleton.classes)] += p
        return dict(found)

    @cached_property
    def tokens_per_line(self) -> float:
        """Exact mean length of a line in words, the end token included."""
        return sum(p * length for length, p in self.lengths.items())

    @property
    def longest_line(self) -> int:
        """Length of the longest line in words, the end token included."""
        return max(self.lengths)

    @property
    def entropy_per_token(self) -> float:
        """Exact entropy in nats per word: the least loss that a model can have on lines it has not seen."""
        return self.entropy_per_line / self.tokens_per_line

    def memorised_per_token(self, lines: int) -> float:
        """Return the loss in nats per word of a model that has memorised that many lines and knows nothing else.

        It gives each the same probability, so that one costs ln(lines); repeated lines make the true loss lower.
        """
        return math.log(lines) / self.tokens_per_line

    @cached_property
    def _tables(self) -> tuple[np.ndarray, ...]:
        """Per skeleton and position: the class's first id and size, the position repeated; lengths; cumulative p."""
        first, sizes = {END: len(self.vocabulary)}, {END: 1}
        start = 0
        for name, words in self.words.items():
            first[name], sizes[name] = start, len(words)
            start += len(words)
        shape = (len(self.skeletons), self.longest_line)
        start_KP, size_KP, repeats_KP = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        for row, skeleton in enumerate(self.skeletons):
            length = len(skeleton.classes)
            start_KP[row, :length] = [first[name] for name in skeleton.classes]
            size_KP[row, :length] = [sizes[name] for name in skeleton.classes]
            repeats_KP[row, :length] = skeleton.repeats
        lengths_K = np.array([len(skeleton.classes) for skeleton in self.skeletons])
        return start_KP, size_KP, repeats_KP, lengths_K, np.cumsum(list(self.skeletons.values()))

    def sample(self, generator: np.random.Generator, lines: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw independent lines as word ids.

        Returns:
            The lines' ids end to end, each line with its end token, and the length of each line [lines].
        """
        start_KP, size_KP, repeats_KP, lengths_K, cumulated_K = self._tables
        row_L = np.searchsorted(cumulated_K[:-1], generator.random(lines), side="right")
        drawn_LP = start_KP[row_L] + (generator.random((lines, start_KP.shape[1])) * size_KP[row_L]).astype(np.int64)
        ids_LP = np.take_along_axis(drawn_LP, repeats_KP[row_L], axis=1)
        lengths_L = lengths_K[row_L]
        return ids_LP[np.arange(ids_LP.shape[1]) < lengths_L[:, None]], lengths_L


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
