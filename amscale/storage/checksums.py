"""Checksums of the files below a folder, and what is wrong with them."""

import zlib
from pathlib import Path, PurePosixPath

from amscale.reading import parse_json

_BLOCK = 4 << 20


def checksum(file: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def checksums(folder: Path, but: str) -> dict[str, int]:
    """CRC-32 of every file below a folder, by its path in it, but for the file `but` itself."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != but)
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}


def read(text: str | bytes | None) -> dict[str, int] | None:
    """Checksums from a manifest's text, or None where it is torn, missing, or names a file elsewhere."""
    try:
        sums = parse_json(text or "")
    except ValueError:
        return None
    whole = isinstance(sums, dict) and all(_is_below(n) and isinstance(v, int) for n, v in sums.items())
    return sums if whole else None


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def wrong(folder: Path, expected: dict[str, int]) -> list[str]:
    """The files that are missing or changed."""
    return [name for name, value in expected.items() if not _is(folder / name, value)]


def _is(file: Path, value: int) -> bool:
    return file.is_file() and checksum(file) == value
