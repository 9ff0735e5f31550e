"""Checksums of the files below a folder, by which a checkpoint or a token store is known to be whole."""

import zlib
from pathlib import Path, PurePosixPath

from amscale.files import parse_json

_BLOCK = 8 << 20
"""Bytes read at a time."""


def checksum(file: Path) -> int:
    """Return the CRC-32 of a file."""
    value = 0
    with file.open("rb") as source:
        while block := source.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def checksums(folder: Path, but: str) -> dict[str, int]:
    """Return the CRC-32 of every file below a folder, by its path in it, without the file `but`."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != but)
    return {path.relative_to(folder).as_posix(): checksum(path) for path in files}


def read_checksums(text: str | bytes | None) -> dict[str, int] | None:
    """Return the checksums of a manifest's text, or None where it is torn, missing, or names a file elsewhere."""
    try:
        sums = parse_json(text or "")
    except ValueError:
        return None
    whole = isinstance(sums, dict) and all(_is_below(n) and isinstance(v, int) for n, v in sums.items())
    return sums if whole else None


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def wrong_files(folder: Path, expected: dict[str, int]) -> list[str]:
    """Return the files that are missing or changed."""
    return [name for name, value in expected.items() if not _has(folder / name, value)]


def _has(file: Path, value: int) -> bool:
    return file.is_file() and checksum(file) == value


def manifest_name(machine: int) -> str:
    """Return the name of the checksums of what one machine wrote of a checkpoint."""
    return "checksums.json" if machine == 0 else f"checksums.machine{machine}.json"


def checkpoint_damage(folder: Path, manifest: str) -> str | None:
    """Return what is wrong with a checkpoint that holds all of its files, or None."""
    try:
        expected = read_checksums((folder / manifest).read_bytes() if (folder / manifest).is_file() else None)
        found = checksums(folder, but=manifest)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    if expected is None:
        return f"no readable {manifest}"
    # A file that is not listed is no part of it either: DeepSpeed reads every file with the right name.
    wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return f"{wrong[0]} is missing or changed" if wrong else None
