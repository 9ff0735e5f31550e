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
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from amscale.data.buckets import shuffle_corpus, shuffle_documents
from amscale.data.corpus import Corpus, Unreachable
from amscale.data.draft import Draft, content_hashes
from amscale.data.duplicates import SIGNATURE, first_exact_duplicates, first_near_duplicates, signatures
from amscale.data.split import ValidationSplit, write_in_order
from amscale.data.token_store import FORMAT, TokenStore, open_store, token_type
from amscale.data.tokenizers import Tokenizer, make_tokenizer, saved_tokenizer, tokenizer_identity
from amscale.errors import InputError
from amscale.locks import FileLock, LockHeld, LocksUnsupported
from amscale.settings import format_size

_LOCK = "lock"
_FORGOTTEN = 7 * 86400
"""Seconds after which a partial store that no process resumed is removed."""


@contextlib.contextmanager
def sole_builder(root: Path, name: str) -> Iterator[Path | None]:
    """Yield the folder in which this process alone builds the store `name`, with what a dead builder finished of it.

    Yield None once the store exists. Another builder on this machine is waited for. Builders on several machines have
    one folder each, since not every shared disk has locks across machines; the first to finish names the store. On a
    disk without locks every builder has a folder, and those of dead ones are removed when the store is finished.
    """
    building = root / f".{name}-{socket.gethostname()}"
    while True:
        building.mkdir(parents=True, exist_ok=True)
        try:
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
            if (root / name).is_dir():
                if lock.is_current():
                    shutil.rmtree(building)
                yield None
                return
            if lock.is_current():
                yield building
                return


def finish(building: Path, root: Path, name: str) -> None:
    """Rename a finished store to its name, and remove the partial stores of other builders."""
    try:
        os.rename(building, root / name)
        (root / name / _LOCK).unlink()
    except OSError:
        if not (root / name).is_dir():  # otherwise a builder on another machine was first, with the same content
            raise
    for leftover in root.glob(f".{name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_forgotten(root: Path) -> None:
    """Remove partial stores of dead builders that no process resumed within a week."""
    for lock in root.glob(f".*-*/{_LOCK}"):
        with contextlib.suppress(FileNotFoundError):
            newest = max(path.stat().st_mtime for path in [lock.parent, *lock.parent.iterdir()])
            if time.time() - newest > _FORGOTTEN:
                with contextlib.suppress(LockHeld, LocksUnsupported, PermissionError), FileLock(lock):
                    shutil.rmtree(lock.parent, ignore_errors=True)


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


Block = tuple[np.ndarray, np.ndarray, int]
"""Tokens end to end as they are stored, document lengths, and the number of empty documents that were left out."""


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
        return open_store(root / name)
    remove_forgotten(root)
    with sole_builder(root, name) as building:
        if building is not None:
            try:
                _build(corpus, building)
            except Unreachable:
                raise
            except InputError:
                shutil.rmtree(building)
                raise
            except FileNotFoundError:
                if not (
                    root / name
                ).is_dir():  # otherwise a builder on another machine was first, and removed this folder
                    raise
            finish(building, root, name)
    return open_store(root / name)


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
    (folder / "store.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _tokenise(corpus: Corpus, draft: Draft, progress: BuildProgress) -> Tokenizer:
    """Write the rest of the draft and return its tokenizer."""
    if draft.progress.tokenizer:
        tokenizer = saved_tokenizer(draft.folder, draft.progress.tokenizer)
    else:
        progress.enter_stage(f"making the {corpus.tokenizer} tokenizer")
        tokenizer = make_tokenizer(corpus)
        tokenizer.save(draft.folder)
        draft.progress.tokenizer = tokenizer.facts
        draft.write_journal()
    dtype = token_type(tokenizer.vocabulary_size)
    near = corpus.duplicates == "near"
    draft.start(dtype, {"signatures": SIGNATURE} if near else {})
    progress.enter_stage("tokenising")
    for tokens, lengths, empty in token_blocks(corpus, tokenizer, draft.progress.blocks):
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocabulary_size:
            raise ValueError(f"token {tokens.max()} outside a vocabulary of {tokenizer.vocabulary_size}")
        tokens = tokens.astype(dtype)
        rows = {"lengths": lengths, "hashes": content_hashes(tokens, lengths, corpus.split_seed)}
        if near:
            rows["signatures"] = signatures(tokens, lengths)
        if corpus.shuffle_tokens == "document":
            seeds = (corpus.split_seed, 1, draft.progress.blocks)
            tokens = shuffle_documents(tokens, lengths, tokenizer.end_token, seeds)
        draft.append(tokens, empty, **rows)
        progress.count(draft.progress.documents, draft.progress.tokens)
    return tokenizer


def token_blocks(corpus: Corpus, tokenizer: Tokenizer, skip: int = 0) -> Iterator[Block]:
    """Yield the corpus's tokens in its order, after the first `skip` blocks.

    Threads tokenise two blocks ahead while the caller handles the last.
    """
    word_tokens = corpus.word_tokens() if corpus.tokenizer == "word" else None
    if word_tokens is not None:
        yield from ((tokens, lengths, 0) for tokens, lengths in islice(word_tokens, skip, None))
        return
    ahead: deque[Future[Block]] = deque()
    with ThreadPoolExecutor(2) as threads:
        for texts in islice(corpus.texts(), skip, None):
            ahead.append(threads.submit(_encode, tokenizer, texts))
            if len(ahead) > 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _encode(tokenizer: Tokenizer, texts: list[str]) -> Block:
    tokens, lengths = tokenizer.encode([text for text in texts if text and not text.isspace()])
    filled = lengths > 1
    if not filled.all():
        tokens, lengths = tokens[np.repeat(filled, lengths)], lengths[filled]
    return tokens, lengths, len(texts) - len(lengths)


def _store_facts(
    corpus: Corpus, tokenizer: Tokenizer, draft: Draft, split: ValidationSplit, longest: int
) -> dict[str, Any]:
    offsets = np.load(draft.folder / "offsets.npy", mmap_mode="r")
    documents, tokens = len(offsets) - 1, int(offsets[-1])
    # The statistics of the source hold for documents as drawn: not for a choice among them, nor for shuffled tokens.
    as_drawn = corpus.duplicates == "keep" and corpus.shuffle_tokens == "none"
    source = corpus.source_statistics() if as_drawn else None
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
        "dropped_duplicates": draft.progress.documents - documents,
        "longest_document": (source.longest_document if source else None) or longest,
        "tokens_per_document": mean,
        "entropy_per_document": source.entropy_per_document if source else None,
        "entropy_per_token": source.entropy_per_document / mean if source else None,
        "tokenizer": tokenizer.facts,
        "more": corpus.enlarging_setting,
        "settings": corpus.model_dump(mode="json", exclude=set(corpus.usage_settings)),
    }
