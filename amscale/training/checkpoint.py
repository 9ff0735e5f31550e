"""Whole checkpoints: written under another name, with a checksum of every file, and then renamed.

DeepSpeed reads its checkpoints with pickle, which can run code. Here torch takes only tensors, plain data and three
named classes of DeepSpeed's, and a checkpoint is whole only if it holds exactly the files on its list.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import TypeAdapter

from amscale.errors import one_line
from amscale.files import parse_json
from amscale.training.bookkeeping import Bookkeeping
from amscale.training.engine import EngineError
from amscale.trials.objects import checksum
from amscale.trials.storage_errors import storage_error_in
from amscale.trials.trial_store import TrialStore

_TAG = "engine"
_PROGRESS = "progress.json"
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@dataclass
class Progress:
    """How far a run is: all that is not in the engine and does not follow from (seed, step)."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0
    validation_least: float = float("inf")
    validation_least_step: int = 0
    validation_tokens: int = 0
    """Of the sample that the least loss is of; 0 in checkpoints of earlier versions."""
    validations_since_least: int = 0
    compiled: bool = False
    """Whether the network was compiled."""
    skipped: int = 0
    """Updates that DeepSpeed did not apply, since their gradients were not finite."""
    skipped_in_a_row: int = 0
    engine: dict[str, Any] = field(default_factory=dict)
    electricity: dict[str, Any] = field(default_factory=dict)
    """Joules of `device` and `host` so far, or why they are not known (`device_reason`)."""
    branch: dict[str, Any] = field(default_factory=dict)
    """Of a trial that branched off another: `trial`, `label`, `step`, and the `tokens` and `device_seconds`
    up to there."""


def newest_whole(books: Bookkeeping, store: TrialStore) -> Path | None:
    """Return the newest whole checkpoint of a trial, or None; all ranks must ask together.

    A damaged one (a file missing, cut short or changed) is skipped with a warning in the log.
    """
    names = books.gather(store.checkpoint_names() if books.is_first else [])[0]
    for name in names:
        damage = None
        if store.is_shared:  # each rank reads a part of the files
            damage = store.fetch_checkpoint(name, (books.rank, books.world))
        elif books.is_first_of_machine:
            damage = store.fetch_checkpoint(name)
        if damage is None and books.is_first and _read_progress(store.checkpoints / name) is None:
            damage = f"no readable {_PROGRESS}"
        damages = [found for found in books.gather(damage) if found]
        if not damages:
            return store.checkpoints / name
        if books.is_first:
            print(
                f"warning: checkpoint {store.checkpoints / name} is damaged ({one_line(damages[0], most=200)}); "
                "falling back to the one before",
                file=sys.stderr,
            )
    return None


def _read_progress(checkpoint: Path) -> Progress | None:
    try:
        return TypeAdapter(Progress).validate_python(parse_json((checkpoint / _PROGRESS).read_bytes()))
    except (OSError, ValueError):  # a ValidationError is a ValueError
        return None


