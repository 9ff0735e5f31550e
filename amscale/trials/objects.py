"""Checksums of the files below a folder, by which a checkpoint or a token store is known to be whole.

Objects under a URI that `pyarrow.fs` understands, whole or absent: `s3://`, `gs://`, `abfs://`, `file://`.

An object store shows an object when it is complete, and replaces the old one by the new one at once. On file systems
that do not, a file is written under another name and renamed.

Credentials are the environment's (for S3: AWS_ACCESS_KEY_ID and its like, a profile, or the machine's role).
"""

import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from amscale.errors import InputError
from amscale.files import parse_json
from amscale.trials.storage_errors import OutOfReach

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


def checkpoint_damage(folder: Path, manifest: str, part: tuple[int, int] = (0, 1)) -> str | None:
    """Return what is wrong with a checkpoint that holds all of its files, or None.

    Args:
        folder: of the checkpoint.
        manifest: name of the file with its checksums.
        part: (i, n): read every n-th file, from the i-th on; the first part also compares the names of all.
    """
    try:
        expected = read_checksums((folder / manifest).read_bytes() if (folder / manifest).is_file() else None)
        if expected is None:
            return f"no readable {manifest}"
        wrong = []
        if part[0] == 0:
            # A file that is not listed is no part of it either: DeepSpeed reads every file with the right name.
            paths = (path for path in folder.rglob("*") if path.is_file() and path.name != manifest)
            wrong = sorted({*expected} ^ {path.relative_to(folder).as_posix() for path in paths})
        wrong = wrong or wrong_files(folder, {name: expected[name] for name in sorted(expected)[part[0] :: part[1]]})
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    return f"{wrong[0]} is missing or changed" if wrong else None


_AT_A_TIME = 8
_RENAMED = ("local", "hdfs")
"""File systems that show a file while it is being written."""


def is_uri(storage: str) -> bool:
    """Return whether storage is named by a URI, and not by a folder."""
    return "://" in storage


@dataclass(frozen=True)
class Entry:
    """One object."""

    size: int
    """Bytes."""
    changed: int
    """When it was written, by the store's clock, in nanoseconds since 1970."""


