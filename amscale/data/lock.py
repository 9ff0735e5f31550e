"""One builder a store: a folder under construction belongs to the process that holds its lock.

The lock goes when its process does, however it ends, so that a dead builder's folder is told from a live one's.
"""

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from amscale.locks import FileLock, LockHeld, LocksUnsupported

_LOCK = "lock"
_FORGOTTEN = 7 * 86400
"""Seconds after which a folder that nobody builds on is given up."""


@contextlib.contextmanager
def sole_builder(root: Path, name: str) -> Iterator[Path | None]:
    """The folder in which this process alone builds the store `name`, with what a dead builder had finished of it.

    None once the store is there. Waits for another builder of this machine. Builders on several machines have a folder
    each, since not every shared disk has locks that reach across them; the first to finish gives the store its name.
    On a disk without any locks so has every builder, and what a dead one leaves is removed with the store's completion.
    """
    building = root / f".{name}-{socket.gethostname()}"
    while True:
        building.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(building / _LOCK, wait=True)
        except FileNotFoundError:  # another builder removed or renamed the folder in between
            continue
        except LocksUnsupported:
            building = root / f".{name}-{uuid.uuid4().hex}"
            building.mkdir()
            (building / _LOCK).touch()
            yield building
            return
        with lock:
            if (root / name).is_dir():
                if lock.is_current():
                    shutil.rmtree(building)
                yield None
                return
            if lock.is_current():
                yield building
                return


def finish(building: Path, root: Path, name: str) -> None:
    """Give a finished store its name, and remove what other builders have of it."""
    try:
        os.rename(building, root / name)
        (root / name / _LOCK).unlink()
    except OSError:
        if not (root / name).is_dir():  # otherwise a builder on another machine was first, with the same content
            raise
    for leftover in root.glob(f".{name}-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_forgotten(root: Path) -> None:
    """Remove half-built stores of dead builders that nobody has taken up for a week."""
    for lock in root.glob(f".*-*/{_LOCK}"):
        with contextlib.suppress(FileNotFoundError):
            newest = max(path.stat().st_mtime for path in [lock.parent, *lock.parent.iterdir()])
            if time.time() - newest > _FORGOTTEN:
                with contextlib.suppress(LockHeld, LocksUnsupported), FileLock(lock):
                    shutil.rmtree(lock.parent, ignore_errors=True)
