"""Failing storage in one line that names where, why and what to do."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from amscale.errors import InputError
from amscale.files import removed_if_empty

_SENTENCES = {
    errno.ENOSPC: ("storage full", "free space"),
    errno.EDQUOT: ("storage quota used up", "free space or ask for more"),
    errno.EROFS: ("storage read-only", "make it writable"),
    errno.EACCES: ("storage not writable", "get the right to write there"),
    errno.EPERM: ("storage not writable", "get the right to write there"),
}
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_KINDS = "|".join(sorted({kind for kind, _ in _SENTENCES.values()}))
_LINE = re.compile(f"^(?:train: )?((?:{_KINDS}): .*)$", re.MULTILINE)
_PROBE_BYTES = 1 << 16


class StorageError(InputError):
    """Storage that is full, read-only, forbidden or out of reach: one line."""


class OutOfReach(StorageError):
    """Objects that cannot be reached, a store that refuses, or a folder that a machine does not see as others do.

    Trying again may help.
    """


def sentence(number: int, path: Path | str) -> str:
    """Return the line for an error number of the system."""
    kind, advice = _SENTENCES[number]
    return f"{kind}: {path}: {os.strerror(number)}; {advice} and run the same command again"


def error_in_log(text: str) -> str | None:
    """Return the first such line in a log, or None."""
    found = _LINE.search(text)
    return found.group(1) if found else None


def check_writable(folder: Path) -> StorageError | None:
    """Return why a folder takes no file just now, or None: write one, to the disk, and remove it.

    A library that reports "file write failed" and no error number, or a process that could not even log why it ended,
    leaves no other way to know.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in _SENTENCES:
            return StorageError(sentence(error.errno, folder))
    return None


def make_folder(folder: Path, setting: str) -> None:
    """Make a folder for outputs if it is missing.

    Args:
        setting: what named it, as the user wrote it.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a ValueError: a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{setting}: no folder can be made there ({reason}); give a writable folder") from None


def check_outputs(folder: Path, files: Sequence[str], folders: Sequence[str], advice: str) -> None:
    """Check that a command can write its outputs into a folder, before it does the work that they are of.

    Args:
        folder: a folder that exists.
        files: names of files in it that will be replaced, or made.
        folders: names of folders in it that will be made, or written into.
        advice: what to do otherwise.

    Raises:
        InputError: the folder or one in it takes no file, or something else is in the way; ends in the advice.
    """
    for name in files:
        if (folder / name).is_dir():
            raise InputError(f"{folder / name} is a folder and in the way of a file; {advice}")
    for path in (folder, *(folder / name for name in folders if (folder / name).exists())):
        if not path.is_dir():
            raise InputError(f"{path} is a file and in the way of a folder; {advice}")
        if (error := check_writable(path)) is not None:
            raise InputError(f"{str(error).partition(';')[0]}; {advice}")


@contextmanager
def output_folder(
    folder: Path, setting: str, files: Sequence[str], folders: Sequence[str], advice: str
) -> Iterator[None]:
    """Have a folder for outputs while the block runs; one that was made, and that the block left empty, is removed.

    Args:
        setting: what named it, as the user wrote it.
        files, folders, advice: as for `check_outputs`.

    Raises:
        InputError: it cannot be made or written; said before the block.
    """
    with removed_if_empty(folder):
        make_folder(folder, setting)
        check_outputs(folder, files, folders, advice)
        yield


def storage_error_in(error: BaseException, folder: Path) -> StorageError | None:
    """Return what an exception tells about failing storage, or None.

    Args:
        error: it, its causes and its contexts are looked at.
        folder: where the failed write probably went: the path to name where the exception has none, and to try where
            the exception has no error number.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, StorageError):
            return link
        found = _from_system(link, folder)
        if found is not None:
            return found
        link = link.__cause__ or link.__context__
    return check_writable(folder)


def _from_system(error: BaseException, folder: Path) -> StorageError | None:
    if not isinstance(error, OSError):  # safetensors and torch raise other exceptions, with the system's message
        number = next((number for number in _DISK_ERRORS if os.strerror(number) in str(error)), None)
        return None if number is None else StorageError(sentence(number, folder))
    if error.errno not in _SENTENCES:
        return None
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else folder
    # A corpus that may not be read is no matter of storage.
    if error.errno not in _DISK_ERRORS and not path.is_relative_to(folder):
        return None
    return StorageError(sentence(error.errno, path))


def disk_error(error: OSError) -> StorageError | None:
    """Return what a failed write tells about a full or read-only disk, where the folder is not known; or None."""
    if error.errno not in _DISK_ERRORS:
        return None
    return StorageError(sentence(error.errno, error.filename or "the disk of the output"))


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn failed writes into `StorageError`; other exceptions pass."""
    try:
        yield
    except OSError as error:
        found = _from_system(error, folder)
        if found is None:
            raise
        raise found from None
