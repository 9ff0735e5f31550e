"""A trial as objects under a URI, with a working folder on each of its machines.

Each machine uploads the files that its own ranks wrote, then a manifest with their checksums. A checkpoint is whole if
the manifests of all machines are there: an upload that was torn lacks one. The trial's result comes last of all.
"""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from amscale.errors import InputError
from amscale.files import write_atomically
from amscale.trials import mirror
from amscale.trials.attempt import AttemptReplaced
from amscale.trials.objects import ObjectStore, manifest_name, read_checksums, wrong_files
from amscale.trials.records import Placement, TrialResult
from amscale.trials.storage_errors import StorageError, storage_errors
from amscale.trials.trial_store import TrialStore


class ObjectTrialStore(TrialStore):
    """One machine's working folder of a trial, and the trial's objects, which are its record.

    Args:
        objects: of the trial.
        path: the machine's working folder of the trial.
        machine: index of the machine in the trial.
        machines: number of the trial's machines.
        attempt: name of the attempt that this process takes part in.
        tokens: objects of the storage, and this machine's folder for token stores.
    """

    def __init__(
        self,
        objects: ObjectStore,
        path: Path,
        machine: int = 0,
        machines: int = 1,
        attempt: str = "",
        tokens: tuple[ObjectStore, Path] | None = None,
    ) -> None:
        super().__init__(path, machine, attempt)
        self.objects = objects
        self._machines = machines
        self._tokens = tokens

    def token_store(self, name: str) -> Path:
        """Fetch the token store `name` where this machine lacks it, and return its folder."""
        assert self._tokens is not None
        objects, folder = self._tokens
        if not mirror.fetch_tokens(objects, folder / name):
            raise InputError(f"{objects.uri}/tokens/{name}: no such token store; run the sweep again")
        return folder / name

    def open(self) -> None:
        """Fetch the trial's spec and records."""
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.resume_records()
        self._check_writable()

    def begin_attempt(self, placement: Placement, name: str | None = None) -> str:
        """Begin another attempt, on machine 0, and return its name."""
        attempt = super().begin_attempt(placement, name)
        self.objects.put(self.spec, self.spec.name)
        self.objects.write(self.attempt_file.name, attempt.encode())
        return attempt

    def join_attempt(self, attempt: str) -> None:
        """Fetch what this machine needs for an attempt that machine 0 has begun."""
        self.attempt = attempt
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self.resume_records()
            self.objects.get(self.spec.name, self.spec)
            self.out_of_memory_marker.unlink(missing_ok=True)
            write_atomically(self.attempt_file, attempt)
        self._check_writable()

    def resume_records(self) -> None:
        """Fetch this machine's log; on machine 0 also metrics, curves and failures."""
        own = self.log_of(self.machine).name
        mirror.pull(
            self.objects,
            self.path,
            lambda key: key == own or (self.machine == 0 and not PurePosixPath(key).match("log.machine*.txt")),
        )

    def push_records(self) -> None:
        """Upload what this machine has written of logs, metrics and failures."""
        self._check_objects()
        mirror.push_records(self.objects, self.path)

    def publish(self, result: TrialResult) -> None:
        """Upload records, weights and then the result; remove the checkpoints, which are needed no more."""
        self.check_attempt()
        self.push_records()
        self._check_objects()
        self.objects.put(self.weights, self.weights.name)
        self._check_objects()
        self.objects.write(self.result.name, result.to_json().encode())
        for name in self._uploaded_checkpoints():
            self._remove_uploaded(name)
        super().publish(result)

    def clear(self) -> None:
        """Remove the working folder of a trial that is done."""
        with suppress(StorageError):  # then it stays
            if self.objects.entry(self.result.name) is not None:
                shutil.rmtree(self.path, ignore_errors=True)

    @property
    def writes_checkpoints(self) -> bool:
        """True: every machine has its own folder of checkpoints."""
        return True

    @property
    def manifest(self) -> str:
        """Name of the file with the checksums of this machine's files of a checkpoint."""
        return manifest_name(self.machine)

    def checkpoint_names(self) -> list[str]:
        """Return the names of the checkpoints that every machine has uploaded, newest first."""
        found = self.objects.entries("checkpoints")
        names = {key.split("/")[1] for key in found}
        needed = [manifest_name(machine) for machine in range(self._machines)]
        return [n for n in sorted(names, reverse=True) if all(f"checkpoints/{n}/{m}" in found for m in needed)]

    def can_branch(self) -> bool:
        """Return whether the trial has neither begun nor got a state to go on from, by its objects."""
        begun = (self.objects.entry(name) for name in (self.result.name, self.attempt_file.name))
        return not (any(begun) or self.checkpoint_names())

    @property
    def is_shared(self) -> bool:
        """Whether all machines work in one folder: each has its own."""
        return False

    def fetch_checkpoint(self, name: str, part: tuple[int, int] = (0, 1)) -> str | None:
        """Fetch what this machine's ranks read of a checkpoint and lack; return what is wrong with it, or None.

        They read what they wrote themselves, and what machine 0 wrote for all: not other ranks' ZeRO partitions.
        """
        assert part == (0, 1)  # one process of each machine
        manifests = [f"checkpoints/{name}/{manifest_name(machine)}" for machine in (self.machine, 0)]
        own, shared = (read_checksums(self.objects.read(key)) for key in manifests)
        if own is None or shared is None:
            return "no readable checksums"
        expected = {file: value for file, value in shared.items() if "zero_pp_rank_" not in file} | own
        local = self.checkpoints / name
        lacking = wrong_files(local, expected)
        # A file that is not listed is no part of it: DeepSpeed reads every file with the right name.
        for file in [path for path in local.rglob("*") if path.is_file()]:
            if file.relative_to(local).as_posix() not in expected:
                file.unlink()
        try:
            self.objects.get_all({f"checkpoints/{name}/{file}": local / file for file in lacking})
        except FileNotFoundError as error:
            return f"{error.filename or error} is missing"
        wrong = wrong_files(local, {file: expected[file] for file in lacking})
        return f"{wrong[0]} is changed" if wrong else None

    def prepare_checkpoint(self, name: str) -> None:
        """Remove the objects that an earlier attempt left under the name of a checkpoint; on machine 0 for all."""
        self._check_objects()
        self._remove_uploaded(name)

    def push_checkpoint_files(self, name: str, files: Iterable[str]) -> None:
        """Upload some files of a checkpoint."""
        self._check_objects()
        self.objects.put_all({f"checkpoints/{name}/{file}": self.checkpoints / name / file for file in files})

    def push_checkpoint(self, name: str) -> None:
        """Upload this machine's files of a checkpoint that are not there, and then its manifest."""
        local = self.checkpoints / name
        own = read_checksums((local / self.manifest).read_bytes())
        assert own is not None
        self.push_records()
        there = self.objects.entries(f"checkpoints/{name}")
        keys = {f"checkpoints/{name}/{file}": local / file for file in own}
        self.objects.put_all({key: file for key, file in keys.items() if key not in there})
        self._check_objects()
        self.objects.put(local / self.manifest, f"checkpoints/{name}/{self.manifest}")

    def keep_checkpoints(self, number: int) -> None:
        """Remove all but the newest whole checkpoints, and what is older than they; objects on machine 0 for all."""
        super().keep_checkpoints(number)
        if self.machine:
            return
        whole = self.checkpoint_names()[:number]
        for name in self._uploaded_checkpoints():
            if not whole or name < whole[-1]:
                self._remove_uploaded(name)

    def _uploaded_checkpoints(self) -> set[str]:
        return {key.split("/")[1] for key in self.objects.entries("checkpoints")}

    def _remove_uploaded(self, name: str) -> None:
        """Remove a checkpoint's objects: its manifests first, so that it never looks whole when it is not."""
        keys = sorted(self.objects.entries(f"checkpoints/{name}"), key=lambda key: "checksums" not in key)
        self.objects.remove(keys)

    def _check_objects(self) -> None:
        """Check by the trial's objects that this process may upload: the local file is this machine's alone.

        Raises:
            AttemptReplaced: a newer attempt has begun.
        """
        if self.attempt and self.objects.read(self.attempt_file.name) != self.attempt.encode():
            raise AttemptReplaced
