"""Exact and near-duplicates: which documents are the first among theirs.

Near-duplicates are found by MinHash (Broder 1997) with bands: a signature of 128 values estimates the Jaccard
similarity of two documents' sets of 5-token runs; documents that agree in all 4 values of one of 32 bands are compared
by their signatures. Documents at least as similar as wanted are near-duplicates, and so are, in turn, all that a chain
of such pairs connects. A pair of similarity
s agrees in a band with probability 1 - (1 - s^4)^32, 0.9999999 at 0.8. Within a band, a document is compared with the
first and with the previous one of equal values.
"""

import os

import numpy as np

from amscale.data.buckets import Buckets, bucket_count, bucket_of
from amscale.data.draft import Draft
from amscale.errors import InputError

_RUN = 5
_VALUES = 128
_BANDS = 32
SIGNATURE = np.dtype((np.uint32, _VALUES))
_RECORD = np.dtype([("key", np.uint64), ("document", np.int64)])
_ROWS = 1 << 14


def first_exact_duplicates(draft: Draft) -> np.ndarray:
    """Return whether each document is the first with its content hash [documents]; one byte of memory each."""
    documents = draft.progress.documents
    count = bucket_count(documents * _RECORD.itemsize)
    buckets = Buckets(draft.folder / "draft-exact", _RECORD)
    for first, hashes in draft.hashes():
        buckets.add(bucket_of(hashes, count), _records(hashes, first))
    kept = np.zeros(documents, dtype=bool)
    for records in buckets.take_all(count):
        _, where = np.unique(records["key"], return_index=True)  # records of a file are in the corpus's order
        kept[records["document"][where]] = True
    return kept


def signatures(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return MinHash values of each document's 5-token runs [documents, 128]; a shorter document is one run.

    Raises:
        InputError: the package rensa is not installed.
    """
    try:
        from rensa import RMinHash
    except ImportError:
        raise InputError("data.duplicates: near needs the package rensa; pip install rensa, or use exact") from None

    if len(lengths) == 0:
        return np.zeros((0, _VALUES), dtype=np.uint32)
    runs = np.maximum(lengths - _RUN + 1, 1)
    stops = np.cumsum(runs)
    ends = np.cumsum(lengths)
    starts = np.arange(stops[-1]) + np.repeat(ends - lengths - (stops - runs), runs)
    limits = np.repeat(ends, runs)
    hashes = np.zeros(len(starts), dtype=np.uint64)
    for step in range(_RUN):
        inside = starts + step < limits
        here = tokens[np.where(inside, starts + step, 0)].astype(np.uint64) + np.uint64(1)
        hashes = _mix(hashes + np.where(inside, here, np.uint64(0)))
    offsets = np.concatenate([[0], stops]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, _VALUES, 0)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(lengths), _VALUES)


def first_near_duplicates(draft: Draft, similarity: float) -> np.ndarray:
    """Return whether each document is the first among its near-duplicates [documents]; about nine bytes each."""
    documents = draft.progress.documents
    count = bucket_count(documents * _BANDS * _RECORD.itemsize)
    buckets = Buckets(draft.folder / "draft-bands", _RECORD)
    first = 0
    with draft.path("signatures").open("rb") as file:
        while len(rows := np.fromfile(file, np.uint32, _ROWS * _VALUES).reshape(-1, _VALUES)):
            for band, values in enumerate(np.split(rows, _BANDS, axis=1)):
                keys = np.full(len(rows), band + 1, dtype=np.uint64)
                for value in values.T:
                    keys = _mix(keys + value.astype(np.uint64))
                buckets.add(bucket_of(keys, count), _records(keys, first))
            first += len(rows)
    groups = _DisjointSets(documents)
    with draft.path("signatures").open("rb") as file:
        for records in buckets.take_all(count):
            for one, other in _candidates(records):
                if groups.find(one) != groups.find(other) and _similarity(file.fileno(), one, other) >= similarity:
                    groups.union(one, other)
    return groups.parents == np.arange(documents)


def _candidates(records: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of documents with equal keys: each document with the first and with the previous one of its key."""
    records = records[np.lexsort((records["document"], records["key"]))]
    document, again = records["document"], np.flatnonzero(records["key"][1:] == records["key"][:-1]) + 1
    starts = np.flatnonzero(np.diff(records["key"], prepend=records["key"][:1] + np.uint64(1)))
    leader = document[starts[np.searchsorted(starts, again, side="right") - 1]] if len(starts) else document[:0]
    pairs = np.concatenate(
        [np.stack([document[again - 1], document[again]], axis=1), np.stack([leader, document[again]], axis=1)]
    )
    return [tuple(pair) for pair in np.unique(pairs, axis=0).tolist()]


def _similarity(file: int, one: int, other: int) -> float:
    a, b = (np.frombuffer(os.pread(file, 4 * _VALUES, 4 * _VALUES * row), dtype=np.uint32) for row in (one, other))
    return float((a == b).mean())


def _records(keys: np.ndarray, first: int) -> np.ndarray:
    records = np.empty(len(keys), dtype=_RECORD)
    records["key"], records["document"] = keys, np.arange(first, first + len(keys))
    return records


def _mix(x: np.ndarray) -> np.ndarray:
    """Scatter the bits of each number over all 64 (the finaliser of splitmix64)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class _DisjointSets:
    """Disjoint sets of documents (union-find), each represented by its first document."""

    def __init__(self, documents: int) -> None:
        self.parents = np.arange(documents)

    def find(self, document: int) -> int:
        """Return the first document of the set that holds this one."""
        while (parent := int(self.parents[document])) != document:
            self.parents[document] = self.parents[parent]
            document = parent
        return document

    def union(self, one: int, other: int) -> None:
        """Unite the sets of two documents."""
        first, second = sorted((self.find(one), self.find(other)))
        self.parents[second] = first
