"""What every corpus can be asked: how much of it, cut into which tokens, packed into which sequences.

What is known exactly of a corpus's tokens before any of them is made: enough to plan runs on a corpus far away.
"""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from amscale.settings import Settings, Size, parse_size

Packing = Literal["document", "stream"]
Split = Literal["content", "last"]
Duplicates = Literal["keep", "exact", "near"]
Shuffle = Literal["none", "document", "corpus"]


def parse_held_out(value: Any) -> float | int:
    """A share strictly between 0 and 1, or a count of documents of at least 1, written as any size."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = parse_size(value)
    if 0 < number < 1:
        return number
    if number < 1:
        raise ValueError(f"{value!r} holds nothing out; write a share such as 0.01 or a count such as 1000")
    return parse_size(value)


HeldOut = Annotated[float | int, BeforeValidator(parse_held_out)]


@dataclass(frozen=True)
class KnownSource:
    """What is known of the source of a corpus, whatever the documents that were drawn from it."""

    entropy_per_document: float
    """In nats."""
    lengths: dict[int, float] | None
    """The probability of each length of a document in tokens, end token included; None where only the tokenised
    documents can tell."""

    @property
    def tokens_per_document(self) -> float | None:
        return None if self.lengths is None else sum(length * p for length, p in self.lengths.items())

    @property
    def longest_document(self) -> int | None:
        return None if self.lengths is None else max(self.lengths)


class CorpusSettings(Settings):
    """A corpus, its tokens and its split; each corpus adds what it needs to find or to make its documents."""

    corpus: str
    """Which corpus this is."""
    size: Size | None = Field(default=None, gt=0)
    """D: unique training tokens, end tokens counted; a line that the corpus repeats counts each time it stands
    there, what `copies` adds does not count. `document` packing takes whole documents until D is reached, `stream`
    exactly D. None: all there are."""
    tokenizer: str = "word"
    """`word`: the corpus's blank-separated words; `byte`: UTF-8 bytes; `bpe`: byte-level pairs trained on the corpus
    (its first 270 million characters, held-out documents included); or a `tokenizer.json`, a folder, or a name on the
    Hugging Face hub."""
    tokenizer_vocabulary: Size = Field(default=4096, ge=257)
    """Vocabulary of a `bpe` tokenizer, in tokens, end token included; other tokenizers have their own."""
    packing: Packing = "document"
    """`document`: one document a sequence, padded; `stream`: documents end to end, cut every `context` tokens."""
    context: int | None = Field(default=None, ge=1)
    """Tokens a sequence, at most. None: the longest document of the corpus with its end token."""
    validation: HeldOut = 0.01
    """Held out for validation: a share of the documents if below 1, else their count. Under the `content` split copies
    of one document stay on one side, so the count can come out a few documents higher."""
    split: Split = "content"
    """Which documents are held out. `content`: chosen by a hash of what they say, so that no held-out document has a
    copy among the training ones. `last`: the last of the corpus in its own order; copies can stand on both sides."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the choice of validation documents, of the order of the others (subsets are prefixes of it), and of
    `shuffle_tokens`."""
    duplicates: Duplicates = "keep"
    """`exact`: of documents that are equal, only the first is kept. `near`: the same for documents whose sets of
    5-token runs are alike (MinHash with 128 values; needs the package rensa)."""
    similarity: float = Field(default=0.8, gt=0.5, le=1)
    """Jaccard similarity from which `duplicates: near` takes two documents for one, as MinHash estimates it."""
    shuffle_tokens: Shuffle = "none"
    """A control with the same tokens and no structure. `document`: the tokens of each document change places at
    random; `corpus`: those of all documents. Lengths, end tokens, split and order stay as they are without it."""
    copies: int = Field(default=1, ge=1)
    """How often each training sequence stands in one epoch. D counts it once, and validation is not copied."""

    more: ClassVar[str] = "data"
    """Which setting makes a larger corpus, as an error message names it."""
    ends: ClassVar[bool] = True
    """Whether each document closes with the end token. Without it the end token only marks beginnings."""
    uses: ClassVar[frozenset[str]] = frozenset({"size", "packing", "context", "copies"})
    """Settings that say how tokens are used and not which they are: stores are shared across them."""

    @abstractmethod
    def texts(self) -> Iterator[list[str]]:
        """The documents in the corpus's own order, in lists short enough to hold in memory, always cut alike."""

    def content(self) -> dict[str, Any]:
        """For each setting that says where files lie, what tells their content, as plain JSON.

        Raises:
            InputError: they are not there, or cannot be read.
        """
        return {}

    def identity(self) -> dict[str, Any]:
        """All that determines the tokens and their split, as plain JSON; a store is named by a hash of it."""
        ignored = set(self.uses)
        if self.tokenizer != "bpe":
            ignored.add("tokenizer_vocabulary")
        if self.duplicates != "near":
            ignored.add("similarity")
        return self.model_dump(mode="json", exclude=ignored) | self.content()

    def word_types(self) -> list[str] | None:
        """The `word` vocabulary where the corpus knows it beforehand; None: it is collected from the texts."""
        return None

    def word_tokens(self) -> Iterator[tuple[np.ndarray, np.ndarray]] | None:
        """Blocks of `word` tokens (flat, as they are stored) and document lengths; None: the texts are tokenised."""
        return None

    def known_source(self) -> KnownSource | None:
        """The exact entropy and lengths of the source, if it has them."""
        return None


class TextSettings(CorpusSettings):
    """A corpus of natural text: pairs of bytes for tokens, documents end to end."""

    tokenizer: str = "bpe"
    """`word`: blank-separated words; `byte`: UTF-8 bytes; `bpe`: byte-level pairs trained on the corpus (its first
    270 million characters, held-out documents included); or a `tokenizer.json`, a folder, or a name on the Hugging
    Face hub."""
    packing: Packing = "stream"
    """`stream`: documents end to end, cut every `context` tokens; `document`: one document a sequence, padded."""
    context: int | None = Field(default=256, ge=1)
    """Tokens a sequence, at most. None: the longest document of the corpus with its end token."""


class PublishedTextSettings(TextSettings):
    """A published corpus as GPT-2 was trained on such: its tokenizer and its context, the last 5 % held out."""

    tokenizer: str = "gpt2"
    """A name on the Hugging Face hub, a folder, a `tokenizer.json`; or `word`, `byte`, `bpe`."""
    context: int | None = Field(default=1024, ge=1)
    """Tokens a sequence, at most."""
    validation: HeldOut = 0.05
    """Held out for validation: a share of the documents if below 1, else their count."""
    split: Split = "last"
    """Which documents are held out. `last`: the last of the corpus in its own order; copies can stand on both sides.
    `content`: chosen by a hash of what they say, so that no held-out document has a copy among the training ones."""
