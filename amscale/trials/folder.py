"""What ran: trial identity by content, trial folders, atomic results.

A sweep folder holds `trials/<trial>/` with `spec.yaml`, `metrics.jsonl`, `tb/`, `checkpoints/`, `log.txt` and, written
last and atomically, `result.json`: a trial is done if and only if that file is there. Ray keeps no record that counts.
"""

import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from amscale.config import Experiment, FitSettings
from amscale.errors import InputError
from amscale.files import parse_yaml, read_text, write_atomically
from amscale.settings import describe_error
from amscale.trials.identity import settings_of
from amscale.trials.metrics import R, read_records
from amscale.trials.records import (
    FORMAT,
    Failure,
    OutOfMemory,
    Placement,
    TrialResult,
    TrialSpec,
    read_failures,
    read_out_of_memory,
)

START_MARK = "=== start "
"""Begins the line that a trial's log gets at each start."""


@dataclass(frozen=True)
class TrialFolder:
    """Paths of one trial."""

    path: Path

    @property
    def spec(self) -> Path:
        return self.path / "spec.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tb"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    def log_of(self, machine: int) -> Path:
        """The log of one machine of the trial: the log itself for machine 0."""
        return self.log if machine == 0 else self.path / f"log.machine{machine}.txt"

    @property
    def preempted(self) -> Path:
        """Stands while ranks have ended because they were told to, after writing a checkpoint."""
        return self.path / "preempted"

    @property
    def out_of_memory_marker(self) -> Path:
        """Stands while ranks have ended because one of them ran out of memory, and holds what that one said."""
        return self.path / "out_of_memory"

    @property
    def out_of_memory_file(self) -> Path:
        return self.path / "out_of_memory.jsonl"

    def out_of_memory(self) -> list[OutOfMemory]:
        """Placements that did not fit the memory, each with `time` and `reason`."""
        return read_out_of_memory(self.out_of_memory_file)

    @property
    def start_file(self) -> Path:
        return self.path / "start"

    def new_start(self) -> str:
        """Begin another start of the trial; returns its name. From this moment every other start is an old one.

        A host that was cut off may still reach the storage, and its ranks would go on writing. So every start has a
        name, and writes only while that name stands in the folder.
        """
        start = uuid.uuid4().hex
        write_atomically(self.start_file, start)
        return start

    def newest_start(self) -> str | None:
        """Name of the newest start, or None before the first."""
        return self.start_file.read_text(encoding="utf-8") if self.start_file.is_file() else None

    @property
    def failures_file(self) -> Path:
        return self.path / "failures.jsonl"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    def done(self) -> bool:
        """Whether the trial has its result."""
        return self.result.is_file()

    def read_result(self) -> TrialResult | None:
        """The result, or None while there is none.

        Raises:
            InputError: the file is not a result of this version.
        """
        try:
            text = read_text(self.result)
        except FileNotFoundError:
            return None
        return TrialResult.from_json(text, self.result)

    def publish(self, result: TrialResult) -> None:
        """Write the result, atomically: from this moment the trial is done."""
        write_atomically(self.result, result.to_json())

    def read_spec(self) -> TrialSpec:
        """The spec that started the trial.

        Raises:
            InputError: there is none, or it is of another version.
        """
        try:
            text = read_text(self.spec)
        except FileNotFoundError:
            raise InputError(f"{self.spec}: no such trial") from None
        return TrialSpec.from_yaml(text, self.spec)

    def read_metrics(self, kind: type[R]) -> Iterator[R]:
        """Read the records of one kind (of all: MetricsRecord) in order; torn and damaged lines are left out."""
        if not self.metrics.is_file():
            return
        for record in read_records(self.metrics):
            if isinstance(record, kind):
                yield record

    def failures(self) -> list[Failure]:
        """Failed starts of the trial, each with `time` and `reason`."""
        return read_failures(self.failures_file)

    def add_failure(self, reason: str) -> None:
        """Record why a start of the trial failed."""
        with self.failures_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(Failure(time=time.time(), reason=reason).to_tree()) + "\n")

    def reason(self, machine: int = 0, lines: int = 12) -> str:
        """Why the newest start of the trial failed: the last lines that its ranks wrote.

        The launcher's own report of the failure, which follows them, says only that a rank ended.
        """
        log = self.log_of(machine)
        if not log.is_file():
            return ""
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65536))
            text = file.read().decode("utf-8", errors="replace")
        said = text.rpartition(START_MARK)[2].splitlines()[1:]
        launcher = next((i for i, line in enumerate(said) if "torch/distributed/elastic" in line), len(said))
        return "\n".join((said[:launcher] or said)[-lines:])


