"""The tokens of a corpus in its order, written block by block, so that an interrupted build can be resumed.

The journal holds size and checksum of what was written. After a power loss it may be there and the rest not, or with
zeros in its place; a draft that does not have its checksums is begun again.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amscale.data.round_trip import RoundTrip
from amscale.data.tokenizers import Tokenizer

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
    parts: bool = False
    """Whether the documents are parts of one."""
    round_trip: RoundTrip = field(default_factory=RoundTrip)
    written: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Bytes and checksum (CRC-32) of each file, by its name."""


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
        self.progress = _resumable(folder) or DraftProgress()
        if not self.progress.tokenizer:
            self.remove()

    def start(self, dtype: np.dtype, rows: dict[str, np.dtype]) -> None:
        """Open the files for appending.

        Args:
            dtype: type of a token.
            rows: name and type of further values of each document, beside its length and hash.
        """
        self.dtype = dtype
        self._rows = {"lengths": np.dtype(np.int64), "hashes": np.dtype(np.uint64), **rows}
        for path in map(self.path, ("tokens", *self._rows)):
            with path.open("ab") as file:
                file.truncate(self.progress.written.get(path.name, (0, 0))[0])

    def path(self, name: str) -> Path:
        """Return the file of the values of that name."""
        return self.folder / f"draft-{name}.bin"

    def keep_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Save the tokenizer in the draft's folder."""
        tokenizer.save(self.folder)
        self.progress.tokenizer = tokenizer.facts
        for path in self.folder.glob("tokenizer*"):
            content = path.read_bytes()
            self.progress.written[path.name] = len(content), zlib.crc32(content)
        self.write_journal()

    def append(self, tokens: np.ndarray, empty: int, **rows: np.ndarray) -> None:
        """Append one block; it counts once it is in the journal."""
        for name, values in {"tokens": tokens, **rows}.items():
            path, content = self.path(name), values.tobytes()
            with path.open("ab") as file:
                file.write(content)
            size, checksum = self.progress.written.get(path.name, (0, 0))
            self.progress.written[path.name] = size + len(content), zlib.crc32(content, checksum)
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


def _resumable(folder: Path) -> DraftProgress | None:
    """Return how far the draft of a dead builder is; None where there is none, or not with its checksums."""
    try:
        found = DraftProgress(**json.loads((folder / _JOURNAL).read_text(encoding="utf-8")))
        found.round_trip = RoundTrip(**found.round_trip)  # type: ignore[arg-type]  # a mapping, as it was read
        for name, (size, checksum) in found.written.items():
            if _checksum(folder / name, size) != checksum:
                return None
    except (OSError, ValueError, TypeError):  # missing, zeros, or of another version
        return None
    return found if found.written else None


def _checksum(path: Path, size: int) -> int | None:
    """Return the checksum of the first bytes of a file; None if it is shorter."""
    checksum = 0
    with path.open("rb") as file:
        while size and (block := file.read(min(size, 1 << 22))):
            checksum = zlib.crc32(block, checksum)
            size -= len(block)
    return None if size else checksum
