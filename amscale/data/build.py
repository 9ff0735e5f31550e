"""Build a token store from a corpus: tokenise, split, order, write; once, and whole or not at all.

A store under construction belongs to the process that holds its lock.
"""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from amscale.data.buckets import shuffle_corpus, shuffle_documents
from amscale.data.corpus import Corpus, Unreachable
from amscale.data.draft import Draft, content_hashes
from amscale.data.duplicates import SIGNATURE, first_exact_duplicates, first_near_duplicates, signatures
from amscale.data.parts import document_blocks, is_empty
from amscale.data.round_trip import RoundTrip, check_loss, round_trip, sampled
from amscale.data.split import ValidationSplit, write_in_order
from amscale.data.token_store import FORMAT, DamagedStore, TokenStore, checksums, open_store, token_type
from amscale.data.tokenizers import Tokenizer, make_tokenizer, saved_tokenizer, tokenizer_identity
from amscale.errors import InputError
from amscale.files import removed_if_empty, sync_folder
from amscale.locks import FileLock, LockHeld, LocksUnsupported
from amscale.settings import format_size

_LOCK = "lock"
_FORGOTTEN = 7 * 86400
"""Seconds after which a partial store that no process resumed is removed."""


@contextlib.contextmanager
def sole_builder(root: Path, name: str) -> Iterator[Path | None]:
    """Yield the folder in which this process alone builds the store `name`, with what a dead builder finished of it.

    Yield None once the store exists and is sound. Another builder on this machine is waited for. Builders on several
    machines have one folder each, since not every shared disk has locks across machines; the first to finish names the
    store. On a disk without locks every builder has a folder, and those of dead ones are removed when the store is
    finished.
    """
    building = root / f".{name}-{socket.gethostname()}"
    while True:
        try:
            building.mkdir(parents=True, exist_ok=True)
            lock = FileLock(building / _LOCK, wait=True)
        except FileNotFoundError:  # another builder removed or renamed the folder in between
            continue
        except LocksUnsupported:
            building = root / f".{name}-{uuid.uuid4().hex}"
            building.mkdir()
            (building / _LOCK).touch()
            yield building
            return
        with lock:
            if _is_sound(root / name):
                if lock.is_current():
                    shutil.rmtree(building)
                yield None
                return
            if lock.is_current():
                yield building
                return