@dataclass(frozen=True)
class SweepFolder:
    """One sweep's folder: `<storage>/<name>`."""

    path: Path

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    def trial(self, label: str) -> TrialFolder:
        """The folder of one trial, by its label."""
        return TrialFolder(self.trials / label)

    def all_trials(self) -> list[TrialFolder]:
        """Every trial folder there is, in order of name."""
        if not self.trials.is_dir():
            return []
        return [TrialFolder(path) for path in sorted(self.trials.iterdir()) if (path / "spec.yaml").is_file()]

    def read_marker(self) -> dict[str, Any]:
        """What `sweep.yaml` holds: the format, and the configuration that the folder serves.

        Raises:
            InputError: it cannot be read.
        """
        marker = self.path / "sweep.yaml"
        try:
            tree = parse_yaml(read_text(marker))
            if not isinstance(tree, dict):
                raise ValueError("not a mapping")
        except (FileNotFoundError, ValueError) as error:
            raise InputError(f"{marker}: not what a sweep writes ({error}); choose another name or storage") from None
        return tree

    def fit_settings(self) -> FitSettings:
        """What the configuration that the folder serves wants estimated; the defaults in a folder without one.

        Raises:
            InputError: it cannot be read, or says something else.
        """
        marker = self.path / "sweep.yaml"
        if not marker.is_file():
            return FitSettings()
        tree = {"fit": self.read_marker().get("fit") or {}}
        try:
            return TypeAdapter(dict[str, FitSettings]).validate_python(tree)["fit"]
        except ValidationError as error:
            raise InputError(f"{marker}: {describe_error(error, tree)}; run the sweep again to write it anew") from None

    def create(self, config: Experiment) -> None:
        """Make the folder, and record the configuration that it now serves.

        Raises:
            InputError: the folder is of another version, or cannot be written.
        """
        marker = self.path / "sweep.yaml"
        if marker.is_file():
            found = self.read_marker()
            if found.get("format") != FORMAT:
                raise InputError(
                    f"{self.path}: a sweep folder of another version (this one writes format {FORMAT}); "
                    "choose another name or storage"
                )
        elif self.path.is_dir() and any(p.name != ".driver" for p in self.path.iterdir()):
            raise InputError(f"{self.path}: exists and is not a sweep folder; choose another name or storage")
        self.trials.mkdir(parents=True, exist_ok=True)
        tree = {"format": FORMAT, **config.model_dump(mode="json", exclude_unset=True)}
        write_atomically(marker, yaml.safe_dump(tree, sort_keys=False))

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder for one driver.

        Raises:
            InputError: another driver holds it; the message names it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".driver").open("a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                raise InputError(
                    f"{self.path}: another driver runs this sweep ({lock.read().strip() or 'unknown'}); wait for it"
                ) from None
            lock.seek(0)
            lock.truncate()
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            yield


def write_spec(
    folder: TrialFolder,
    cell: Experiment,
    placement: Placement,
    store: Path,
    identity: str,
    label: str | None = None,
) -> None:
    """Record what a trial is (settings) and where this start of it runs (placement).

    Args:
        label: the trial's; the folder's name if None.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    spec = TrialSpec(
        format=FORMAT,
        trial=identity,
        label=label or folder.path.name,
        placement=placement,
        store=str(store),
        settings=settings_of(cell),
    )
    write_atomically(folder.spec, spec.to_yaml())


def replace_placement(folder: TrialFolder, placement: Placement) -> None:
    """Let the next attempt of a trial run at another place."""
    write_atomically(folder.spec, folder.read_spec().model_copy(update={"placement": placement}).to_yaml())
