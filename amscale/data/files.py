"""Local text files: which they are, what they hold, and blocks of documents to tokenise at once."""

import glob
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from amscale.errors import InputError

_BLOCK = 1 << 22
"""Characters of text in a block, unless a single document is longer."""
_SMALL = 1 << 26
"""Bytes of a file up to which its fingerprint is its whole content."""
_PIECES, _PIECE = 64, 1 << 15
"""Bytes at either end of a larger file that are part of its fingerprint."""


def find_files(patterns: str | Sequence[str], key: str = "data.files") -> list[Path]:
    """The files that paths or patterns match, sorted and each once.

    Raises:
        InputError: a pattern matches no file, or there is no pattern.
    """
    found: set[Path] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = {Path(name) for name in glob.glob(str(Path(pattern).expanduser()), recursive=True)}
        matches = {path for path in matches if path.is_file()}
        if not matches:
            raise InputError(f"{key}: {pattern!r} matches no file from {Path.cwd()}; give paths or patterns that do")
        found |= matches
    if not found:
        raise InputError(f"{key} is empty; give at least one path or pattern")
    return sorted(found)


def fingerprint(path: Path) -> str:
    """What tells a file from a changed one, wherever it lies.

    Its content; of more than 64 MiB, whose reading would delay every plan, the size and 64 pieces of 32 KiB from the
    beginning to the end. Not the time of the last change: a copy on another disk is the same corpus.

    Raises:
        InputError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        status = path.stat()
        with path.open("rb") as file:
            if status.st_size <= _SMALL:
                while block := file.read(1 << 20):
                    digest.update(block)
                return digest.hexdigest()
            digest.update(f"{status.st_size}:".encode())
            for piece in range(_PIECES):
                file.seek((status.st_size - _PIECE) * piece // (_PIECES - 1))
                digest.update(file.read(_PIECE))
    except OSError as error:
        raise InputError(f"data.files: {path} cannot be read ({error.strerror}); leave it out") from None
    return digest.hexdigest()


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file with their line ends, without a byte order mark.

    Raises:
        InputError: the file cannot be read, or is no UTF-8 text; the file and the line.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise InputError(
                        f"data.files: {path} is not text (line {number} holds zero bytes); give UTF-8 text files"
                    )
                yield line
    except UnicodeDecodeError as error:
        raise InputError(
            f"data.files: {path} is not UTF-8 text (line {_bad_line(path)}: {error.reason}); give UTF-8 text files"
        ) from None
    except OSError as error:
        raise InputError(f"data.files: {path} cannot be read ({error.strerror}); leave it out") from None


def _bad_line(path: Path) -> int:
    """The first line that does not decode: the decoder reads many lines at once and cannot tell."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    raise ValueError(f"{path} has become UTF-8 text")


def blocks(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents in lists of about four million characters."""
    block: list[str] = []
    held = 0
    for document in documents:
        block.append(document)
        held += len(document) + 1
        if held >= _BLOCK:
            yield block
            block, held = [], 0
    if block:
        yield block