def save(
    books: Bookkeeping,
    engine: Any,
    store: TrialStore,
    progress: Progress,
    keep: int,
    writer: TrialStore | None = None,
) -> None:
    """Write a checkpoint of every rank, rename it into place, and remove all but the newest `keep`.

    Args:
        books: of the ranks.
        engine: DeepSpeed's.
        store: of the trial that the checkpoint is for.
        progress: where it is.
        keep: checkpoints to keep.
        writer: the store of the trial that writes it, if another's: by its attempt the ranks know whether they still
            may.

    Each rank checks and uploads the files that it wrote itself.

    A crash at any instant leaves the checkpoints before it whole; a `.partial` folder is never read, and belongs to one
    attempt of the trial.

    Raises:
        AttemptReplaced: a newer attempt of the trial has begun.
        StorageError: the disk is full, read-only or the like; what was written of the checkpoint is removed.
    """
    writer = writer or store
    final = store.checkpoints / f"step_{progress.step:09d}"
    partial = store.checkpoints / f"{final.name}-{writer.attempt}.partial"
    writes = books.is_first_of_machine and store.writes_checkpoints
    writer.check_attempt()
    try:
        if writes:
            for old in store.checkpoints.glob("*.partial"):
                shutil.rmtree(old, ignore_errors=True)
            partial.mkdir(parents=True)
        if books.is_first:
            store.prepare_checkpoint(final.name)
        books.wait()
        with _waits_for_files(books, engine):
            engine.save_checkpoint(str(partial), tag=_TAG)
        if books.is_first:
            (partial / _PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
        own = {name: checksum(partial / name) for name in _files_of(books, partial, store.is_shared)}
        everyone = books.gather(own)
        if writes:
            ranks = range(books.world) if store.is_shared else books.machine_ranks
            sums = {name: value for rank in ranks for name, value in everyone[rank].items()}
            # Whatever else there is belongs to it too: a file that is not listed makes a checkpoint damaged.
            paths = (path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file())
            sums |= {name: checksum(partial / name) for name in paths if name not in sums}
            (partial / store.manifest).write_text(json.dumps(sums), encoding="utf-8")
            writer.check_attempt()
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
    except Exception as error:
        # Asked while the torn file still takes its space: torch names no error number.
        failure = storage_error_in(error, partial if partial.is_dir() else store.checkpoints)
        if failure is None:
            raise
        shutil.rmtree(partial, ignore_errors=True)
        raise failure from error
    books.wait()
    store.push_checkpoint_files(final.name, own)
    books.wait()
    if writes:
        store.push_checkpoint(final.name)
    books.wait()
    if writes:
        store.keep_checkpoints(keep)
    books.wait()


@contextmanager
def _waits_for_files(books: Bookkeeping, engine: Any) -> Iterator[None]:
    """Let ranks wait for each other's files by `books` before DeepSpeed lets them meet, while the block runs.

    Rank 0 may write much more than the others: everything under stage 0. These would wait in a collective, whose time
    limit is that of a step. DeepSpeed ends the writing by the first of these calls that it makes.
    """
    ends = [(engine.checkpoint_engine, "commit")]
    if hasattr(engine.optimizer, "checkpoint_event_epilogue"):  # ZeRO 3 gathers parameters there
        ends.append((engine.optimizer, "checkpoint_event_epilogue"))

    def after_waiting(call: Callable[..., Any]) -> Callable[..., Any]:
        def wait_and_call(*arguments: Any) -> Any:
            books.wait()
            return call(*arguments)

        return wait_and_call

    for owner, name in ends:
        setattr(owner, name, after_waiting(getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name in ends:
            delattr(owner, name)  # the method of its class is found again


_OF_RANK = re.compile(r"zero_pp_rank_(\d+)_|bf16_zero_pp_rank_(\d+)_")


def _files_of(books: Bookkeeping, folder: Path, shared: bool) -> list[str]:
    """Return the files of a checkpoint that this rank wrote: its ZeRO partitions; on rank 0 also what is for all.

    Where machines share no folder, the first rank of each has what is for all there.
    """
    first = books.is_first if shared else books.is_first_of_machine
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            match = _OF_RANK.match(path.name)
            rank = int(match.group(1) or match.group(2)) if match else None
            if rank == books.rank or (rank is None and first):
                found.append(path.relative_to(folder).as_posix())
    return found


def restore(engine: Any, checkpoint: Path, facts: dict[str, Any]) -> Progress:
    """Load a checkpoint into the engine, and return its progress.

    Raises:
        EngineError: it was written by another number of processes, ZeRO stage or precision, is one of another model, or
            holds more than tensors and DeepSpeed's own classes.
    """
    progress = _read_progress(checkpoint)
    if progress is None:
        raise EngineError(f"{checkpoint} cannot be continued: no readable {_PROGRESS}")
    # Earlier versions did not write down of which model a checkpoint is.
    known = {"model": facts.get("model")} | progress.engine
    different = [
        f"{key} {known.get(key)!r} there, {facts[key]!r} here"
        for key in ("world_size", "zero_stage", "precision", "model")
        if known.get(key) != facts.get(key)
    ]
    if different:
        raise EngineError(
            f"{checkpoint} cannot be continued: {'; '.join(different)}. Give the launch settings (machines, "
            "processes_per_machine, zero_stage, precision) of then, or remove the trial's checkpoints to start it again"
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
    """Let torch load no other classes from files than those that DeepSpeed writes, while the block runs.

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
