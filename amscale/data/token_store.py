"""A tokenised corpus on disk, memory-mapped, and what is known of its tokens before any is made."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amscale.data.corpus import Corpus, Packing
from amscale.data.readers import fingerprint
from amscale.data.round_trip import describe_loss, sample_loss
from amscale.data.tokenizers import Tokenizer, make_tokenizer, saved_tokenizer
from amscale.errors import InputError
from amscale.settings import format_size

FORMAT = 2
"""Version of the files of a store; part of its name."""


@dataclass(frozen=True)
class Subset:
    """Documents of a store, memory-mapped, and how they are packed into sequences."""

    tokens: np.ndarray
    """Token ids of the documents end to end [unique_tokens]; each document ends with the end token, unless its
    corpus stores none."""
    offsets: np.ndarray
    """Where each document starts, and where the last one would end uncut [documents + 1]."""
    end_token: int
    packing: Packing
    copies: int = 1
    """How often each sequence occurs in one epoch."""

    @property
    def unique_tokens(self) -> int:
        """D: tokens, end tokens counted. A document that the corpus repeats counts each time, `copies` do not."""
        return len(self.tokens)

    @property
    def documents(self) -> int:
        """Number of documents; under `stream` packing the last one may be cut short."""
        return len(self.offsets) - 1

    def document(self, index: int) -> np.ndarray:
        """Return the token ids of one document, the end token included unless it was cut off."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def token_type(vocabulary_size: int) -> np.dtype:
    """Return the narrower of uint16 and uint32 that holds every id.

    Raises:
        InputError: the vocabulary needs more than 32 bits.
    """
    for candidate in (np.uint16, np.uint32):
        if vocabulary_size <= np.iinfo(candidate).max + 1:
            return np.dtype(candidate).newbyteorder("<")
    raise InputError(f"data.tokenizer: a vocabulary of {vocabulary_size} needs more than 32 bits; use a smaller one")


@dataclass(frozen=True)
class TokenStore:
    """An opened store; see `open_store`."""

    folder: Path
    facts: dict[str, Any]
    """The contents of store.json."""
    tokens: np.ndarray
    """[tokens], read-only."""
    offsets: np.ndarray
    """[documents + 1], read-only."""

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return self.facts["settings"]["corpus"]

    @property
    def vocabulary_size(self) -> int:
        """Token ids lie below it; the end token is one of them."""
        return self.facts["vocabulary_size"]

    @property
    def end_token(self) -> int:
        """Id that ends documents and marks the beginning of an input."""
        return self.facts["end_token"]

    @property
    def enlarging_setting(self) -> str:
        """Dotted key of the setting that makes a larger corpus."""
        return self.facts["more"]

    @property
    def longest_document(self) -> int:
        """Tokens of the longest document, end token included: the context that cuts no document."""
        return self.facts["longest_document"]

    @property
    def training_documents(self) -> int:
        """Number of documents that are not held out."""
        return self.facts["training_documents"]

    @property
    def training_tokens(self) -> int:
        """Tokens of all training documents: the largest D."""
        return int(self.offsets[self.training_documents])

    def describe_text(self) -> str | None:
        """Return a sentence on documents and on what the tokenizer lost of them; None where no text was tokenised."""
        text = self.facts.get("text")
        if text is None:
            return None
        parts = " (parts of one document)" if self.facts.get("parts_of_one_document") else ""
        return (
            f"Text by {self.facts['settings']['tokenizer']}: {format_size(self.training_documents)} training documents "
            f"and {format_size(self.facts['validation_documents'])} held out{parts}; {describe_loss(text)}."
        )

    @property
    def entropy_per_document(self) -> float | None:
        """Exact entropy of the source in nats per document, or None where it is not known."""
        return self.facts["entropy_per_document"]

    @property
    def entropy_per_token(self) -> float | None:
        """Entropy of the source in nats per stored token (end tokens count where documents end with them), or None
        where it is not known."""
        return self.facts["entropy_per_token"]

    def memorised_per_token(self, documents: int) -> float:
        """Return the loss in nats per token of a model that has memorised that many documents and knows nothing else.

        It gives each the same probability, so that one costs ln(documents); copies among them make the true loss lower.
        """
        return math.log(documents) / self.facts["tokens_per_document"]

    def training(self, size: int | None = None, packing: Packing = "document", copies: int = 1) -> Subset:
        """Return the first training documents with at least `size` tokens, all by default; `stream` cuts at `size`.

        Subsets are prefixes of one order: a smaller one is the beginning of a larger one. Costs a binary search and
        no copy of tokens or offsets.

        Args:
            copies: how often each sequence occurs in one epoch; `size` counts it once.

        Raises:
            InputError: the corpus has fewer than `size` training tokens.
        """
        available = self.training_tokens
        size = available if size is None else size
        if not 0 < size <= available:
            raise InputError(
                f"data.size: {size} tokens ({format_size(size)}) wanted, but {self.corpus} has {available} "
                f"({format_size(available)}) training tokens; lower data.size or give more by {self.enlarging_setting}"
            )
        documents = int(np.searchsorted(self.offsets[1 : self.training_documents + 1], size)) + 1
        stop = size if packing == "stream" else int(self.offsets[documents])
        return Subset(self.tokens[:stop], self.offsets[: documents + 1], self.end_token, packing, copies)

    def validation(self, packing: Packing = "document") -> Subset:
        """Return the held-out documents, the same whatever the training size; see `Corpus.split` for copies."""
        return Subset(self.tokens[self.training_tokens :], self._validation_offsets, self.end_token, packing)

    @cached_property
    def _validation_offsets(self) -> np.ndarray:
        return self.offsets[self.training_documents :] - self.offsets[self.training_documents]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the store."""
        return saved_tokenizer(self.folder, self.facts["tokenizer"])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids; end tokens are left out."""
        return self.tokenizer.decode(ids)


