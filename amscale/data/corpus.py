"""The interface of a corpus: its settings, its texts, what identifies it, and what is known of its source."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from amscale.errors import InputError
from amscale.settings import Settings, Size, parse_size

Packing = Literal["document", "stream"]
Split = Literal["content", "last"]
Duplicates = Literal["keep", "exact", "near"]
Shuffle = Literal["none", "document", "corpus"]


def parse_share_or_count(value: Any) -> float | int:
    """Return a share strictly between 0 and 1, or a count of documents of at least 1, written as any size.

    Raises:
        ValueError: the value is neither.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = parse_size(value)
    if 0 < number < 1:
        return number
    if number < 1:
        raise ValueError(f"{value!r} holds nothing out; write a share such as 0.01 or a count such as 1000")
    return parse_size(value)


ShareOrCount = Annotated[float | int, BeforeValidator(parse_share_or_count)]


@dataclass(frozen=True)
class SourceStatistics:
    """Exact statistics of the distribution that documents are drawn from, whatever the documents drawn."""

    entropy_per_document: float
    """In nats."""
    lengths: dict[int, float] | None
    """The probability of each length of a document in tokens, end token included; None where only the tokenised
    documents can tell."""

    @property
    def tokens_per_document(self) -> float | None:
        """Mean tokens of a document, end token included."""
        return None if self.lengths is None else sum(length * p for length, p in self.lengths.items())

    @property
    def longest_document(self) -> int | None:
        """Tokens of the longest document, end token included."""
        return None if self.lengths is None else max(self.lengths)


class Unreachable(InputError):
    """Report texts that cannot be reached at the moment; the build that this interrupts is resumed by the next one."""


class Corpus(Settings):
    """A corpus with its tokenizer and split: the settings that every corpus has, and the methods that it can override.

    A corpus is a subclass with `corpus: Literal[name] = name`, the settings that it adds, and `texts`; the registry
    CORPORA, or an entry point of the group `amscale.corpora`, gives the class by that name. All else has a default.
    """

    corpus: str
    """Name of the corpus."""
    size: Size | None = Field(default=None, gt=0)
    """D: unique training tokens, end tokens counted; a line that the corpus repeats counts each time, what `copies`
    adds does not count. `document` packing takes whole documents until D is reached, `stream` exactly D. None: all."""
    tokenizer: str = "word"
    """`word`: the corpus's blank-separated words; `byte`: UTF-8 bytes; `bpe`: byte-level pairs trained on the corpus
    (its first 270 million characters, held-out documents included); or a `tokenizer.json`, a folder, a GGUF
    file, or a name on the Hugging Face hub."""
    tokenizer_vocabulary: Size = Field(default=4096, ge=257)
    """Vocabulary of a `bpe` tokenizer, in tokens, end token included; other tokenizers have a fixed one."""
    packing: Packing = "document"
    """`document`: one document a sequence, padded; `stream`: documents end to end, cut every `context` tokens."""
    context: int | None = Field(default=None, ge=1)
    """Tokens a sequence, at most. None: the longest document of the corpus with its end token."""
    validation: ShareOrCount = 0.01
    """Held out for validation: a share of the documents if below 1, else their count. Under the `content` split copies
    of one document stay on one side, so the count can come out a few documents higher."""
    split: Split = "content"
    """Which documents are held out. `content`: chosen by a hash of their tokens, so that no held-out document has a
    copy among the training ones. `last`: the last of the corpus in its order; copies can be on both sides."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the choice of validation documents, of the order of the others (subsets are prefixes of it), and of
    `shuffle_tokens`."""
    duplicates: Duplicates = "keep"
    """`exact`: only the first of equal documents is kept. `near`: only the first of documents whose sets of 5-token
    runs are similar (MinHash with 128 values; needs the package rensa)."""
    similarity: float = Field(default=0.8, gt=0.5, le=1)
    """Jaccard similarity from which `duplicates: near` takes two documents for one, as MinHash estimates it."""
    shuffle_tokens: Shuffle = "none"
    """A control with the same tokens and no structure. `document`: the tokens of each document in random order;
    `corpus`: those of all documents together. Lengths, end tokens, split and order stay as they are without it."""
    copies: int = Field(default=1, ge=1)
    """How often each training sequence occurs in one epoch. D counts it once, and validation is not copied."""
    lost_text: float = Field(default=0.01, ge=0, le=1)
    """Share of a sample's characters that may be lost when they are encoded and decoded again, and share of all tokens
    that may be unknown ones; a tokenizer that loses more is refused."""

    enlarging_setting: ClassVar[str] = "data"
    """Dotted key of the setting that makes a larger corpus, for error messages and larger grids."""
    has_tokens: ClassVar[bool] = True
    """Whether there are texts to tokenise; otherwise a trial gets no tokens."""
    cuts_single_document: ClassVar[bool] = False
    """Whether a document that is the only one is cut into parts, so that some of them can be held out."""
    usage_settings: ClassVar[frozenset[str]] = frozenset({"size", "packing", "context", "copies", "lost_text"})
    """Settings of how tokens are used, not of which they are: corpora that differ in these alone share a store."""

    def model_post_init(self, context: Any, /) -> None:
        """Count the name as given, so that a dump of what was set tells which corpus it is."""
        self.model_fields_set.add("corpus")

    @abstractmethod
    def texts(self) -> Iterator[list[str]]:
        """Yield the documents, always in the same order and the same lists, each list short enough to hold in memory.

        Raises:
            InputError: a text cannot be read; Unreachable: not at the moment.
        """

    def content(self) -> dict[str, Any]:
        """Return hashes of the files that settings name, as plain JSON, each under the name of its setting.

        In an identity they take the place of the paths: the same files elsewhere are the same corpus.

        Raises:
            InputError: a file is missing or cannot be read.
        """
        return {}

    def identity(self) -> dict[str, Any]:
        """Return all that determines the tokens and their split, as plain JSON; its hash names the token store.

        Raises:
            InputError: a file is missing or cannot be read.
        """
        ignored = set(self.usage_settings)
        if self.tokenizer != "bpe":
            ignored.add("tokenizer_vocabulary")
        if self.duplicates != "near":
            ignored.add("similarity")
        return self.model_dump(mode="json", exclude=ignored) | self.content()

    def word_types(self) -> list[str] | None:
        """Return the `word` vocabulary in the order of its ids; None: it is collected from the texts."""
        return None

    def word_tokens(self) -> Iterator[tuple[np.ndarray, np.ndarray]] | None:
        """Yield blocks of `word` tokens, end to end as stored, with document lengths; None: the texts are tokenised."""
        return None

    def source_statistics(self) -> SourceStatistics | None:
        """Return the exact entropy and lengths of the source, where they are known."""
        return None


class TextCorpus(Corpus):
    """A corpus of natural text: byte-pair tokens, documents end to end."""

    cuts_single_document: ClassVar[bool] = True

    tokenizer: str = "bpe"
    packing: Packing = "stream"
    context: int | None = Field(default=256, ge=1)


class PublishedTextCorpus(TextCorpus):
    """A published corpus with GPT-2's tokenizer and context, the last 5 % held out."""

    tokenizer: str = "gpt2"
    context: int | None = Field(default=1024, ge=1)
    validation: ShareOrCount = 0.05
    split: Split = "last"
