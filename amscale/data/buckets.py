"""Buckets: sort and shuffle more records than memory holds; token shuffling as a control."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

_BUCKET = 1 << 25
"""Bytes of a file, about."""


def bucket_count(size: int) -> int:
    """Return how many files `size` bytes are scattered over."""
    return -(-size // _BUCKET) or 1


def bucket_of(keys_N: np.ndarray, count: int) -> np.ndarray:
    """Return the file of each key [N] of 64 random bits: keys of a file lie between those of its neighbours."""
    return ((keys_N >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)


class Buckets:
    """Files of records of one type; each file keeps the order in which its records are added."""

    def __init__(self, folder: Path, dtype: np.dtype) -> None:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():  # left by a builder that died
            path.unlink()
        self.folder = folder
        self.dtype = dtype

    def add(self, bucket_N: np.ndarray, records_N: np.ndarray) -> None:
        """Append each record to the file of its bucket."""
        order = np.argsort(bucket_N, kind="stable")
        found, starts = np.unique(bucket_N[order], return_index=True)
        for bucket, chosen in zip(found.tolist(), np.split(order, starts[1:]), strict=True):
            self.append(bucket, records_N[chosen].tobytes())

    def append(self, bucket: int, records: bytes) -> None:
        """Append records to the file of one bucket, which is open only meanwhile: any number of buckets is possible."""
        with self._path(bucket).open("ab") as file:
            file.write(records)

    def take(self, bucket: int) -> np.ndarray:
        """Return the records of one bucket and remove its file."""
        path = self._path(bucket)
        if not path.exists():
            return np.zeros(0, dtype=self.dtype)
        records = np.fromfile(path, dtype=self.dtype)
        path.unlink()
        return records

    def take_all(self, count: int) -> Iterator[np.ndarray]:
        """Yield the records of each bucket in turn, then remove the folder."""
        for bucket in range(count):
            yield self.take(bucket)
        self.folder.rmdir()

    def _path(self, bucket: int) -> Path:
        return self.folder / f"{bucket}.bin"


_CHUNK = 1 << 22
"""Tokens read at a time."""


def shuffle_documents(tokens: np.ndarray, lengths: np.ndarray, end_token: int, seeds: tuple[int, ...]) -> np.ndarray:
    """Return the tokens with those of each document in random order, end tokens where they were.

    Args:
        tokens: documents end to end [tokens].
        lengths: tokens of each document, end token included [documents].
        seeds: of the order.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))
    keys = generator.random(len(tokens))
    keys[tokens == end_token] = 2  # after all others of its document
    return tokens[np.lexsort((keys, np.repeat(np.arange(len(lengths)), lengths)))]


def shuffle_corpus(path: Path, dtype: np.dtype, end_token: int, seed: int) -> None:
    """Put all tokens of a file but the end tokens in random order; every order is equally likely.

    Each token goes to a random one of several files, each file is shuffled in memory, and they are read in turn.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 2])))
    count = bucket_count(path.stat().st_size)
    buckets = Buckets(path.with_name("draft-shuffling"), dtype)
    with path.open("rb") as file:
        while len(tokens := np.fromfile(file, dtype, _CHUNK)):
            moving = tokens[tokens != end_token]
            buckets.add(generator.integers(0, count, size=len(moving)), moving)
    shuffled = path.with_name("draft-shuffled.bin")
    with shuffled.open("wb") as out:
        for part in buckets.take_all(count):
            out.write(generator.permutation(part).tobytes())
    result = path.with_name("draft-result.bin")
    with path.open("rb") as file, shuffled.open("rb") as source, result.open("wb") as out:
        while len(tokens := np.fromfile(file, dtype, _CHUNK)):
            moving = tokens != end_token
            tokens[moving] = np.fromfile(source, dtype, int(moving.sum()))
            out.write(tokens.tobytes())
    shuffled.unlink()
    result.replace(path)
