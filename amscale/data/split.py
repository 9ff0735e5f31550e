"""Hold documents out for validation, and write all in the order of the store; no list of them is held in memory."""

import os
from pathlib import Path

import numpy as np

from amscale.data.buckets import Buckets, bucket_count, bucket_of
from amscale.data.corpus import Corpus
from amscale.data.draft import Draft
from amscale.errors import InputError
from amscale.settings import format_size

_RECORD = np.dtype([("key", np.uint64), ("length", np.int64)])


class ValidationSplit:
    """Decide which documents are held out for validation.

    Under the `content` split they are those with the least content hashes. A hash does not depend on how frequent or
    how long a document is, so each is as likely as any other to be held out and the mean loss over the held-out ones
    estimates the source's without bias; and all copies of a document have one hash, so they are all on one side.
    """

    def __init__(self, corpus: Corpus, draft: Draft, kept: np.ndarray | None) -> None:
        """Find the documents to hold out.

        Args:
            kept: whether each document is kept [documents]; None keeps all.

        Raises:
            InputError: there are no documents, or none is left to train on.
        """
        self._last = corpus.split == "last"
        total = draft.progress.documents if kept is None else int(kept.sum())
        if total == 0:
            raise InputError(
                f"data: the {corpus.corpus} corpus has no documents ({draft.progress.empty} empty left out); "
                f"give text by {corpus.enlarging_setting}"
            )
        if total == 1:
            raise InputError(
                f"data.validation: the {corpus.corpus} corpus is one document of {format_size(draft.progress.tokens)} "
                "tokens, too short to hold a part of it out; give two documents, or one of some hundred characters, "
                f"by {corpus.enlarging_setting}"
            )
        wanted = int(corpus.validation) if corpus.validation >= 1 else max(1, round(corpus.validation * total))
        if self._last:
            self._first = _nth_kept(kept, total - wanted) if wanted < total else 0
            left = max(0, total - wanted)
        else:
            self._threshold = _nth_least_hash(draft, kept, wanted) if wanted < total else np.uint64(2**64 - 1)
            left = sum(
                int((~self.held_out(first, hashes) & _kept_rows(kept, first, len(hashes))).sum())
                for first, hashes in draft.hashes()
            )
        if left == 0 and len(np.unique(np.concatenate([np.unique(hashes) for _, hashes in draft.hashes()]))) == 1:
            raise InputError(
                f"data.validation: the {total} documents of the {corpus.corpus} corpus are copies of one, and copies "
                f"are kept together: nothing can be held out; give others by {corpus.enlarging_setting}"
            )
        if left == 0:
            raise InputError(
                f"data.validation: holding out {corpus.validation} of {total} documents (copies kept together) "
                f"leaves none to train on; lower it or give more by {corpus.enlarging_setting}"
            )
        self.training_documents = left
        self.validation_documents = total - left

    def held_out(self, first: int, hashes_N: np.ndarray) -> np.ndarray:
        """Return whether each of the documents `first`, `first + 1`, … with these content hashes [N] is held out."""
        if self._last:
            return np.arange(first, first + len(hashes_N)) >= self._first
        return hashes_N <= self._threshold


def write_in_order(corpus: Corpus, draft: Draft, split: ValidationSplit, kept: np.ndarray | None) -> int:
    """Write tokens.bin and offsets.npy: training documents in random order, then the held-out ones likewise.

    Every document draws a random key, and the order is that of the keys: documents are scattered over files by their
    keys, and each file is sorted.

    Returns:
        The length of the longest document.
    """
    folder = draft.folder
    count = bucket_count(draft.progress.tokens * draft.dtype.itemsize)
    tokens = Buckets(folder / "draft-ordering-tokens", draft.dtype)
    records = Buckets(folder / "draft-ordering-records", _RECORD)
    bits = np.random.Philox(np.random.SeedSequence([corpus.split_seed]))
    for chunk in draft.chunks():
        keys = bits.random_raw(len(chunk.lengths))
        bucket = bucket_of(keys, count).astype(np.int64) + count * split.held_out(chunk.first, chunk.hashes)
        wanted = np.flatnonzero(_kept_rows(kept, chunk.first, len(keys)))
        wanted = wanted[np.argsort(bucket[wanted], kind="stable")]
        found, starts = np.unique(bucket[wanted], return_index=True)
        for number, chosen in zip(found.tolist(), np.split(wanted, starts[1:]), strict=True):
            row = np.empty(len(chosen), dtype=_RECORD)
            row["key"], row["length"] = keys[chosen], chunk.lengths[chosen]
            records.append(number, row.tobytes())
            tokens.append(number, _join_documents(chunk.tokens, chunk.lengths, chosen))
    with (folder / "tokens.bin").open("wb") as out, (folder / "draft-offsets.bin").open("wb") as offsets:
        end = longest = 0
        offsets.write(np.int64(0).tobytes())
        for row, content in zip(records.take_all(2 * count), tokens.take_all(2 * count), strict=True):
            order = np.argsort(row["key"], kind="stable")
            if len(order):
                out.write(_join_documents(content, row["length"], order))
                ends = end + np.cumsum(row["length"][order])
                offsets.write(ends.tobytes())
                end, longest = int(ends[-1]), max(longest, int(row["length"].max()))
    _write_npy(folder / "draft-offsets.bin", folder / "offsets.npy")
    return longest


def _join_documents(tokens: np.ndarray, lengths: np.ndarray, chosen: np.ndarray) -> bytes:
    """Return the tokens of the chosen documents end to end, by slices of a memoryview: a quarter of an array's cost."""
    view = tokens.data.cast("B")
    stops = np.cumsum(lengths) * tokens.itemsize
    starts = stops - lengths * tokens.itemsize
    return b"".join(view[i:j] for i, j in zip(starts[chosen].tolist(), stops[chosen].tolist(), strict=True))


def _write_npy(raw: Path, path: Path) -> None:
    count = raw.stat().st_size // 8
    with path.open("wb") as file, raw.open("rb") as source:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (count,)})
        file.flush()
        while block := source.read(1 << 20):
            file.write(block)
    os.unlink(raw)


def _kept_rows(kept: np.ndarray | None, first: int, count: int) -> np.ndarray:
    return np.ones(count, dtype=bool) if kept is None else kept[first : first + count]


def _nth_kept(kept: np.ndarray | None, n: int) -> int:
    return n if kept is None else int(np.flatnonzero(kept)[n])


def _nth_least_hash(draft: Draft, kept: np.ndarray | None, wanted: int) -> np.uint64:
    """Return the `wanted`-th least content hash: its upper 16 bits by counting, the rest among equals of these."""
    counts = np.zeros(1 << 16, dtype=np.int64)
    for first, hashes in draft.hashes():
        chosen = hashes[_kept_rows(kept, first, len(hashes))]
        counts += np.bincount((chosen >> np.uint64(48)).astype(np.int64), minlength=1 << 16)
    ends = np.cumsum(counts)
    upper = int(np.searchsorted(ends, wanted))
    sharing = np.concatenate(
        [h[_kept_rows(kept, f, len(h)) & (h >> np.uint64(48) == np.uint64(upper))] for f, h in draft.hashes()]
    )
    rank = wanted - 1 - int(ends[upper] - counts[upper])
    return np.partition(sharing, rank)[rank]
