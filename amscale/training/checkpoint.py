"""Whole checkpoints: written beside their place, with a checksum of every file, and renamed into it.

DeepSpeed reads its checkpoints with pickle, which can run code. Here torch is told to take tensors, plain data and
three named classes of DeepSpeed's alone, and a checkpoint is whole only if it holds exactly the files on its list.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from pydantic import TypeAdapter

from amscale.errors import one_line
from amscale.files import parse_json
from amscale.training.engine import EngineError
from amscale.trials.attempt import AttemptGuard
from amscale.trials.objects import checksums, read_checksums
from amscale.trials.storage_errors import storage_error_in
from amscale.trials.stored import StoredTrial, manifest

_TAG = "engine"
_PROGRESS = "progress.json"
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@dataclass
class Progress:
    """Where a run is: all that is not in the engine and cannot be derived from (seed, step)."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0
    validation_least: float = float("inf")
    validation_least_step: int = 0
    validations_since_least: int = 0
    engine: dict[str, Any] = field(default_factory=dict)


def newest_whole(accelerator: Accelerator, folder: Path, stored: StoredTrial | None = None) -> Path | None:
    """The newest whole checkpoint of a trial, or None; all ranks must ask together.

    A damaged one (a file missing, cut short or changed) is passed over with a warning in the log.

    Args:
        folder: the trial's checkpoints on this machine.
        stored: where the trial's objects are its record: each machine fetches from them what it lacks.
    """
    if stored is not None:
        return _newest_stored(accelerator, folder, stored)
    chosen = ""
    for path in reversed(_finished(folder)) if accelerator.is_main_process else ():
        damage = _damage(path)
        if damage is None:
            chosen = path.name
            break
        _warn(str(path), damage)
    chosen = gather_object([chosen])[0]
    return folder / chosen if chosen else None


def _newest_stored(accelerator: Accelerator, folder: Path, stored: StoredTrial) -> Path | None:
    names = gather_object([stored.whole_checkpoints() if accelerator.is_main_process else []])[0]
    for name in names:
        damage = stored.fetch_checkpoint(name) if accelerator.is_local_main_process else None
        damages = [found for found in gather_object([damage]) if found]
        if not damages:
            return folder / name
        if accelerator.is_main_process:
            _warn(name, damages[0])
    return None


def _warn(checkpoint: str, damage: str) -> None:
    print(f"warning: checkpoint {checkpoint} is damaged ({damage}); falling back to the one before", file=sys.stderr)


def _finished(folder: Path) -> list[Path]:
    """Checkpoints that were renamed into place, oldest first; a link is none, wherever it leads."""
    if not folder.is_dir():
        return []
    paths = (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return sorted(path for path in paths if re.fullmatch("step_[0-9]{9}", path.name))


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    file = folder / manifest(0)
    try:
        expected = read_checksums(file.read_bytes() if file.is_file() else None)
        found = checksums(folder, but=file.name)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    if expected is None:
        return f"no readable {file.name}"
    # A file that is not listed is no part of it either: DeepSpeed reads whatever bears the right name.
    wrong = sorted(
        name for name in {*expected, *found, _PROGRESS} if name not in found or expected.get(name) != found[name]
    )
    if wrong:
        return f"{one_line(wrong[0], most=200)} is missing or changed"
    return None if _read_progress(folder) else f"no readable {_PROGRESS}"


def _read_progress(checkpoint: Path) -> Progress | None:
    try:
        return TypeAdapter(Progress).validate_python(parse_json((checkpoint / _PROGRESS).read_bytes()))
    except (OSError, ValueError):  # a ValidationError is a ValueError
        return None


def save(
    accelerator: Accelerator,
    engine: Any,
    folder: Path,
    progress: Progress,
    keep: int,
    fence: AttemptGuard,
    stored: StoredTrial | None = None,
) -> None:
    """Write a checkpoint of every rank, rename it into place, and remove all but the newest `keep`.

    A crash at any instant leaves the checkpoints before it whole; a `.partial` folder is never read, and belongs to one
    start of the trial. With objects each machine writes its own ranks' files into a folder of its own and uploads them.

    Raises:
        StorageError: the disk is full, read-only or the like; what was written of the checkpoint is removed.
    """
    place = folder / f"step_{progress.step:09d}"
    partial = folder / f"{place.name}-{fence.start}.partial"
    writes = accelerator.is_local_main_process if stored else accelerator.is_main_process
    fence.check()
    try:
        if writes:
            for old in folder.glob("*.partial"):
                shutil.rmtree(old, ignore_errors=True)
            partial.mkdir(parents=True)
        if stored and accelerator.is_main_process:
            fence.check_objects()
            stored.remove_checkpoint(place.name)
        accelerator.wait_for_everyone()
        engine.save_checkpoint(str(partial), tag=_TAG)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            (partial / _PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
        if writes:
            name = manifest(stored.machine if stored else 0)
            (partial / name).write_text(json.dumps(checksums(partial, but=name)), encoding="utf-8")
            fence.check()
            shutil.rmtree(place, ignore_errors=True)
            partial.rename(place)
            for old in _finished(folder)[:-keep]:
                shutil.rmtree(old, ignore_errors=True)
    except Exception as error:
        # Asked while the torn file still takes its space: torch names no error number.
        told = storage_error_in(error, partial if partial.is_dir() else folder)
        if told is None:
            raise
        shutil.rmtree(partial, ignore_errors=True)
        raise told from error
    if stored:
        if writes:
            stored.push_checkpoint(place.name)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            stored.keep_checkpoints(keep)
    accelerator.wait_for_everyone()


def restore(engine: Any, checkpoint: Path, facts: dict[str, Any]) -> Progress:
    """Load a checkpoint into the engine and return its progress.

    Raises:
        EngineError: it was written by another number of processes, ZeRO stage or precision, or holds more than tensors
            and DeepSpeed's own classes.
    """
    progress = _read_progress(checkpoint)
    if progress is None:
        raise EngineError(f"{checkpoint} cannot be continued: no readable {_PROGRESS}")
    different = [
        f"{key} {progress.engine.get(key)!r} there, {facts[key]!r} here"
        for key in ("world_size", "zero_stage", "precision")
        if progress.engine.get(key) != facts[key]
    ]
    if different:
        raise EngineError(
            f"{checkpoint} cannot be continued: {'; '.join(different)}. Give the same launch settings, or remove the "
            "trial's checkpoints to start it again"
        )
    try:
        with _tensors_only():
            engine.load_checkpoint(str(checkpoint), tag=_TAG)
    except UnpicklingError as error:
        reason = one_line(str(error), most=300)
        raise EngineError(
            f"{checkpoint} cannot be continued: it holds more than DeepSpeed writes ({reason}). Remove it to continue "
            "from the one before"
        ) from None
    return progress


@contextmanager
def _tensors_only() -> Iterator[None]:
    """While the block runs, torch loads no other classes from files than those that DeepSpeed writes.

    DeepSpeed asks torch for everything (`weights_only=False`); this variable of torch's overrules what a caller asks.
    """
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


def remove_all(folder: Path) -> None:
    """Remove the checkpoints of a finished trial: its weights and result stay."""
    shutil.rmtree(folder, ignore_errors=True)
