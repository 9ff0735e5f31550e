"""One trial that runs: its attempts, its checkpoints, and what went wrong.

`TrialStore` is the folder that all machines of the trial share; `ObjectTrialStore` keeps the trial as objects under a
URI and gives each machine a working folder. `TrialLocation.store` returns the right one, and nothing else asks which it
is.
"""

import json
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from amscale.config import Experiment
from amscale.files import write_atomically
from amscale.trials.attempt import AttemptReplaced, Diagnosis, refusal_in_log
from amscale.trials.identity import settings_of
from amscale.trials.objects import checkpoint_damage, manifest_name
from amscale.trials.records import (
    FORMAT,
    Failure,
    OutOfMemory,
    Placement,
    SpecBranch,
    TrialResult,
    TrialSpec,
)
from amscale.trials.storage_errors import StorageError, check_writable, error_in_log, storage_errors
from amscale.trials.trial_folder import TrialFolder
from amscale.trials.visibility import VISIBLE_SECONDS, wait_to_see


class TrialStore(TrialFolder):
    """A trial in a folder that all its machines share.

    Args:
        path: the trial's folder, which need not exist.
        machine: index of this machine in the trial.
        attempt: name of the attempt that this process takes part in. Readers have none, nor has a run that is started
            by hand, which has no rival.
        visible_seconds: how long to wait for what another machine wrote.
    """

    def __init__(
        self, path: Path, machine: int = 0, attempt: str = "", visible_seconds: float = VISIBLE_SECONDS
    ) -> None:
        super().__init__(path)
        self.machine = machine
        self.attempt = attempt
        self.visible_seconds = visible_seconds

    def write_spec(
        self,
        cell: Experiment,
        placement: Placement,
        tokens: Path | None,
        identity: str,
        label: str | None = None,
        branches: Sequence[SpecBranch] = (),
    ) -> None:
        """Write what the trial is (settings) and where its next attempt runs (placement).

        Args:
            cell: settings of the trial.
            placement: where it runs.
            tokens: folder of the token store; None where the trial's script reads data by itself.
            identity: the trial's id.
            label: the trial's label; the folder's name if None.
            branches: trials that branch off this one.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        spec = TrialSpec(
            format=FORMAT,
            trial=identity,
            label=label or self.path.name,
            placement=placement,
            store=str(tokens) if tokens else "",
            settings=settings_of(cell),
            **({"branches": list(branches)} if branches else {}),
        )
        write_atomically(self.spec, spec.to_yaml())

    def add_failure(self, reason: str) -> None:
        """Record why an attempt of the trial failed."""
        _append(self.failures_file, Failure(time=time.time(), reason=reason))

    def add_out_of_memory(self, reason: str, placement: Placement) -> None:
        """Record that a placement did not fit the memory, with what the rank said."""
        _append(self.out_of_memory_file, OutOfMemory(time=time.time(), reason=reason, placement=placement))

    def token_store(self, name: str) -> Path:
        """Return the folder of the token store `name`, which lies beside the sweeps.

        Raises:
            StorageError: it cannot be fetched, or is not seen here.
        """
        folder = self.path.absolute().parent.parent.parent / "tokens" / name
        if self.machine:  # machine 0 has seen what it wrote; here it may be new
            wait_to_see(folder.is_dir, self.path, "the driver", self.visible_seconds)
        return folder

    def open(self) -> None:
        """Make ready to begin an attempt, on machine 0: have spec and records in the folder.

        Raises:
            StorageError: storage is full, read-only, not shared, or out of reach.
        """
        wait_to_see(self.spec.is_file, self.path, "the driver", self.visible_seconds)
        self._check_writable()

    def begin_attempt(self, placement: Placement, name: str | None = None) -> str:
        """Begin another attempt, on machine 0, and return its name. Every earlier one is replaced from then on.

        Args:
            placement: where it runs; written into the spec.
            name: of the attempt; a new one if None.
        """
        spec = self.read_spec().model_copy(update={"placement": placement})
        write_atomically(self.spec, spec.to_yaml())
        self.attempt = name or uuid.uuid4().hex
        # After the spec: other machines read the spec once they see the name.
        write_atomically(self.attempt_file, self.attempt)
        self.preempted.unlink(missing_ok=True)
        self.out_of_memory_marker.unlink(missing_ok=True)
        return self.attempt

    def end_attempt(self, name: str) -> None:
        """Let others see, on machine 0, that this attempt has ended and none follows: replace it by a last name."""
        if self.attempt and self.current_attempt() == self.attempt:
            write_atomically(self.attempt_file, name)

    def join_attempt(self, attempt: str) -> None:
        """Take part in an attempt that machine 0 has begun, on another machine.

        Raises:
            StorageError: storage is full, read-only, not shared, or out of reach.
        """
        self.attempt = attempt
        wait_to_see(lambda: self.current_attempt() == attempt, self.path, "machine 0", self.visible_seconds)
        self._check_writable()

    def resume_records(self) -> None:
        """Have here what this machine's ranks go on writing, where they are started by hand and nobody joins for them.

        Raises:
            StorageError: it cannot be fetched.
        """

    def check_attempt(self) -> None:
        """Check that this process may write.

        Between the check and the write that follows lie milliseconds; checkpoints of two attempts have different names
        until they are whole.

        Raises:
            AttemptReplaced: a newer attempt has begun.
        """
        if self.attempt and self.current_attempt() != self.attempt:
            raise AttemptReplaced

    def diagnose(self) -> Diagnosis:
        """Return what this machine knows of why the current attempt ended."""
        marker = self.out_of_memory_marker
        log = self.reason(self.machine, lines=1000) if self.path.is_dir() else ""
        storage = error_in_log(log) or check_writable(self.path)
        return Diagnosis(
            storage=str(storage) if storage else None,
            out_of_memory=marker.read_text(encoding="utf-8") if marker.is_file() else None,
            reason=self.reason(self.machine) if log else "",
            refused=refusal_in_log(log),
        )

    def push_records(self) -> None:
        """Give others what this machine has written of logs, metrics and failures.

        Raises:
            AttemptReplaced: a newer attempt has begun.
            StorageError: it cannot be uploaded.
        """

    def push_last_records(self) -> None:
        """Push the records of an attempt that has ended, if no newer one has begun and storage can be reached.

        Otherwise the driver still gets the reason of the failure.
        """
        if self.attempt:
            with suppress(AttemptReplaced, StorageError, OSError):
                self.push_records()

    def publish(self, result: TrialResult) -> None:
        """Write the result, atomically: from this moment the trial is done.

        Raises:
            AttemptReplaced: a newer attempt has begun.
            StorageError: storage is full, read-only or out of reach.
        """
        self.check_attempt()
        with storage_errors(self.path):
            write_atomically(self.result, result.to_json())

    def clear(self) -> None:
        """Remove what this machine alone has of a trial that is done."""

    # Checkpoints. A checkpoint is a folder `step_N` that was renamed into place, whole, with checksums of its files.

    @property
    def writes_checkpoints(self) -> bool:
        """Whether a process of this machine makes, lists and removes the folders of checkpoints here."""
        return self.machine == 0

    @property
    def manifest(self) -> str:
        """Name of the file with the checksums of a checkpoint's files."""
        return manifest_name(0)

    def checkpoint_names(self) -> list[str]:
        """Return the names of the trial's checkpoints, newest first; asked on machine 0."""
        return [path.name for path in reversed(self.local_checkpoints())]

    def waits_on_branch(self) -> bool:
        """Return whether the trial has records that another left it to go on from, and has not begun itself."""
        begun = self.attempt_file.exists() or self.log.exists() or self.tensorboard.exists()
        return self.metrics.is_file() and not begun

    def can_branch(self) -> bool:
        """Return whether the trial has neither begun nor got a state to go on from; asked on machine 0."""
        return not (self.result.exists() or self.attempt_file.exists() or self.checkpoint_names())

    @property
    def is_shared(self) -> bool:
        """Whether all machines work in one folder, so that each may check a part of a checkpoint's files."""
        return True

    def fetch_checkpoint(self, name: str, part: tuple[int, int] = (0, 1)) -> str | None:
        """Have a checkpoint's files in the folder; return what is wrong with them, or None.

        Args:
            name: of the checkpoint.
            part: (i, n): check the contents of every n-th file, from the i-th on.
        """
        return checkpoint_damage(self.checkpoints / name, self.manifest, part)

    def prepare_checkpoint(self, name: str) -> None:
        """Remove what an earlier attempt left under the name of a checkpoint that is about to be written."""

    def push_checkpoint_files(self, name: str, files: Iterable[str]) -> None:
        """Give others some files of a checkpoint that is whole here, before `push_checkpoint`.

        Raises:
            AttemptReplaced: a newer attempt has begun.
            StorageError: it cannot be uploaded.
        """

    def push_checkpoint(self, name: str) -> None:
        """Give others this machine's part of a checkpoint that is whole here: what is missing there, and its manifest.

        Raises:
            AttemptReplaced: a newer attempt has begun.
            StorageError: it cannot be uploaded.
        """

    def keep_checkpoints(self, number: int) -> None:
        """Remove all but the newest checkpoints."""
        for path in self.local_checkpoints()[:-number]:
            shutil.rmtree(path, ignore_errors=True)

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints of a finished trial from the folder: weights and result stay."""
        if self.writes_checkpoints:
            shutil.rmtree(self.checkpoints, ignore_errors=True)

    def _check_writable(self) -> None:
        if (error := check_writable(self.path)) is not None:
            raise error


def _append(path: Path, record: Failure) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record.to_tree()) + "\n")
