"""Write to the storage of sweeps, and look for what the other machines wrote."""

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from amscale.trials.location import working_folder
from amscale.trials.objects import ObjectStore, is_uri
from amscale.trials.storage_errors import StorageError


def write(storage: str, token: str, name: str) -> dict[str, Any]:
    """Write a file and read it back; return the seconds that it took and the free bytes, or the error.

    Args:
        storage: a folder or a URI.
        token: name of the folder in which all machines write.
        name: of the file, this machine's.
    """
    try:
        disk = working_folder(storage) if is_uri(storage) else Path(storage)
        disk.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=disk):  # which says why it cannot be written, as an object store does not
            pass
        began = time.perf_counter()
        objects = _objects(storage, token)
        objects.write(name, name.encode())
        if objects.read(name) != name.encode():
            return {"error": f"{storage}: what was written is not what is read"}
        return {"latency": time.perf_counter() - began, "free": shutil.disk_usage(disk).free}
    except StorageError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": f"{storage}: {error.strerror or error}"}


def unseen(storage: str, token: str, names: Sequence[str], seconds: float) -> list[str]:
    """Wait until the files of all machines are seen here; return the names of those that are not.

    Args:
        storage: a folder or a URI.
        token: name of the folder in which all machines have written.
        names: of their files.
        seconds: how long to wait.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen = set(_objects(storage, token).entries())
        except (StorageError, OSError):
            seen = set()
        missing = [name for name in names if name not in seen]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.1)


def forget(storage: str, token: str) -> None:
    """Remove what the machines wrote, as far as it can be removed: it is small."""
    with suppress(StorageError, OSError):
        if is_uri(storage):
            objects = _objects(storage, token)
            objects.remove(objects.entries())
        else:
            shutil.rmtree(Path(storage) / token, ignore_errors=True)


def _objects(storage: str, token: str) -> ObjectStore:
    return ObjectStore(storage if is_uri(storage) else Path(storage).as_uri()).at(token)
