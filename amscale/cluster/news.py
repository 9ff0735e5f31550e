"""The newest numbers of a trial, read from its metrics as they grow."""

import time
from pathlib import Path
from typing import Any

from amscale.reading import parse_record


class News:
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