_COUNTS = ("vocabulary_size", "end_token", "tokens", "documents", "training_documents", "longest_document")
"""Numbers of store.json without which a store cannot be opened."""
_CONTENT = ("tokens.bin", "offsets.npy", "tokenizer.json")
"""Files of a store beside store.json; tokenizers of bytes have none."""
_ZEROS = 1 << 12
"""Bytes at the end of a file that are not all zero: less than that is not lost by itself."""


class DamagedStore(InputError):
    """Report a store whose files are not what was written; `prepare` makes it again."""


def checksums(folder: Path) -> dict[str, str]:
    """Return the fingerprint of each file of a store but store.json; of large files it covers a part."""
    return {name: fingerprint(folder / name) for name in _CONTENT if (folder / name).exists()}


def open_store(folder: Path | str) -> TokenStore:
    """Open a store that `prepare` made.

    Raises:
        DamagedStore: a file is short, or not what was written.
        InputError: the folder is not a store of this format.
    """
    folder = Path(folder)
    try:
        facts = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedStore(f"{folder} is not a token store ({error}); prepare the data again") from None
    except OSError as error:
        raise InputError(f"{folder}: the token store cannot be read ({error.strerror}); make it readable") from None
    except ValueError as error:
        raise DamagedStore(f"{folder} is not a token store (store.json: {error}); prepare the data again") from None
    if not isinstance(facts, dict):
        raise DamagedStore(f"{folder} is not a token store (store.json is not a mapping); prepare the data again")
    if facts.get("format") != FORMAT:
        raise InputError(f"{folder} has store format {facts.get('format')}, not {FORMAT}; prepare the data again")
    missing = [name for name in _COUNTS if not isinstance(facts.get(name), int)]
    if missing:
        raise DamagedStore(f"{folder}: store.json lacks {missing[0]}; delete the folder and prepare the data again")
    dtype = token_type(facts["vocabulary_size"])
    path = folder / "tokens.bin"
    if not path.exists() or path.stat().st_size != facts["tokens"] * dtype.itemsize:
        raise DamagedStore(f"{path} is not {facts['tokens']} tokens long; delete its folder and prepare the data again")
    for name in _damaged(folder, facts):
        raise DamagedStore(f"{folder / name} is not what was written; delete its folder and prepare the data again")
    tokens = np.memmap(path, dtype=dtype, mode="r", shape=(facts["tokens"],))
    try:
        offsets = np.load(folder / "offsets.npy", mmap_mode="r")
        whole = offsets.shape == (facts["documents"] + 1,) and offsets[-1] == facts["tokens"]
    except (OSError, ValueError, EOFError):  # missing, short, or not of numpy
        whole = False
    if not whole:
        raise DamagedStore(f"{folder / 'offsets.npy'} is damaged; delete its folder and prepare the data again")
    # As plain arrays over the same pages: slicing a memmap object costs ten times as much.
    return TokenStore(folder, facts, tokens.view(np.ndarray), offsets.view(np.ndarray))


