"""Whole checkpoints: written beside their place, with a checksum of every file, and renamed into it.

DeepSpeed reads and writes its checkpoints with pickle: continue only folders that you or your sweeps have written.
"""

import json
import shutil
import sys
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from amscale.training.engine import EngineError

_TAG = "engine"
_PROGRESS = "progress.json"
_MANIFEST = "checksums.json"


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


def newest_whole(accelerator: Accelerator, folder: Path) -> Path | None:
    """The newest whole checkpoint of a trial, or None; all ranks must ask together.

    A damaged one (a file missing, cut short or changed) is passed over with a warning in the log.
    """
    chosen = ""
    for path in reversed(_finished(folder)) if accelerator.is_main_process else ():
        damage = _damage(path)
        if damage is None:
            chosen = path.name
            break
        print(f"warning: checkpoint {path} is damaged ({damage}); falling back to the one before", file=sys.stderr)
    chosen = gather_object([chosen])[0]
    return folder / chosen if chosen else None


def _finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if path.suffix != ".partial")


def _checksums(folder: Path) -> dict[str, int]:
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            value = 0
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    value = zlib.crc32(block, value)
            sums[str(path.relative_to(folder))] = value
    return sums


def _damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        expected = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"no readable {_MANIFEST}"
    found = _checksums(folder)
    wrong = [name for name, value in expected.items() if found.get(name) != value]
    return f"{wrong[0]} is missing or changed" if wrong else None


def save(accelerator: Accelerator, engine: Any, folder: Path, progress: Progress, keep: int) -> None:
    """Write a checkpoint of every rank, rename it into place, and remove all but the newest `keep`.

    A crash at any instant leaves the checkpoints before it whole; a `.partial` folder is never read.
    """
    place = folder / f"step_{progress.step:09d}"
    partial = place.with_suffix(".partial")
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    engine.save_checkpoint(str(partial), tag=_TAG)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (partial / _PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
        (partial / _MANIFEST).write_text(json.dumps(_checksums(partial)), encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
        for old in _finished(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def restore(engine: Any, checkpoint: Path, facts: dict[str, Any]) -> Progress:
    """Load a checkpoint into the engine and return its progress.

    Raises:
        EngineError: it was written by another number of processes, ZeRO stage or precision.
    """
    progress = Progress(**json.loads((checkpoint / _PROGRESS).read_text(encoding="utf-8")))
    different = [
        f"{key} {progress.engine[key]} there, {facts[key]} here"
        for key in ("world_size", "zero_stage", "precision")
        if progress.engine[key] != facts[key]
    ]
    if different:
        raise EngineError(
            f"{checkpoint} cannot be continued: {'; '.join(different)}. Give the same launch settings, or remove the "
            "trial's checkpoints to start it again"
        )
    engine.load_checkpoint(str(checkpoint), tag=_TAG)
    return progress


def remove_all(folder: Path) -> None:
    """Remove the checkpoints of a finished trial: its weights and result stay."""
    shutil.rmtree(folder, ignore_errors=True)
