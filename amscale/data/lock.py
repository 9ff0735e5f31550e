"""Let one process at a time build a token store: a partial store belongs to the process that holds its lock.

The lock ends with its process, however that ends, so that the folder of a dead builder can be resumed.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

_LOCK = "lock"
_FORGOTTEN = 7 * 86400
"""Seconds after which a partial store that no process resumed is removed."""


@contextlib.contextmanager
def sole_builder(root: Path, name: str) -> Iterator[Path | None]:
    """Yield the folder in which this process alone builds the store `name`, with what a dead builder finished of it.

    Yield None once the store exists. Another builder on this machine is waited for. Builders on several machines have
    one folder each, since not every shared disk has locks across machines; the first to finish names the store. On a
    disk without locks every builder has a folder, and those of dead ones are removed when the store is finished.
    """
    building = root / f".{name}-{socket.gethostname()}"
    while True:
        building.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(building / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # another builder removed or renamed the folder in between
            continue
        try:
            if not _locked(lock):
                building = root / f".{name}-{uuid.uuid4().hex}"
                building.mkdir()
                (building / _LOCK).touch()
                yield building
                return
            ours = _is_at(lock, building / _LOCK)
            if (root / name).is_dir():
                if ours:
                    shutil.rmtree(building)
                yield None
                return
            if ours:
                yield building
                return
        finally:
            os.close(lock)


def _locked(lock: int) -> bool:
    """Wait for the lock; False on a disk that has none."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        raise
    return True


def _is_at(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def finish(building: Path, root: Path, name: str) -> None:
    """Rename a finished store to its name, and remove the partial stores of other builders."""
    try:
        os.rename(building, root / name)
        (root / name / _LOCK).unlink()
    except OSError:
        if not (root / name).is_dir():  # otherwise a builder on another machine was first, with the same content
            raise
    for leftover in root.glob(f".{name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_forgotten(root: Path) -> None:
    """Remove partial stores of dead builders that no process resumed within a week."""
    for lock in root.glob(f".*-*/{_LOCK}"):
        with contextlib.suppress(FileNotFoundError):
            newest = max(path.stat().st_mtime for path in [lock.parent, *lock.parent.iterdir()])
            if time.time() - newest > _FORGOTTEN:
                with lock.open() as file, contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(lock.parent, ignore_errors=True)
