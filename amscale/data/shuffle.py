"""Shuffle tokens: the same tokens, lengths and end tokens without the structure, as a control."""

from pathlib import Path

import numpy as np

from amscale.data.buckets import Buckets, bucket_count

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
