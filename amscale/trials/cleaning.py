"""The checkpoints of a sweep: what they take, and their removal."""

import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from amscale.errors import no_sweep
from amscale.trials import lease
from amscale.trials.objects import ObjectStore, is_uri
from amscale.trials.storage_errors import storage_errors
from amscale.trials.sweep_store import SweepStore

_KEY = re.compile(r"trials/([^/]+)/checkpoints/([^/]+)/.+")
_STEP = re.compile(r"step_([0-9]{9})")


@dataclass(frozen=True)
class TrialCheckpoints:
    """The checkpoints of one trial; unfinished ones count too."""

    label: str
    checkpoints: int
    bytes: int
    steps: int
    """Of the newest whole one."""
    done: bool
    """Whether the trial has its result, and needs none of them."""


def clean_sweep(address: str, remove: bool) -> list[TrialCheckpoints]:
    """Return the checkpoints of every trial that has some, and remove them where that is wanted.

    Args:
        address: a sweep's folder or URI.
        remove: whether to remove them; otherwise nothing changes.

    Raises:
        InputError: no sweep, or one that a driver runs.
        StorageError: storage is read-only or out of reach.
    """
    return _clean_objects(ObjectStore(address), remove) if is_uri(address) else _clean_folder(Path(address), remove)


def _clean_folder(path: Path, remove: bool) -> list[TrialCheckpoints]:
    if not (path / "sweep.yaml").is_file():
        raise no_sweep(path)
    sweep = SweepStore(path)
    if not remove:
        return _in_folder(sweep)
    with sweep.owned():
        found = _in_folder(sweep)
        with storage_errors(path):
            for each in found:
                shutil.rmtree(sweep.trial(each.label).checkpoints)
    return found


def _in_folder(sweep: SweepStore) -> list[TrialCheckpoints]:
    found = []
    for trial in sweep.all_trials():
        if trial.checkpoints.is_dir() and not trial.checkpoints.is_symlink():
            sizes = [file.lstat().st_size for file in trial.checkpoints.rglob("*") if file.is_file()]
            names = [entry.name for entry in trial.checkpoints.iterdir()]
            if names:
                found.append(_counted(trial.path.name, names, sum(sizes), trial.done()))
    return found


def _clean_objects(objects: ObjectStore, remove: bool) -> list[TrialCheckpoints]:
    if objects.entry("sweep.yaml") is None:
        raise no_sweep(objects.uri)
    if not remove:
        return _in_objects(objects)[0]
    with lease.held(objects):
        found, keys = _in_objects(objects)
        # A checkpoint's manifests first, so that it never looks whole when it is not.
        objects.remove(sorted(keys, key=lambda key: "checksums" not in key))
    return found


def _in_objects(objects: ObjectStore) -> tuple[list[TrialCheckpoints], list[str]]:
    entries = objects.entries("trials")
    sizes, names = defaultdict[str, int](int), defaultdict[str, set[str]](set)
    keys = []
    for key, entry in entries.items():
        if match := _KEY.fullmatch(key):
            keys.append(key)
            sizes[match[1]] += entry.size
            names[match[1]].add(match[2])
    found = [
        _counted(label, sorted(names[label]), size, f"trials/{label}/result.json" in entries)
        for label, size in sizes.items()
    ]
    return found, keys


def _counted(label: str, names: list[str], size: int, done: bool) -> TrialCheckpoints:
    steps = [int(match[1]) for name in names if (match := _STEP.fullmatch(name))]
    return TrialCheckpoints(label, len(names), size, max(steps, default=0), done)
