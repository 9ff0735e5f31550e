"""A corpus's tokens in its own order, written block by block, so that a build that was cut short can go on."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK = 1 << 24
"""Tokens that are read back at once, unless one document is longer."""
_ROWS = 1 << 16
"""Documents whose lengths are read back at once."""
_JOURNAL = "draft.json"


@dataclass
class Progress:
    """How far a draft has come."""

    tokenizer: dict[str, Any] = field(default_factory=dict)
    """The facts of the tokenizer, which is saved beside."""
    blocks: int = 0
    tokens: int = 0
    documents: int = 0
    empty: int = 0
    """Documents without tokens, left out."""


@dataclass(frozen=True)
class Chunk:
    """Some documents in the order of the corpus."""

    first: int
    """Index of the first of them."""
    tokens: np.ndarray
    lengths: np.ndarray
    hashes: np.ndarray


class Draft:
    """Tokens, and length and content hash of each document, in files that only grow."""

    def __init__(self, folder: Path) -> None:
        """Take up what a dead builder left in the folder, if anything; half a block that it left is cut off."""
        self.folder = folder
        self.progress = Progress()
        journal = folder / _JOURNAL
        if journal.exists():
            self.progress = Progress(**json.loads(journal.read_text()))

    def start(self, dtype: np.dtype, rows: dict[str, np.dtype]) -> None:
        """Open the files for appending.

        Args:
            dtype: of the tokens.
            rows: name and type of what is kept for each document beside its length and hash.
        """
        self.dtype = dtype
        self._rows = {"lengths": np.dtype(np.int64), "hashes": np.dtype(np.uint64), **rows}
        _cut(self.path("tokens"), self.progress.tokens * dtype.itemsize)
        for name, kind in self._rows.items():
            _cut(self.path(name), self.progress.documents * kind.itemsize)

    def path(self, name: str) -> Path:
        return self.folder / f"draft-{name}.bin"

    def append(self, tokens: np.ndarray, empty: int, **rows: np.ndarray) -> None:
        """Append one block; it counts once the journal says so."""
        for name, values in {"tokens": tokens, **rows}.items():
            with self.path(name).open("ab") as file:
                file.write(values.tobytes())
        self.progress.blocks += 1
        self.progress.tokens += len(tokens)
        self.progress.documents += len(rows["lengths"])
        self.progress.empty += empty
        self.note()

    def note(self) -> None:
        """Write the journal, whole or not at all."""
        draft = self.folder / f"{_JOURNAL}.new"
        draft.write_text(json.dumps(asdict(self.progress)))
        os.replace(draft, self.folder / _JOURNAL)

    def hashes(self) -> Iterator[np.ndarray]:
        """The content hashes of the documents in order, some at a time."""
        with self.path("hashes").open("rb") as file:
            while len(hashes := np.fromfile(file, np.uint64, _ROWS)):
                yield hashes

    def chunks(self) -> Iterator[Chunk]:
        """The documents in order, some at a time."""
        first = 0
        names = ("tokens", "lengths", "hashes")
        tokens, lengths, hashes = (self.path(name).open("rb") for name in names)
        with tokens, lengths, hashes:
            while len(row_lengths := np.fromfile(lengths, np.int64, _ROWS)):
                row_hashes = np.fromfile(hashes, np.uint64, _ROWS)
                group = np.cumsum(row_lengths) // _CHUNK
                cuts = np.flatnonzero(np.diff(group, prepend=-1))
                for start, stop in zip(cuts, [*cuts[1:], len(group)], strict=True):
                    some = row_lengths[start:stop]
                    content = np.fromfile(tokens, self.dtype, int(some.sum()))
                    yield Chunk(int(first + start), content, some, row_hashes[start:stop])
                first += len(row_lengths)

    def remove(self) -> None:
        for path in self.folder.glob("draft*"):
            path.unlink()


def content_hashes(tokens: np.ndarray, lengths: np.ndarray, seed: int) -> np.ndarray:
    """64 bits for each document that depend on its tokens and the seed alone."""
    key = seed.to_bytes(16, "little")
    view = memoryview(tokens.tobytes())
    stops = np.cumsum(lengths) * tokens.itemsize
    digests = b"".join(
        hashlib.blake2b(view[start:stop], digest_size=8, key=key).digest()
        for start, stop in zip((stops - lengths * tokens.itemsize).tolist(), stops.tolist(), strict=True)
    )
    return np.frombuffer(digests, dtype=np.uint64)


def _cut(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.truncate(size)