def finish(building: Path, root: Path, name: str) -> None:
    """Rename a finished store to its name, and remove the partial stores of other builders.

    Its files are on the disk before it has the name. A damaged store that has the name makes room.
    """
    place = root / name
    try:
        sync_folder(building)
        if place.is_dir() and not _is_sound(place):
            os.rename(place, root / f".{name}-damaged-{uuid.uuid4().hex}")
        os.rename(building, place)
        (place / _LOCK).unlink()
        sync_folder(root, files=False)
    except OSError:
        if not _is_sound(place):  # otherwise a builder on another machine was first, with the same content
            raise
    for leftover in root.glob(f".{name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _is_sound(folder: Path) -> bool:
    try:
        open_store(folder)
    except InputError:
        return False
    return True


def remove_forgotten(root: Path) -> None:
    """Remove partial stores of dead builders that no process resumed within a week."""
    for lock in root.glob(f".*-*/{_LOCK}"):
        with contextlib.suppress(FileNotFoundError):
            newest = max(path.stat().st_mtime for path in [lock.parent, *lock.parent.iterdir()])
            if time.time() - newest > _FORGOTTEN:
                with contextlib.suppress(LockHeld, LocksUnsupported, PermissionError), FileLock(lock):
                    shutil.rmtree(lock.parent, ignore_errors=True)


_CLEARLY = 10
"""A build ends as soon as this multiple of the share that may be lost is lost."""
_REPORT_EVERY = 10.0
"""Seconds between two lines about a build."""


class BuildProgress:
    """Print the state of a build on stderr every ten seconds, in a thread, while the context lasts."""

    def __init__(self, corpus: str) -> None:
        self._corpus = corpus
        self._stage = ""
        self._counts = ""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> "BuildProgress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def enter_stage(self, stage: str) -> None:
        """Name what the build does from now on."""
        self._stage, self._counts = stage, ""
        self._start: tuple[float, int] | None = None

    def count(self, documents: int, tokens: int) -> None:
        """Record how far the stage is. Speed counts from its first call, since a build may resume a partial one."""
        now = time.monotonic()
        self._start = self._start or (now, tokens)
        seconds, made = now - self._start[0], tokens - self._start[1]
        speed = f", {format_size(made / seconds)} tokens a second" if seconds else ""
        self._counts = f": {format_size(documents)} documents, {format_size(tokens)} tokens{speed}"

    def _report(self) -> None:
        while not self._done.wait(_REPORT_EVERY):
            print(f"{self._corpus}: {self._stage}{self._counts}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Block:
    """Documents of a corpus, tokenised."""

    tokens: np.ndarray
    """End to end as they are stored."""
    lengths: np.ndarray
    """Tokens of each document."""
    empty: int = 0
    """Documents without tokens, left out."""
    parts: bool = False
    """Whether the documents are parts of the only one of the corpus."""
    round_trip: RoundTrip = field(default_factory=RoundTrip)


def corpus_content(corpus: Corpus) -> dict[str, Any]:
    """Return hashes of the corpus's files and of the tokenizer's, each under the name of its setting.

    Empty where the settings alone determine the corpus.

    Raises:
        InputError: a file is missing or cannot be read.
    """
    tokenizer = tokenizer_identity(corpus.tokenizer)
    return corpus.content() | ({} if tokenizer == corpus.tokenizer else {"tokenizer": tokenizer})


def store_name(corpus: Corpus) -> str:
    """Return the folder name of a store: a hash of all that determines its tokens and their split."""
    identity = {"format": FORMAT, **corpus.identity(), "tokenizer": tokenizer_identity(corpus.tokenizer)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def prepare(corpus: Corpus, root: Path | str) -> TokenStore:
    """Return the store of a corpus under `root`, and build it first where it is missing.

    Tokens are streamed: memory does not grow with the corpus, beyond its longest document and one to nine bytes a
    document where duplicates are dropped. Of several processes that want one store, one builds it and the others wait.
    An interrupted build resumes after the last block that it had tokenised; a long one reports on stderr.

    Raises:
        InputError: the corpus or the tokenizer cannot be read, or there are too few distinct documents to hold any out.
    """
    root = Path(root)
    name = store_name(corpus)
    if (root / name).is_dir():
        try:
            return _checked(open_store(root / name), corpus)
        except DamagedStore as error:
            print(f"{error}; it is made again", file=sys.stderr, flush=True)
    remove_forgotten(root)
    with removed_if_empty(root), sole_builder(root, name) as building:
        if building is not None:
            try:
                _build(corpus, building)
            except Unreachable:
                raise
            except InputError:
                shutil.rmtree(building)
                raise
            except FileNotFoundError:
                if not _is_sound(root / name):  # otherwise another machine was first, and removed this folder
                    raise
            finish(building, root, name)
    return _checked(open_store(root / name), corpus)


def _checked(store: TokenStore, corpus: Corpus) -> TokenStore:
    """Return a store whose tokenizer holds its text; stores of earlier versions do not say so."""
    if text := store.facts.get("text"):
        check_loss(text, corpus.tokenizer, corpus.lost_text)
    return store


def _build(corpus: Corpus, folder: Path) -> None:
    draft = Draft(folder)
    with BuildProgress(corpus.corpus) as progress:
        tokenizer = _tokenise(corpus, draft, progress)
        progress.enter_stage("choosing and ordering documents")
        kept = None
        if corpus.duplicates == "exact":
            kept = first_exact_duplicates(draft)
        elif corpus.duplicates == "near":
            kept = first_near_duplicates(draft, corpus.similarity)
        split = ValidationSplit(corpus, draft, kept)
        longest = write_in_order(corpus, draft, split, kept)
        if corpus.shuffle_tokens == "corpus":
            progress.enter_stage("shuffling tokens")
            shuffle_corpus(folder / "tokens.bin", draft.dtype, tokenizer.end_token, corpus.split_seed)
    facts = _store_facts(corpus, tokenizer, draft, split, longest)
    draft.remove()
    facts["checksums"] = checksums(folder)
    (folder / "store.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _tokenise(corpus: Corpus, draft: Draft, progress: BuildProgress) -> Tokenizer:
    """Write the rest of the draft and return its tokenizer."""
    if draft.progress.tokenizer:
        tokenizer = saved_tokenizer(draft.folder, draft.progress.tokenizer)
    else:
        progress.enter_stage(f"making the {corpus.tokenizer} tokenizer")
        tokenizer = make_tokenizer(corpus)
        draft.keep_tokenizer(tokenizer)
    dtype = token_type(tokenizer.vocabulary_size)
    near = corpus.duplicates == "near"
    draft.start(dtype, {"signatures": SIGNATURE} if near else {})
    progress.enter_stage("tokenising")
    for block in token_blocks(corpus, tokenizer, draft.progress.blocks):
        tokens, lengths = block.tokens, block.lengths
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocabulary_size:
            raise ValueError(f"token {tokens.max()} outside a vocabulary of {tokenizer.vocabulary_size}")
        tokens = tokens.astype(dtype)
        rows = {"lengths": lengths, "hashes": content_hashes(tokens, lengths, corpus.split_seed)}
        if near:
            rows["signatures"] = signatures(tokens, lengths)
        if corpus.shuffle_tokens == "document":
            seeds = (corpus.split_seed, 1, draft.progress.blocks)
            tokens = shuffle_documents(tokens, lengths, tokenizer.end_token, seeds)
        draft.progress.round_trip.add(block.round_trip)
        draft.progress.parts |= block.parts
        # Clearly too much at any time; the exact bound holds for the whole corpus, once the store is there.
        check_loss(draft.progress.round_trip.facts(), corpus.tokenizer, corpus.lost_text, _CLEARLY)
        draft.append(tokens, block.empty, **rows)
        progress.count(draft.progress.documents, draft.progress.tokens)
    return tokenizer


def token_blocks(corpus: Corpus, tokenizer: Tokenizer, skip: int = 0) -> Iterator[Block]:
    """Yield the corpus's tokens in its order, after the first `skip` blocks.

    Threads tokenise two blocks ahead while the caller handles the last.
    """
    word_tokens = corpus.word_tokens() if corpus.tokenizer == "word" else None
    if word_tokens is not None:
        yield from (Block(tokens, lengths) for tokens, lengths in islice(word_tokens, skip, None))
        return
    ahead: deque[Future[Block]] = deque()
    with ThreadPoolExecutor(2) as threads:
        for texts, parts in islice(document_blocks(corpus), skip, None):
            ahead.append(threads.submit(_encode, corpus, tokenizer, texts, parts))
            if len(ahead) > 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _encode(corpus: Corpus, tokenizer: Tokenizer, texts: list[str], parts: bool) -> Block:
    written = [text for text in texts if not is_empty(text)]
    tokens, lengths = tokenizer.encode(written)
    chosen = sampled(written, corpus.tokenizer)
    found = round_trip(tokenizer, chosen, *tokenizer.encode(chosen))
    found.count_unknown(tokenizer, tokens, len(lengths))
    filled = lengths > 1
    if not filled.all():
        tokens, lengths = tokens[np.repeat(filled, lengths)], lengths[filled]
    return Block(tokens, lengths, len(texts) - len(lengths), parts, found)


def _store_facts(
    corpus: Corpus, tokenizer: Tokenizer, draft: Draft, split: ValidationSplit, longest: int
) -> dict[str, Any]:
    offsets = np.load(draft.folder / "offsets.npy", mmap_mode="r")
    documents, tokens = len(offsets) - 1, int(offsets[-1])
    # The statistics of the source hold for documents as drawn: not for a choice among them, nor for shuffled tokens.
    as_drawn = corpus.duplicates == "keep" and corpus.shuffle_tokens == "none"
    source = corpus.source_statistics() if as_drawn else None
    text = draft.progress.round_trip
    mean = (source.tokens_per_document if source else None) or tokens / documents
    return {
        "format": FORMAT,
        "vocabulary_size": tokenizer.vocabulary_size,
        "end_token": tokenizer.end_token,
        "tokens": tokens,
        "documents": documents,
        "training_documents": split.training_documents,
        "validation_documents": split.validation_documents,
        "empty_documents": draft.progress.empty,
        "parts_of_one_document": draft.progress.parts,
        "text": text.facts() if text.characters else None,
        "dropped_duplicates": draft.progress.documents - documents,
        "longest_document": (source.longest_document if source else None) or longest,
        "tokens_per_document": mean,
        "entropy_per_document": source.entropy_per_document if source else None,
        "entropy_per_token": source.entropy_per_document / mean if source else None,
        "tokenizer": tokenizer.facts,
        "more": corpus.enlarging_setting,
        "settings": corpus.model_dump(mode="json", exclude=set(corpus.usage_settings)),
    }