def _damaged(folder: Path, facts: dict[str, Any]) -> Iterator[str]:
    """Yield the names of files that are not what was written; stores of earlier versions have no checksums."""
    if (expected := facts.get("checksums")) is not None:
        found = checksums(folder)
        yield from (name for name, checksum in expected.items() if found.get(name) != checksum)
        return
    with (folder / "tokens.bin").open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _ZEROS))
        if facts["tokens"] > _ZEROS and not any(file.read()):
            yield "tokens.bin"


_PUBLISHED = {"gpt2": 50257, "openai-community/gpt2": 50257}
"""Vocabularies of tokenizers on the hub, end token included, so that a plan needs no network."""


class TokenStatistics(NamedTuple):
    """What a plan needs to know of tokens."""

    vocabulary_size: int
    context: int
    """Tokens of a sequence, at most."""
    mean_tokens_per_sequence: float


def describe_sample(corpus: Corpus) -> str | None:
    """Return a sentence on what the tokenizer loses of the beginning of a corpus; None where that is not known yet.

    Raises:
        InputError: more is lost than `corpus.lost_text` allows.
    """
    if corpus.tokenizer in _PUBLISHED and not Path(corpus.tokenizer).exists():
        return None
    text = sample_loss(corpus)
    return None if text is None else f"Text by {corpus.tokenizer}: {describe_loss(text)}."


def predict_statistics(corpus: Corpus) -> TokenStatistics | None:
    """Return vocabulary, context and mean tokens per sequence where settings and source determine them.

    The mean is that of the source: documents that were drawn from it have it up to chance. Under `stream` packing it is
    the context, which the last sequence alone falls short of.

    Returns:
        None where only the tokens themselves can tell.

    Raises:
        InputError: the tokenizer is neither a local file nor on the hub.
    """
    source = corpus.source_statistics() if corpus.duplicates == "keep" else None
    context = corpus.context or (source.longest_document if source else None)
    if context is None:
        return None
    if corpus.packing == "stream":
        mean = float(context)
    elif source is not None and source.lengths is not None:
        pieces = sum(-(-length // context) * p for length, p in source.lengths.items())
        mean = sum(length * p for length, p in source.lengths.items()) / pieces
    else:
        return None
    vocabulary_size = _vocabulary_size(corpus)
    return None if vocabulary_size is None else TokenStatistics(vocabulary_size, context, mean)


def statistics_without_tokens(corpus: Any) -> TokenStatistics:
    """Return what the settings of a corpus without tokens say."""
    return TokenStatistics(corpus.vocabulary, corpus.context, float(corpus.context))


def _vocabulary_size(corpus: Corpus) -> int | None:
    if corpus.tokenizer == "bpe" or (corpus.tokenizer == "word" and corpus.word_types() is None):
        return None
    if corpus.tokenizer in _PUBLISHED and not Path(corpus.tokenizer).exists():
        return _PUBLISHED[corpus.tokenizer]
    return make_tokenizer(corpus).vocabulary_size
