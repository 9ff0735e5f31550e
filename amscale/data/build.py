"""From a corpus to its token store: tokenise, split, order, write; once, and whole or not at all."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from amscale.data.settings import CorpusSettings
from amscale.data.store import FORMAT, TokenStore, open_store, token_type
from amscale.data.tokenizers import Tokenizer, make_tokenizer, tokenizer_identity
from amscale.errors import InputError

_COPY = 4096
"""Documents that are copied at once into their final order."""

Block = tuple[np.ndarray, np.ndarray, int]
"""Tokens end to end with end tokens, document lengths, and the number of empty documents that were left out."""


def store_name(settings: CorpusSettings) -> str:
    """The folder name of a store: a hash of all that determines its tokens and their split."""
    identity = {"format": FORMAT, **settings.identity(), "tokenizer": tokenizer_identity(settings.tokenizer)}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def prepare(settings: CorpusSettings, root: Path | str) -> TokenStore:
    """The store of a corpus under `root`, built if it is not there yet.

    Tokens are streamed; memory holds one block of text and about 100 bytes a document. Processes that build the same
    store at once each build it whole, and the first to finish gives it its name.

    Raises:
        InputError: a corpus or a tokenizer that cannot be read, or too few distinct documents to hold any out.
    """
    root = Path(root)
    folder = root / store_name(settings)
    if folder.is_dir():
        return open_store(folder)
    building = root / f".{folder.name}-{uuid.uuid4().hex}"
    building.mkdir(parents=True)
    try:
        _build(settings, building)
        try:
            os.rename(building, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return open_store(folder)


def _build(settings: CorpusSettings, folder: Path) -> None:
    tokenizer = make_tokenizer(settings)
    dtype = token_type(tokenizer.vocabulary_size)
    corpus_order = folder / "corpus_order.bin"
    lengths, hashes, empty = _write_tokens(settings, tokenizer, corpus_order, dtype)
    order, held_out = _split(settings, hashes)
    _reorder(corpus_order, folder / "tokens.bin", dtype, lengths, order)
    corpus_order.unlink()
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64))
    tokenizer.save(folder)
    facts = _facts(settings, tokenizer, lengths, held_out, empty)
    (folder / "store.json").write_text(json.dumps(facts, indent=2) + "\n")


def _blocks(settings: CorpusSettings, tokenizer: Tokenizer) -> Iterator[Block]:
    word_tokens = settings.word_tokens() if settings.tokenizer == "word" else None
    if word_tokens is not None:
        for tokens, lengths in word_tokens:
            yield tokens, lengths, 0
        return
    end = np.array([tokenizer.end_token])
    for texts in settings.texts():
        documents = [ids for ids in tokenizer.encode([text for text in texts if text.strip()]) if len(ids)]
        lengths = np.array([len(ids) + 1 for ids in documents], dtype=np.int64)
        tokens = np.concatenate([part for ids in documents for part in (ids, end)]) if documents else end[:0]
        yield tokens, lengths, len(texts) - len(documents)


def _write_tokens(
    settings: CorpusSettings, tokenizer: Tokenizer, path: Path, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, int]:
    """Writes the tokens in the corpus's order; returns document lengths, content hashes, and the number left out."""
    key = settings.split_seed.to_bytes(16, "little")
    all_lengths, all_hashes, empty = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)], 0
    with path.open("wb") as file:
        for tokens, lengths, left_out in _blocks(settings, tokenizer):
            if len(tokens) and not 0 <= tokens.min() <= tokens.max() < tokenizer.vocabulary_size:
                raise ValueError(f"token {tokens.max()} outside a vocabulary of {tokenizer.vocabulary_size}")
            block = tokens.astype(dtype).tobytes()
            file.write(block)
            view, stops = memoryview(block), np.cumsum(lengths) * dtype.itemsize
            digests = b"".join(
                hashlib.blake2b(view[start:stop], digest_size=8, key=key).digest()
                for start, stop in zip((stops - lengths * dtype.itemsize).tolist(), stops.tolist(), strict=True)
            )
            all_lengths.append(lengths)
            all_hashes.append(np.frombuffer(digests, dtype="<u8"))
            empty += left_out
    return np.concatenate(all_lengths), np.concatenate(all_hashes), empty


def _split(settings: CorpusSettings, hashes: np.ndarray) -> tuple[np.ndarray, int]:
    """The order of documents in the store, training ones first, and the number of validation ones.

    The documents with the least content hashes are held out. A hash knows nothing of how frequent or how long a
    document is, so each is as likely as any other to be held out and the mean loss over the held-out ones estimates
    the source's without bias; and all copies of a document have one hash, so none stands on both sides.
    """
    total = len(hashes)
    wanted = settings.validation if settings.validation >= 1 else max(1, round(settings.validation * total))
    if total == 0:
        raise InputError(f"data: the {settings.corpus} corpus has no documents; raise {settings.more}")
    held_out = np.ones(total, dtype=bool)
    if wanted < total:
        held_out = hashes <= np.partition(hashes, int(wanted) - 1)[int(wanted) - 1]
    if held_out.all():
        raise InputError(
            f"data.validation: holding out {settings.validation} of {total} documents (copies kept together) "
            f"leaves none to train on; lower it or raise {settings.more}"
        )
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([settings.split_seed])))
    order = generator.permutation(total)
    return np.concatenate([order[~held_out[order]], order[held_out[order]]]), int(held_out.sum())


def _reorder(source: Path, target: Path, dtype: np.dtype, lengths: np.ndarray, order: np.ndarray) -> None:
    """Copies the documents into the store's order, so that every subset is one run of the file."""
    tokens = np.memmap(source, dtype=dtype, mode="r")
    stops = np.cumsum(lengths)
    with target.open("wb") as file:
        for start in range(0, len(order), _COPY):
            chosen = order[start : start + _COPY]
            pieces = [tokens[stops[i] - lengths[i] : stops[i]] for i in chosen]
            file.write(np.concatenate(pieces).tobytes())


def _facts(
    settings: CorpusSettings, tokenizer: Tokenizer, lengths: np.ndarray, held_out: int, empty: int
) -> dict[str, Any]:
    known = settings.known_entropy()
    tokens_per_document = float(lengths.mean())
    if known is not None and known.tokens_per_document is not None:
        tokens_per_document = known.tokens_per_document
    return {
        "format": FORMAT,
        "vocabulary_size": tokenizer.vocabulary_size,
        "end_token": tokenizer.end_token,
        "tokens": int(lengths.sum()),
        "documents": len(lengths),
        "training_documents": len(lengths) - held_out,
        "validation_documents": held_out,
        "empty_documents": empty,
        "longest_document": int(lengths.max()),
        "tokens_per_document": tokens_per_document,
        "entropy_per_document": known.per_document if known else None,
        "entropy_per_token": known.per_document / tokens_per_document if known else None,
        "tokenizer": tokenizer.facts,
        "more": settings.more,
        "settings": settings.model_dump(mode="json", exclude={"size", "packing", "context"}),
    }
