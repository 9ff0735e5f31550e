"""Files between a machine and the objects of a sweep: small files and token stores, fetched and uploaded."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from amscale.files import sync_folder
from amscale.locks import FileLock, LocksUnsupported
from amscale.trials.objects import Entry, ObjectStore, checksums, read_checksums, wrong_files
from amscale.trials.storage_errors import StorageError, storage_errors

_BIG = ("checkpoints", "model.safetensors")
_OF_TRIALS = ("trials", "tensorboard")
_RECORDS = ("*.jsonl", "log*.txt", "tb/*")


def pull(objects: ObjectStore, folder: Path, wanted: Callable[[str], bool] = lambda key: True) -> None:
    """Fetch the small objects that are new and wanted. Remove a result here that is no longer there."""
    found = fetch_new(objects, folder, wanted)
    with storage_errors(folder):
        for result in [folder / "result.json", *folder.glob("trials/*/result.json")]:
            if result.is_file() and result.relative_to(folder).as_posix() not in found:
                result.unlink()


def fetch_new(objects: ObjectStore, folder: Path, wanted: Callable[[str], bool] = lambda key: True) -> dict[str, Entry]:
    """Fetch the small objects that are new and wanted; return all that are wanted, by their keys."""
    found = {key: entry for key, entry in objects.entries().items() if _is_small(key) and wanted(key)}
    with storage_errors(folder):
        new = {key: folder / key for key, entry in found.items() if not _is_same(folder / key, entry)}
        objects.get_all(new)
        for key, file in new.items():
            os.utime(file, ns=(found[key].changed, found[key].changed))
    return found


def push_records(objects: ObjectStore, folder: Path) -> None:
    """Upload what one machine has of a trial's records: metrics, curves, logs, failures.

    Leaves out the result, which comes last of all, and the marker files, which are for this machine alone.
    """
    files = _files(folder, "checkpoints").items()
    objects.put_all({key: file for key, file in files if any(PurePosixPath(key).match(p) for p in _RECORDS)})


@contextmanager
def uploaded(objects: ObjectStore, folder: Path) -> Iterator[None]:
    """Upload what the block writes into a sweep's folder, beside its trials and the links of TensorBoard to them."""
    before = {key: _state(file) for key, file in _files(folder, *_OF_TRIALS).items()}
    yield
    files = _files(folder, *_OF_TRIALS)
    objects.put_all({key: file for key, file in files.items() if before.get(key) != _state(file)})


def _files(folder: Path, *but: str) -> dict[str, Path]:
    """Return the files below a folder by their keys, without folders of these names and without unfinished files."""
    found = {}
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in but]
        for name in names:
            if not name.startswith(".") and not name.endswith(".partial"):
                file = Path(at) / name
                found[file.relative_to(folder).as_posix()] = file
    return found


def _state(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns


def _is_small(key: str) -> bool:
    path = PurePosixPath(key)
    hidden = any(part.startswith(".") for part in path.parts)  # and `..`
    return not hidden and not path.is_absolute() and not any(part in _BIG for part in path.parts)


def _is_same(file: Path, entry: Entry) -> bool:
    try:
        return _state(file) == (entry.size, entry.changed)
    except FileNotFoundError:
        return False


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
        sync_folder(beside)  # with its name it is trusted, whatever happens to the machine
        os.rename(beside, store)
    except OSError:
        if not store.is_dir():  # otherwise another process was first, with the same content
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
