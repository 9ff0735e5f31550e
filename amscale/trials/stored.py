"""A trial's objects, as one of its machines uses them.

Each machine uploads the files that its own ranks wrote, then a manifest with their checksums. A checkpoint is whole if
the manifests of all machines are there: an upload that was torn lacks one. The trial's result comes last of all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from amscale.trials import mirror
from amscale.trials.folder import TrialFolder
from amscale.trials.objects import ObjectStore, read_checksums, wrong_files
from amscale.trials.records import TrialResult

Check = Callable[[], None]
"""Returns if this start of the trial may write; ends the process otherwise."""


def manifest(machine: int) -> str:
    """Name of the checksums of what one machine wrote of a checkpoint."""
    return "checksums.json" if machine == 0 else f"checksums.machine{machine}.json"


@dataclass(frozen=True)
class StoredTrial:
    """One machine's way to the objects of its trial.

    Args:
        objects: of the trial.
        folder: the machine's own folder of the trial.
        machine: its index in the trial.
        machines: of the trial.
        check: asked before each upload that others would take for newer than theirs.
    """

    objects: ObjectStore
    folder: TrialFolder
    machine: int
    machines: int
    check: Check

    def fetch_records(self) -> None:
        """Fetch what this machine goes on writing: its log; on machine 0 also metrics, curves and failed starts."""
        own = self.folder.log_of(self.machine).name
        mirror.pull(
            self.objects,
            self.folder.path,
            lambda key: key == own or (self.machine == 0 and not PurePosixPath(key).match("log.machine*.txt")),
        )

    def push_records(self) -> None:
        """Upload this machine's records."""
        self.check()
        mirror.push_records(self.objects, self.folder)

    def whole_checkpoints(self) -> list[str]:
        """Names of the checkpoints that every machine has uploaded, newest first."""
        found = self.objects.entries("checkpoints")
        names = {key.split("/")[1] for key in found}
        needed = [manifest(machine) for machine in range(self.machines)]
        return [n for n in sorted(names, reverse=True) if all(f"checkpoints/{n}/{m}" in found for m in needed)]

    def fetch_checkpoint(self, name: str) -> str | None:
        """Fetch what this machine's ranks read of a checkpoint and do not have; returns what is wrong with it, or None.

        They read what they wrote themselves, and what machine 0 wrote for all: not other ranks' ZeRO partitions.
        """
        manifests = [f"checkpoints/{name}/{manifest(machine)}" for machine in (self.machine, 0)]
        own, shared = (read_checksums(self.objects.read(key)) for key in manifests)
        if own is None or shared is None:
            return "no readable checksums"
        expected = {file: value for file, value in shared.items() if "zero_pp_rank_" not in file} | own
        local = self.folder.checkpoints / name
        lacking = wrong_files(local, expected)
        # A file that is not listed is no part of it: DeepSpeed reads whatever bears the right name.
        for file in [path for path in local.rglob("*") if path.is_file()]:
            if file.relative_to(local).as_posix() not in expected:
                file.unlink()
        try:
            self.objects.get_all({f"checkpoints/{name}/{file}": local / file for file in lacking})
        except FileNotFoundError as error:
            return f"{error.filename or error} is missing"
        wrong = wrong_files(local, {file: expected[file] for file in lacking})
        return f"{wrong[0]} is changed" if wrong else None

    def push_checkpoint(self, name: str) -> None:
        """Upload this machine's files of a checkpoint, and then its manifest."""
        local = self.folder.checkpoints / name
        own = read_checksums((local / manifest(self.machine)).read_bytes())
        assert own is not None
        self.push_records()
        self.objects.put_all({f"checkpoints/{name}/{file}": local / file for file in own})
        self.check()
        self.objects.put(local / manifest(self.machine), f"checkpoints/{name}/{manifest(self.machine)}")

    def remove_checkpoint(self, name: str) -> None:
        """Remove a checkpoint: its manifests first, so that at no instant it looks whole and is not."""
        keys = sorted(self.objects.entries(f"checkpoints/{name}"), key=lambda key: "checksums" not in key)
        self.objects.remove(keys)

    def keep_checkpoints(self, number: int) -> None:
        """Remove all but the newest whole checkpoints, and what is older than they."""
        whole = self.whole_checkpoints()[:number]
        for name in self._checkpoints():
            if not whole or name < whole[-1]:
                self.remove_checkpoint(name)

    def _checkpoints(self) -> set[str]:
        return {key.split("/")[1] for key in self.objects.entries("checkpoints")}

    def publish(self, result: TrialResult) -> None:
        """Upload the trial's weights and then its result; its checkpoints have served."""
        self.check()
        self.objects.put(self.folder.weights, self.folder.weights.name)
        self.check()
        self.objects.write(self.folder.result.name, result.to_json().encode())
        for name in self._checkpoints():
            self.remove_checkpoint(name)
