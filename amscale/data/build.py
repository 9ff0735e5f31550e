"""Lines on stderr about a build that takes long; a short one says nothing.

From a corpus to its token store: tokenise, split, order, write; once, and whole or not at all.
"""

import hashlib
import json
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from amscale.data.buckets import shuffle_corpus, shuffle_documents
from amscale.data.corpora.hub import Unreachable
from amscale.data.corpus import CorpusSettings
from amscale.data.draft import Draft, content_hashes
from amscale.data.duplicates import SIGNATURE, first_of_alikes, first_of_equals, signatures
from amscale.data.lock import finish, remove_forgotten, sole_builder
from amscale.data.split import HeldOut, write_in_order
from amscale.data.store import FORMAT, TokenStore, open_store, token_type
from amscale.data.tokenizers import Tokenizer, make_tokenizer, saved_tokenizer, tokenizer_identity
from amscale.errors import InputError
from amscale.settings import format_size

_EVERY = 10.0
"""Seconds between two lines."""


class BuildProgress:
    """What a build is at, said every ten seconds from a thread of its own while the context lasts."""

    def __init__(self, corpus: str) -> None:
        self._corpus = corpus
        self._doing = ""
        self._counts = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> "BuildProgress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def turn_to(self, doing: str) -> None:
        """Say what is done from now on."""
        self._doing, self._counts = doing, ""
        self._start: tuple[float, int] | None = None

    def count(self, documents: int, tokens: int) -> None:
        """Say how far it has come. Speed counts from the first call: a build may go on with what it finds."""
        now = time.monotonic()
        self._start = self._start or (now, tokens)
        seconds, made = now - self._start[0], tokens - self._start[1]
        speed = f", {format_size(made / seconds)} tokens a second" if seconds else ""
        self._counts = f": {format_size(documents)} documents, {format_size(tokens)} tokens{speed}"

    def _tell(self) -> None:
        while not self._done.wait(_EVERY):
            print(f"{self._corpus}: {self._doing}{self._counts}", file=sys.stderr, flush=True)


Block = tuple[np.ndarray, np.ndarray, int]
"""Tokens end to end as they are stored, document lengths, and the number of empty documents that were left out."""


def corpus_content(settings: CorpusSettings) -> dict[str, Any]:
    """What tells the content of a corpus's files and of its tokenizer's, for each setting that says where they lie.

    Empty where the settings alone determine the corpus.

    Raises:
        InputError: the files are not there, or cannot be read.
    """
    tokenizer = tokenizer_identity(settings.tokenizer)
    return settings.content() | ({} if tokenizer == settings.tokenizer else {"tokenizer": tokenizer})


