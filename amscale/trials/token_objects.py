"""Token stores as objects: uploaded once by the driver, fetched once by each machine.

A store's name is a hash of all that determines its tokens, so that it never changes. Its checksums go up last.
"""

import json
import os
import shutil
import uuid
from pathlib import Path

from amscale.locks import FileLock, LocksUnsupported
from amscale.trials.checksums import checksums, read_checksums, wrong_files
from amscale.trials.objects import ObjectStore
from amscale.trials.storage_errors import StorageError, storage_errors

_MANIFEST = "checksums.json"


def push_tokens(objects: ObjectStore, store: Path) -> None:
    """Upload a store where it is not there yet.

    Args:
        objects: of the storage; stores are kept under `tokens`.
        store: its folder.
    """
    remote = objects.at("tokens", store.name)
    if remote.entry(_MANIFEST) is not None:
        return
    sums = checksums(store, but=_MANIFEST)
    remote.put_all({name: store / name for name in sums})
    remote.write(_MANIFEST, json.dumps(sums).encode())


def fetch_tokens(objects: ObjectStore, store: Path) -> bool:
    """Fetch a store where this machine lacks it; one process does and the others wait for it.

    On a disk without locks each process fetches a copy, and the first to finish gives the store its name.

    Returns:
        Whether the store is here now: False if there is no such store to fetch.

    Raises:
        StorageError: it is damaged there, or the disk here is full.
    """
    if store.is_dir():
        return True
    remote = objects.at("tokens", store.name)
    sums = read_checksums(remote.read(_MANIFEST))
    if sums is None:
        return False
    with storage_errors(store.parent):
        store.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(store.parent / f".{store.name}-fetch", wait=True):
                if not store.is_dir():
                    _fetch(remote, sums, store, store.parent / f".{store.name}-fetched")
        except LocksUnsupported:
            _fetch(remote, sums, store, store.parent / f".{store.name}-{uuid.uuid4().hex}")
    return True


def _fetch(remote: ObjectStore, sums: dict[str, int], store: Path, beside: Path) -> None:
    shutil.rmtree(beside, ignore_errors=True)
    try:
        remote.get_all({name: beside / name for name in sums})
        if wrong := wrong_files(beside, sums):
            remote.remove([_MANIFEST])
            raise StorageError(
                f"storage damaged: {remote.uri}/{wrong[0]}: not what was uploaded; run the same command again, and "
                "the token store is made anew"
            )
        os.rename(beside, store)
    except OSError:
        if not store.is_dir():  # otherwise another process was first, with the same content
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
