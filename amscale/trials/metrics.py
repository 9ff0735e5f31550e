"""The records of `metrics.jsonl`: what a run measured, one JSON object a line, read back and followed as it grows."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError

from amscale.errors import InputError
from amscale.files import is_number
from amscale.trials.record import Number

_MEASURED = re.compile(r"\w+/(layer_[0-9]{1,4}/\w+|(?!layer_)\w+(/\w+)*)", re.ASCII)
"""The name of a value that a probe measured: `group/layer_00/name`, `group/global/name` or `group/name`."""


def _measured(values: Any) -> dict[str, float]:
    if not isinstance(values, dict):
        raise ValueError("a mapping")
    for name, value in values.items():
        if not _MEASURED.fullmatch(name) or not is_number(value):
            raise ValueError("a number by the name of a measurement")
    return values


class MetricsRecord(BaseModel):
    """Base of the records; `step` counts optimiser steps from 1."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    step: Annotated[int, Field(strict=True, ge=0, lt=2**63)]


class TrainRecord(MetricsRecord):
    """One optimiser step: mean loss over its global batch in nats per token, not a number where a run diverged."""

    kind: Literal["train"] = "train"
    tokens: Number | None = None
    """Tokens seen so far."""
    loss: Number
    learning_rate: Number | None = None
    gradient_norm: Number | None = None
    skipped: bool = False
    """Whether the update was not applied, since its gradients were not finite."""
    time: Number | None = None
    """Seconds of training so far."""
    mfu: Number | None = None
    """Model FLOPs utilisation of the step; None where the device's peak is not known."""


class TrainMeanRecord(MetricsRecord):
    """Mean loss over consecutive optimiser steps up to this one: what an archive has instead of a record of each."""

    kind: Literal["train_mean"] = "train_mean"
    steps: Annotated[int, Field(strict=True, ge=1)]
    loss: Number
    variance: Number
    """Of the losses of these steps."""


class ValidationRecord(MetricsRecord):
    """Mean loss over the held-out tokens, nats per token."""

    kind: Literal["validation"] = "validation"
    loss: Number


class ProbeRecord(MetricsRecord):
    """One measurement of the probes."""

    kind: Literal["probe"] = "probe"
    pattern: str | None = None
    """What one sequence is as a pattern."""
    values: Annotated[dict[str, float], PlainValidator(_measured)]
    """Numbers by tag: `group/layer_00/name`, `group/global/name` or `group/name`."""
    seconds: Number | None = None
    reasons: dict[str, str] = {}
    """Why a value could not be measured, by tag."""


R = TypeVar("R", bound=MetricsRecord)

AnyRecord = TrainRecord | TrainMeanRecord | ValidationRecord | ProbeRecord

_RECORD: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="kind")])


def parse_record(line: str | bytes) -> AnyRecord | None:
    """Read a line of `metrics.jsonl`; None for a line that was torn by a crash, or damaged."""
    try:
        return _RECORD.validate_json(line)
    except ValidationError:
        return None


def read_records(path: Path) -> Iterator[AnyRecord | None]:
    """Read the lines of `metrics.jsonl` in order: None for a line that is torn or damaged, or has no end.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield parse_record(line) if line.endswith(b"\n") else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


class MetricsTail:
    """Follow a `metrics.jsonl` as it grows, and keep the newest numbers.

    Args:
        metrics: the file, which need not be there yet.
    """

    def __init__(self, metrics: Path) -> None:
        self._metrics = metrics
        self._read = metrics.stat().st_size if metrics.is_file() else 0
        self._changed = time.monotonic()
        self.updated = False
        """Whether anything was added since the newest attempt."""
        self.interval = 0.0
        """Seconds between the newest addition and the one before it, or the start of the attempt."""
        self.latest: dict[str, Any] = {"state": "starting"}
        """State, step, loss, tokens, seconds, validation loss with its step, and the least one of this attempt, as far
        as they are known."""

    def restart(self) -> None:
        """Count silence from now: an attempt begins."""
        self.updated = False
        self._changed = time.monotonic()

    def read(self) -> float:
        """Read what was added, and return the seconds since anything was."""
        size = self._metrics.stat().st_size if self._metrics.is_file() else 0
        if size < self._read:  # cut back to a checkpoint's step
            self._read = 0
        if size == self._read:
            return time.monotonic() - self._changed
        with self._metrics.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                if (record := parse_record(line)) is not None:
                    self._take(record)
        before, self._changed = self._changed, time.monotonic()
        self.interval = self._changed - before
        self.updated = True
        return 0.0

    def _take(self, record: MetricsRecord) -> None:
        if isinstance(record, TrainRecord):
            self.latest |= {"state": "training", "step": record.step, "loss": record.loss}
            self.latest |= {"tokens": record.tokens, "seconds": record.time}
        elif isinstance(record, ValidationRecord):
            least = min(record.loss, self.latest.get("validation_least", record.loss))
            self.latest |= {"validation_loss": record.loss, "validation_step": record.step, "validation_least": least}
