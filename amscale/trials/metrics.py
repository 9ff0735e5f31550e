"""Files that a user, a crash or another version may have written: read as plain data, or refused in one line.

Everything is data: YAML by its safe loader, JSON, text. What comes out has bounded depth, size and numbers, so that no
later step can be brought to run for hours or out of memory by a few lines of text.

The newest numbers of a trial, read from its metrics as they grow.
"""

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from amscale.errors import InputError
from amscale.files import is_number, parse_json

_NUMBERS = {"train": ("loss", "tokens", "time", "learning_rate", "gradient_norm"), "validation": ("loss",), "probe": ()}
"""The numbers in a record of each kind; the first must be there."""
_MEASURED = re.compile(r"\w+/(layer_[0-9]{1,4}/\w+|(?!layer_)\w+(/\w+)*)", re.ASCII)
"""The name of a value that a probe measured: `group/layer_00/name`, `group/global/name` or `group/name`."""


def parse_record(line: str | bytes) -> dict[str, Any] | None:
    """A record of `metrics.jsonl`, or None for a line that is none: torn by a crash, or damaged.

    It has a `kind` and a `step`; training and validation have a `loss`, which is not a number where a run diverged.
    """
    try:
        record = parse_json(line)
    except ValueError:
        return None
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in _NUMBERS:
        return None
    step, numbers = record.get("step"), _NUMBERS[kind]
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        return None
    if (numbers and "loss" not in record) or not all(is_number(record[name]) for name in numbers if name in record):
        return None
    if kind == "probe" and not _are_numbers(record.get("values")):
        return None
    return record


def _are_numbers(values: Any) -> bool:
    return isinstance(values, Mapping) and all(
        _MEASURED.fullmatch(name) and is_number(value) for name, value in values.items()
    )


def read_records(path: Path) -> Iterator[dict[str, Any] | None]:
    """The lines of `metrics.jsonl` in order, None for one that is no record, as a last line without an end is none.

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
    """Follows a `metrics.jsonl`.

    Args:
        metrics: the file, which need not be there yet.
    """

    def __init__(self, metrics: Path) -> None:
        self._metrics = metrics
        self._read = metrics.stat().st_size if metrics.is_file() else 0
        self._heard = time.monotonic()
        self.heard = False
        """Whether anything was added since the newest start."""
        self.latest: dict[str, Any] = {"state": "starting"}

    def restart(self) -> None:
        """The trial was started just now: silence counts from here."""
        self.heard = False
        self._heard = time.monotonic()

    def read(self) -> float:
        """Take in what was added; returns the seconds since anything was."""
        size = self._metrics.stat().st_size if self._metrics.is_file() else 0
        if size < self._read:  # cut back to a checkpoint's step
            self._read = 0
        if size == self._read:
            return time.monotonic() - self._heard
        with self._metrics.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                if (record := parse_record(line)) is not None:
                    self._take(record)
        self._heard = time.monotonic()
        self.heard = True
        return 0.0

    def _take(self, record: dict[str, Any]) -> None:
        if record["kind"] == "train":
            self.latest |= {"state": "training", "step": record["step"], "loss": record["loss"]}
            self.latest |= {"tokens": record.get("tokens"), "seconds": record.get("time")}
        elif record["kind"] == "validation":
            self.latest["validation_loss"] = record["loss"]
