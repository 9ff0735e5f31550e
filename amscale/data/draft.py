"""The tokens of a corpus in its order, written block by block, so that an interrupted build can be resumed."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK = 1 << 24
"""Tokens read back at a time, unless one document is longer."""
_ROWS = 1 << 16
"""Documents whose lengths are read back at a time."""
_JOURNAL = "draft.json"


@dataclass
class DraftProgress:
    """How much of a draft is written."""

    tokenizer: dict[str, Any] = field(default_factory=dict)
    """Facts of the tokenizer, which is saved in the same folder."""
    blocks: int = 0
    tokens: int = 0
    documents: int = 0
    empty: int = 0
    """Documents without tokens, left out."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive documents in the order of the corpus."""

    first: int
    """Index of the first document."""
    tokens: np.ndarray
    lengths: np.ndarray
    hashes: np.ndarray


class Draft:
    """Files that only grow: tokens, and length and content hash of each document."""

    def __init__(self, folder: Path) -> None:
        """Resume what a dead builder left in the folder, if anything; a partial block is cut off."""
        self.folder = folder
        self.progress = DraftProgress()
        journal = folder / _JOURNAL
        if journal.exists():
            self.progress = DraftProgress(**json.loads(journal.read_text(encoding="utf-8")))

    def start(self, dtype: np.dtype, rows: dict[str, np.dtype]) -> None:
        """Open the files for appending.

        Args:
            dtype: type of a token.
            rows: name and type of further values of each document, beside its length and hash.
        """
        self.dtype = dtype
        self._rows = {"lengths": np.dtype(np.int64), "hashes": np.dtype(np.uint64), **rows}
        _truncate(self.path("tokens"), self.progress.tokens * dtype.itemsize)
        for name, kind in self._rows.items():
            _truncate(self.path(name), self.progress.documents * kind.itemsize)

    def path(self, name: str) -> Path:
        """Return the file of the values of that name."""
        return self.folder / f"draft-{name}.bin"

    def append(self, tokens: np.ndarray, empty: int, **rows: np.ndarray) -> None:
        """Append one block; it counts once it is in the journal."""
        for name, values in {"tokens": tokens, **rows}.items():
            with self.path(name).open("ab") as file:
                file.write(values.tobytes())
        self.progress.blocks += 1
        self.progress.tokens += len(tokens)
        self.progress.documents += len(rows["lengths"])
        self.progress.empty += empty
        self.write_journal()

    def write_journal(self) -> None:
        """Write the journal, whole or not at all."""
        draft = self.folder / f"{_JOURNAL}.new"
        draft.write_text(json.dumps(asdict(self.progress)), encoding="utf-8")
        os.replace(draft, self.folder / _JOURNAL)

    def hashes(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the content hashes of the documents in order, some at a time, each time with the first one's index."""
        first = 0
        with self.path("hashes").open("rb") as file:
            while len(hashes := np.fromfile(file, np.uint64, _ROWS)):
                yield first, hashes
                first += len(hashes)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the documents in order, some at a time."""
        first = 0
        names = ("tokens", "lengths", "hashes")
        tokens, lengths, hashes = (self.path(name).open("rb") for name in names)
        with tokens, lengths, hashes:
            while len(row_lengths := np.fromfile(lengths, np.int64, _ROWS)):
                row_hashes = np.fromfile(hashes, np.uint64, _ROWS)
                group = np.cumsum(row_lengths) // _CHUNK
                cuts = np.flatnonzero(np.diff(group, prepend=-1))
                for start, stop in zip(cuts, [*cuts[1:], len(group)], strict=True):
                    part = row_lengths[start:stop]
                    content = np.fromfile(tokens, self.dtype, int(part.sum()))
                    yield Chunk(int(first + start), content, part, row_hashes[start:stop])
                first += len(row_lengths)

    def remove(self) -> None:
        """Delete the files of the draft."""
        for path in self.folder.glob("draft*"):
            path.unlink()


def content_hashes(tokens: np.ndarray, lengths: np.ndarray, seed: int) -> np.ndarray:
    """Return 64 bits for each document [documents] that depend on its tokens and the seed alone."""
    key = seed.to_bytes(16, "little")
    view = memoryview(tokens.tobytes())
    stops = np.cumsum(lengths) * tokens.itemsize
    digests = b"".join(
        hashlib.blake2b(view[start:stop], digest_size=8, key=key).digest()
        for start, stop in zip((stops - lengths * tokens.itemsize).tolist(), stops.tolist(), strict=True)
    )
    return np.frombuffer(digests, dtype=np.uint64)


def _truncate(path: Path, size: int) -> None:
    with path.open("ab") as file:
        file.truncate(size)