def store_name(settings: CorpusSettings) -> str:
    """The folder name of a store: a hash of all that determines its tokens and their split."""
    identity = {"format": FORMAT, **settings.identity(), "tokenizer": tokenizer_identity(settings.tokenizer)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def prepare(settings: CorpusSettings, root: Path | str) -> TokenStore:
    """The store of a corpus under `root`, built if it is not there yet.

    Tokens are streamed: memory does not grow with the corpus, beyond its longest document and one to nine bytes a
    document where duplicates are dropped. Several processes that want one store wait for the first to build it. A
    build that was cut short goes on after the last block that it had tokenised; a long one reports on stderr.

    Raises:
        InputError: a corpus or a tokenizer that cannot be read, or too few distinct documents to hold any out.
    """
    root = Path(root)
    name = store_name(settings)
    if (root / name).is_dir():
        return open_store(root / name)
    remove_forgotten(root)
    with sole_builder(root, name) as building:
        if building is not None:
            try:
                _build(settings, building)
            except Unreachable:
                raise
            except InputError:
                shutil.rmtree(building)
                raise
            except FileNotFoundError:
                if not (root / name).is_dir():  # otherwise a builder on another machine was first, and cleared up
                    raise
            finish(building, root, name)
    return open_store(root / name)


def _build(settings: CorpusSettings, folder: Path) -> None:
    draft = Draft(folder)
    with BuildProgress(settings.corpus) as news:
        tokenizer = _tokenise(settings, draft, news)
        news.turn_to("choosing and ordering documents")
        kept = None
        if settings.duplicates == "exact":
            kept = first_of_equals(draft)
        elif settings.duplicates == "near":
            kept = first_of_alikes(draft, settings.similarity)
        held_out = HeldOut(settings, draft, kept)
        longest = write_in_order(settings, draft, held_out, kept)
        if settings.shuffle_tokens == "corpus":
            news.turn_to("shuffling tokens")
            shuffle_corpus(folder / "tokens.bin", draft.dtype, tokenizer.end_token, settings.split_seed)
    facts = _facts(settings, tokenizer, draft, held_out, longest)
    draft.remove()
    (folder / "store.json").write_text(json.dumps(facts, indent=2) + "\n")


def _tokenise(settings: CorpusSettings, draft: Draft, news: BuildProgress) -> Tokenizer:
    """Write the draft from where it stands to its end; returns its tokenizer."""
    if draft.progress.tokenizer:
        tokenizer = saved_tokenizer(draft.folder, draft.progress.tokenizer)
    else:
        news.turn_to(f"making the {settings.tokenizer} tokenizer")
        tokenizer = make_tokenizer(settings)
        tokenizer.save(draft.folder)
        draft.progress.tokenizer = tokenizer.facts
        draft.note()
    dtype = token_type(tokenizer.vocabulary_size)
    near = settings.duplicates == "near"
    draft.start(dtype, {"signatures": SIGNATURE} if near else {})
    news.turn_to("tokenising")
    for tokens, lengths, empty in token_blocks(settings, tokenizer, draft.progress.blocks):
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocabulary_size:
            raise ValueError(f"token {tokens.max()} outside a vocabulary of {tokenizer.vocabulary_size}")
        tokens = tokens.astype(dtype)
        rows = {"lengths": lengths, "hashes": content_hashes(tokens, lengths, settings.split_seed)}
        if near:
            rows["signatures"] = signatures(tokens, lengths)
        if settings.shuffle_tokens == "document":
            seeds = (settings.split_seed, 1, draft.progress.blocks)
            tokens = shuffle_documents(tokens, lengths, tokenizer.end_token, seeds)
        draft.append(tokens, empty, **rows)
        news.count(draft.progress.documents, draft.progress.tokens)
    return tokenizer


def token_blocks(settings: CorpusSettings, tokenizer: Tokenizer, skip: int = 0) -> Iterator[Block]:
    """The corpus's tokens in its own order, after the first `skip` blocks.

    Two blocks are tokenised ahead in threads, while the caller deals with the last.
    """
    word_tokens = settings.word_tokens() if settings.tokenizer == "word" else None
    if word_tokens is not None:
        yield from ((tokens, lengths, 0) for tokens, lengths in islice(word_tokens, skip, None))
        return
    ahead: deque[Future[Block]] = deque()
    with ThreadPoolExecutor(2) as threads:
        for texts in islice(settings.texts(), skip, None):
            ahead.append(threads.submit(_encode, tokenizer, texts))
            if len(ahead) > 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _encode(tokenizer: Tokenizer, texts: list[str]) -> Block:
    tokens, lengths = tokenizer.encode([text for text in texts if text and not text.isspace()])
    some = lengths > 1
    if not some.all():
        tokens, lengths = tokens[np.repeat(some, lengths)], lengths[some]
    return tokens, lengths, len(texts) - len(lengths)


def _facts(
    settings: CorpusSettings, tokenizer: Tokenizer, draft: Draft, held_out: HeldOut, longest: int
) -> dict[str, Any]:
    offsets = np.load(draft.folder / "offsets.npy", mmap_mode="r")
    documents, tokens = len(offsets) - 1, int(offsets[-1])
    # The source is known of documents as they were drawn: not of a choice among them, nor of their shuffled tokens.
    as_drawn = settings.duplicates == "keep" and settings.shuffle_tokens == "none"
    source = settings.known_source() if as_drawn else None
    mean = (source.tokens_per_document if source else None) or tokens / documents
    return {
        "format": FORMAT,
        "vocabulary_size": tokenizer.vocabulary_size,
        "end_token": tokenizer.end_token,
        "tokens": tokens,
        "documents": documents,
        "training_documents": held_out.training_documents,
        "validation_documents": held_out.validation_documents,
        "empty_documents": draft.progress.empty,
        "dropped_duplicates": draft.progress.documents - documents,
        "longest_document": (source.longest_document if source else None) or longest,
        "tokens_per_document": mean,
        "entropy_per_document": source.entropy_per_document if source else None,
        "entropy_per_token": source.entropy_per_document / mean if source else None,
        "tokenizer": tokenizer.facts,
        "more": settings.more,
        "settings": settings.model_dump(mode="json", exclude=set(settings.uses)),
    }
