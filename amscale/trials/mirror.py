"""The small files of a sweep: fetched to where they are read, uploaded from where they are written.

Everything below a sweep is small but checkpoints and weights, which only the machines of a trial need.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from amscale.errors import InputError
from amscale.trials.folder import TrialFolder
from amscale.trials.objects import Entry, ObjectStore, is_uri
from amscale.trials.place import working_folder
from amscale.trials.storage_errors import storage_errors

_BIG = ("checkpoints", "model.safetensors")
_RECORDS = ("*.jsonl", "log*.txt", "tb/*")


def pull(objects: ObjectStore, folder: Path, wanted: Callable[[str], bool] = lambda key: True) -> None:
    """Fetch what is wanted, small and new. A result that is no longer there is removed here too."""
    found = {key: entry for key, entry in objects.entries().items() if _is_small(key) and wanted(key)}
    with storage_errors(folder):
        new = {key: folder / key for key, entry in found.items() if not _is_same(folder / key, entry)}
        objects.get_all(new)
        for key, file in new.items():
            os.utime(file, ns=(found[key].changed, found[key].changed))
        for result in [folder / "result.json", *folder.glob("trials/*/result.json")]:
            if result.is_file() and result.relative_to(folder).as_posix() not in found:
                result.unlink()


def push_records(objects: ObjectStore, folder: TrialFolder) -> None:
    """Upload what one machine has of a trial's records: metrics, curves, logs, failed starts.

    Not its result, which comes last of all, nor the marks of a start, which are of this machine alone.
    """
    files = _files(folder.path).items()
    objects.put_all({key: file for key, file in files if any(PurePosixPath(key).match(p) for p in _RECORDS)})


@contextmanager
def sweep_at(sweep: str) -> Iterator[Path]:
    """The folder of a sweep that is named by a folder or by a URI.

    Of a URI the small files are fetched first, and what the block writes beside the trials is uploaded after it.
    """
    if not is_uri(sweep):
        with storage_errors(Path(sweep)):
            yield Path(sweep)
        return
    objects = ObjectStore(sweep)
    if objects.entry("sweep.yaml") is None:
        raise InputError(f"{sweep}: not a sweep; give <storage>/<name> of a sweep")
    folder = working_folder(sweep)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        pull(objects, folder)
        with uploaded(objects, folder):
            yield folder


@contextmanager
def uploaded(objects: ObjectStore, folder: Path) -> Iterator[None]:
    """Upload what the block writes into a sweep's folder, beside its trials."""
    before = {key: _state(file) for key, file in _files(folder, but="trials").items()}
    yield
    files = _files(folder, but="trials")
    objects.put_all({key: file for key, file in files.items() if before.get(key) != _state(file)})


def _files(folder: Path, but: str = "checkpoints") -> dict[str, Path]:
    """Files below a folder by their keys, but for one folder and for files in the making (their names have a dot)."""
    found = {}
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != but]
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
