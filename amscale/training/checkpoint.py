"""Whole checkpoints: written beside their place and renamed into it, newest first when read."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from amscale.training.engine import EngineError

_TAG = "engine"


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


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a trial, or None."""
    whole = sorted(path for path in folder.glob("step_*") if path.suffix != ".partial")
    return whole[-1] if whole else None


def save(accelerator: Accelerator, engine: Any, folder: Path, progress: Progress, keep: int) -> None:
    """Write a checkpoint of every rank, rename it into place, and remove all but the newest `keep`.

    A crash at any instant leaves the checkpoints before it whole; a `.partial` folder is never read.
    """
    place = folder / f"step_{progress.step:09d}"
    partial = place.with_suffix(".partial")
    if accelerator.is_local_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    engine.save_checkpoint(str(partial), tag=_TAG)
    if accelerator.is_local_main_process:
        (partial / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
    accelerator.wait_for_everyone()
    if accelerator.is_local_main_process and partial.exists():
        partial.rename(place)
        whole = sorted(path for path in folder.glob("step_*") if path.suffix != ".partial")
        for old in whole[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()


def restore(engine: Any, checkpoint: Path, facts: dict[str, Any]) -> Progress:
    """Load a checkpoint into the engine and return its progress.

    Raises:
        EngineError: it was written by another number of processes, ZeRO stage or precision.
    """
    progress = Progress(**json.loads((checkpoint / "progress.json").read_text(encoding="utf-8")))
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
