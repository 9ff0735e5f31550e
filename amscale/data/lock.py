"""Let one process at a time build a token store: a partial store belongs to the process that holds its lock.

The lock ends with its process, however that ends, so that the folder of a dead builder can be resumed.
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
                with contextlib.suppress(LockHeld, LocksUnsupported), FileLock(lock):
                    shutil.rmtree(lock.parent, ignore_errors=True)
