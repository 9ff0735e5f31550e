"""The files of one trial's folder: their names, and what is read from them.

A trial is done if and only if its `result.json` is there: it is written last and atomically.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from amscale.errors import InputError
from amscale.files import read_text
from amscale.trials.attempt import ATTEMPT_MARK
from amscale.trials.metrics import R, read_records
from amscale.trials.records import Failure, OutOfMemory, TrialResult, TrialSpec, read_failures, read_out_of_memory


class TrialFolder:
    """A trial's folder, for those who read.

    Args:
        path: the trial's folder, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def spec(self) -> Path:
        """The settings that the trial was started with, for every attempt alike."""
        return self.path / "spec.yaml"

    @property
    def metrics(self) -> Path:
        """What training, validation and probes measured, one JSON record a line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tb"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, one `step_N` folder each."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """What launcher and ranks of machine 0 printed."""
        return self.path / "log.txt"

    @property
    def weights(self) -> Path:
        """The weights at the end of training."""
        return self.path / "model.safetensors"

    @property
    def result(self) -> Path:
        """The result; while it is absent, the trial is not done."""
        return self.path / "result.json"

    @property
    def failures_file(self) -> Path:
        """Why attempts failed, one JSON record a line."""
        return self.path / "failures.jsonl"

    @property
    def out_of_memory_file(self) -> Path:
        """The micro-batches that did not fit, one JSON record a line."""
        return self.path / "out_of_memory.jsonl"

    @property
    def attempt_file(self) -> Path:
        """The name of the newest attempt; only that attempt may write."""
        return self.path / "start"

    @property
    def preempted(self) -> Path:
        """The file that is there while ranks have ended on request, after they wrote a checkpoint."""
        return self.path / "preempted"

    @property
    def grace_file(self) -> Path:
        """The file with the seconds that an orderly end of the trial may need, as its ranks have measured.

        There with `launch.grace=auto` alone. `cluster.supervisor` reads it too, by its name.
        """
        return self.path / "grace"

    @property
    def out_of_memory_marker(self) -> Path:
        """The file that is there while ranks have ended for want of memory; holds what the first of them said."""
        return self.path / "out_of_memory"

    def log_of(self, machine: int) -> Path:
        """Return the log of one machine of the trial; machine 0 writes the trial's own."""
        return self.log if machine == 0 else self.path / f"log.machine{machine}.txt"

    def done(self) -> bool:
        """Return whether the trial has its result."""
        return self.result.is_file()

    def read_result(self) -> TrialResult | None:
        """Return the result, or None before there is one.

        Raises:
            InputError: the file is not a result of this version.
        """
        try:
            text = read_text(self.result)
        except FileNotFoundError:
            return None
        return TrialResult.from_json(text, self.result)

    def read_spec(self) -> TrialSpec:
        """Return the spec that the trial runs by.

        Raises:
            InputError: there is no spec, or it is of another version.
        """
        try:
            text = read_text(self.spec)
        except FileNotFoundError:
            raise InputError(f"{self.spec}: no such trial") from None
        return TrialSpec.from_yaml(text, self.spec)

    def read_metrics(self, kind: type[R]) -> Iterator[R]:
        """Yield the records of one kind (of all: MetricsRecord) in order; skip torn and damaged lines."""
        if not self.metrics.is_file():
            return
        for record in read_records(self.metrics):
            if isinstance(record, kind):
                yield record

    def failures(self) -> list[Failure]:
        """Return the failed attempts of the trial."""
        return read_failures(self.failures_file)

    def out_of_memory(self) -> list[OutOfMemory]:
        """Return the placements that did not fit the memory."""
        return read_out_of_memory(self.out_of_memory_file)

    def reason(self, machine: int = 0, lines: int = 12) -> str:
        """Return why the current attempt failed: the last lines that the ranks of a machine wrote.

        The launcher's own report, which follows them, says only that a rank ended.
        """
        log = self.log_of(machine)
        if not log.is_file():
            return ""
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 65536))
            text = file.read().decode("utf-8", errors="replace")
        written = text.rpartition(ATTEMPT_MARK)[2].splitlines()[1:]
        launcher = next((i for i, line in enumerate(written) if "torch/distributed/elastic" in line), len(written))
        return "\n".join((written[:launcher] or written)[-lines:])

    def current_attempt(self) -> str | None:
        """Return the name of the current attempt, or None before the first."""
        try:
            return self.attempt_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def local_checkpoints(self) -> list[Path]:
        """Return the checkpoints in the folder, oldest first, leaving out links, wherever they lead."""
        if not self.checkpoints.is_dir():
            return []
        paths = (path for path in self.checkpoints.iterdir() if path.is_dir() and not path.is_symlink())
        return sorted(path for path in paths if re.fullmatch("step_[0-9]{9}", path.name))