@dataclass(frozen=True)
class ObjectStore:
    """The objects under a URI; keys are relative to it, with `/` between their parts.

    Every method raises OutOfReach, one line, when the store cannot be reached or refuses.
    """

    uri: str

    @cached_property
    def _root(self) -> tuple[Any, str]:
        """Return the file system and the path in it.

        Raises:
            InputError: the URI is wrong, or holds a password.
            OutOfReach: the store cannot be reached.
        """
        from pyarrow import ArrowException
        from pyarrow.fs import FileSystem

        check_uri(self.uri)
        try:
            system, path = FileSystem.from_uri(self.uri)
        except (ArrowException, ValueError) as error:
            raise InputError(f"storage={self.uri!r}: {_first_line(error)}; see docs/storage.md") from None
        except OSError as error:
            raise OutOfReach(f"storage out of reach: {self.uri}: {_first_line(error)}") from None
        return system, path.rstrip("/")

    def at(self, *parts: str) -> "ObjectStore":
        """Return the objects under a longer key."""
        address = urlsplit(self.uri)
        path = "/".join([address.path.rstrip("/"), *parts])
        return ObjectStore(address._replace(path=path).geturl())

    def read(self, key: str) -> bytes | None:
        """Return an object's content, or None if there is no such object."""
        with self._reached(key):
            try:
                with self._system.open_input_stream(self._path(key)) as stream:
                    return bytes(stream.read())
            except FileNotFoundError:
                return None

    def write(self, key: str, content: bytes) -> None:
        """Make or replace an object: others see the old one or the new one, whole."""
        with self._reached(key), self._written(key) as stream:
            stream.write(content)

    def put(self, file: Path, key: str) -> None:
        """Make or replace an object from a file; a big one goes up in parts."""
        with file.open("rb") as source:
            first = source.read(_BLOCK)
            with self._reached(key), self._written(key) as stream:
                while first:
                    stream.write(first)
                    first = source.read(_BLOCK)

    def get(self, key: str, file: Path) -> None:
        """Fetch an object; the file gets its name when it is whole, and the object's time.

        Raises:
            FileNotFoundError: no such object.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(descriptor, "wb") as out, self._reached(key):
                stream = self._system.open_input_stream(self._path(key))
                while block := stream.read(_BLOCK):
                    out.write(block)
                stream.close()
            os.chmod(beside, 0o644)
            os.replace(beside, file)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

    def entry(self, key: str) -> Entry | None:
        """Return size and time of an object, or None if there is no such object."""
        from pyarrow.fs import FileType

        with self._reached(key):
            info = self._system.get_file_info(self._path(key))
        return _entry(info) if info.type == FileType.File else None

    def entries(self, key: str = "") -> dict[str, Entry]:
        """Return all objects under a key, by their keys."""
        from pyarrow.fs import FileSelector, FileType

        below = self._path(key)
        with self._reached(key):
            found = self._system.get_file_info(FileSelector(below, recursive=True, allow_not_found=True))
        start = len(self._path("")) + 1
        return {info.path[start:]: _entry(info) for info in found if info.type == FileType.File}

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; a missing one is no error."""
        for key in keys:
            with self._reached(key):
                try:
                    self._system.delete_file(self._path(key))
                except FileNotFoundError:
                    continue

    def put_all(self, files: dict[str, Path]) -> None:
        """Put files by their keys, several at a time; returns when all are there."""
        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            for done in [threads.submit(self.put, file, key) for key, file in files.items()]:
                done.result()

    def get_all(self, files: dict[str, Path]) -> None:
        """Get files by their keys, several at a time; returns when all are there."""
        with ThreadPoolExecutor(_AT_A_TIME) as threads:
            for done in [threads.submit(self.get, key, file) for key, file in files.items()]:
                done.result()

    @property
    def _system(self) -> Any:
        return self._root[0]

    def _path(self, key: str) -> str:
        return f"{self._root[1]}/{key}" if key else self._root[1]

    @contextmanager
    def _written(self, key: str) -> Iterator[Any]:
        path = self._path(key)
        beside = path
        if self._system.type_name in _RENAMED:
            folder, _, name = path.rpartition("/")
            self._system.create_dir(folder, recursive=True)
            beside = f"{folder}/.{name}.{os.urandom(4).hex()}"
        stream = self._system.open_output_stream(beside)
        try:
            yield stream
            stream.close()
        except BaseException:
            # Closing makes visible what was written so far, and so does dropping the stream; where the store itself
            # failed, closing fails too and nothing is visible.
            with suppress(OSError):
                stream.close()
                self._system.delete_file(beside)
            raise
        if beside != path:
            self._system.move(beside, path)

    @contextmanager
    def _reached(self, key: str) -> Iterator[None]:
        from pyarrow import ArrowException

        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ArrowException) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the local disk's own
                raise
            address = urlsplit(self.uri)
            at = address._replace(path=f"{address.path.rstrip('/')}/{key}").geturl()
            raise OutOfReach(f"storage out of reach: {at}: {_first_line(error)}") from None


def check_uri(uri: str) -> None:
    """Check that a URI holds no name or password.

    Raises:
        InputError: it has one; the message does not repeat it.
    """
    address = urlsplit(uri)
    # abfs://container@account… names a container there.
    if address.password is not None or (address.username and address.scheme not in ("abfs", "abfss")):
        raise InputError(
            f"storage='{address.scheme}://…@{address.netloc.rpartition('@')[2]}{address.path}': a name or password in "
            "a URI ends up in files and logs; give credentials in the environment"
        )


def _entry(info: Any) -> Entry:
    return Entry(int(info.size), int(info.mtime_ns or 0))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
