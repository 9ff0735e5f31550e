"""Token stores as objects: uploaded once by the driver, fetched once by each machine.

A store's name is a hash of all that determines its tokens, so that it never changes. Its checksums go up last.
"""

import fcntl
import json
import os
import shutil
from pathlib import Path

from amscale.trials.objects import ObjectStore, checksums, read_checksums, wrong_files
from amscale.trials.storage_errors import StorageError, storage_errors

_MANIFEST = "checksums.json"


def push_tokens(objects: ObjectStore, store: Path) -> None:
    """Upload a store where it is not there yet.

    Args:
        objects: of the storage; stores are kept under `tokens`.
        store: its folder.
    """
    place = objects.at("tokens", store.name)
    if place.entry(_MANIFEST) is not None:
        return
    sums = checksums(store, but=_MANIFEST)
    place.put_all({name: store / name for name in sums})
    place.write(_MANIFEST, json.dumps(sums).encode())


def fetch_tokens(objects: ObjectStore, store: Path) -> bool:
    """Fetch a store where this machine lacks it; one process does and the others wait for it.

    Returns:
        Whether the store is here now: False if there is none to fetch.

    Raises:
        StorageError: it is damaged there, or the disk here is full.
    """
    if store.is_dir():
        return True
    place = objects.at("tokens", store.name)
    sums = read_checksums(place.read(_MANIFEST))
    if sums is None:
        return False
    with storage_errors(store.parent):
        store.parent.mkdir(parents=True, exist_ok=True)
        beside = store.parent / f".{store.name}-fetched"
        with open(store.parent / f".{store.name}-fetch", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if store.is_dir():
                return True
            shutil.rmtree(beside, ignore_errors=True)
            place.get_all({name: beside / name for name in sums})
            if wrong := wrong_files(beside, sums):
                place.remove([_MANIFEST])
                raise StorageError(
                    f"storage damaged: {place.uri}/{wrong[0]}: not what was uploaded; run the same command again, and "
                    "the token store is made anew"
                )
            os.rename(beside, store)
    return True
