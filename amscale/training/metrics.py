"""What a run writes while it trains: `metrics.jsonl` for the ledger, TensorBoard for the eye. Rank 0 only."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from amscale.probes.measurement import Measurement
from amscale.trials.metrics import parse_record
from amscale.trials.store import TrialStore

_FLUSH_SECONDS = 1.0

LAYOUT = {
    "loss": {
        "nats per token": ["Multiline", ["^loss/train$", "^loss/validation$", "^loss/floor_1$", "^loss/entropy$"]]
    },
    "associative memory": {
        "radius beside r*": ["Multiline", ["^radius/layer_[0-9]+/(sampled_median|r_star)$"]],
        "layer steps that lower the energy": ["Multiline", ["^energy/global/steps_lowering_E(_global)?$"]],
        "log Z, unsquared distance": ["Multiline", ["^partition/layer_[0-9]+/log_Z_unsquared$"]],
    },
    "attention": {
        "keys that hold 90 % of the mass": ["Multiline", ["^attention/layer_[0-9]+/keys_for_90_percent_mean$"]]
    },
    "memorisation": {
        "loss without dropout": ["Multiline", ["^memorisation/(train|validation)_loss$", "^loss/entropy$"]],
        "continuations reproduced": ["Multiline", ["^memorisation/exact_continuation_(train|validation)$"]],
    },
}
"""Charts of TensorBoard's Custom Scalars tab: each a list of patterns of tags."""


class MetricsWriter:
    """Appends records to `metrics.jsonl` and mirrors them as TensorBoard scalars and histograms.

    Args:
        store: the trial's, with `metrics.jsonl` and the folder of event files.
        step: the step that training continues from. Later records are cut off first: they belong to a run that was
            killed after its newest checkpoint, and will be written again.
        entropy: of the corpus's source in nats per token, where it is known: a line beside the losses.
    """

    def __init__(self, store: TrialStore, step: int, entropy: float | None = None) -> None:
        store.check_attempt()
        cut_after(store.metrics, step)
        self._store = store
        self._lines_to_write: list[str] = []
        self._file: TextIO = store.metrics.open("a", encoding="utf-8")
        self._flushed = time.monotonic()
        self._board = SummaryWriter(str(store.tensorboard), purge_step=step + 1 if step else None, flush_secs=10)
        self._board.add_custom_scalars(LAYOUT)
        self._lines = {"loss/floor_1": 1.0} | ({} if entropy is None else {"loss/entropy": entropy})
        self._add_lines(step)

    def _add_lines(self, step: int) -> None:
        for name, value in self._lines.items():
            self._board.add_scalar(name, value, step)

    def train(self, step: int, tokens: int, loss: float, rate: float, norm: float, seconds: float) -> None:
        """One optimiser step: mean loss over its global batch in nats per token, before the update."""
        self._write(
            {
                "kind": "train",
                "step": step,
                "tokens": tokens,
                "loss": loss,
                "learning_rate": rate,
                "gradient_norm": norm,
                "time": round(seconds, 3),
            }
        )
        self._board.add_scalar("loss/train", loss, step)
        self._board.add_scalar("optimiser/learning_rate", rate, step)
        self._board.add_scalar("optimiser/gradient_norm", norm, step)

    def validation(self, step: int, loss: float) -> None:
        """Mean loss over the held-out tokens, nats per token."""
        self._write({"kind": "validation", "step": step, "loss": loss})
        self._board.add_scalar("loss/validation", loss, step)
        self._add_lines(step)

    def probe(self, step: int, measurement: Measurement) -> None:
        """One measurement of the probes, what it cost, and why anything is missing."""
        record = {
            "kind": "probe",
            "step": step,
            "pattern": measurement.pattern,
            "values": measurement.scalars,
            "seconds": measurement.seconds,
        }
        if measurement.reasons:
            record["reasons"] = measurement.reasons
        self._write(record)
        self._board.add_text("probes/pattern", f"What one sequence is as a pattern: {measurement.pattern}.", step)
        if measurement.reasons:
            lines = "\n".join(f"* `{name}`: {reason}" for name, reason in measurement.reasons.items())
            self._board.add_text("probes/not_measured", lines, step)
        self._board.add_scalar("probes/seconds", measurement.seconds, step)
        for name, value in measurement.scalars.items():
            self._board.add_scalar(name, value, step)
        for name, values in measurement.histograms.items():
            self._board.add_histogram(name, values, step)

    def hyper_parameters(self, settings: Mapping[str, Any], outcome: Mapping[str, float]) -> None:
        """The run's row in TensorBoard's HParams tab."""
        writer = self._board._get_file_writer()
        for summary in hparams(dict(settings), dict(outcome)):
            writer.add_summary(summary)
        for name, value in outcome.items():
            self._board.add_scalar(name, value)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._flush_lines()
        self._board.flush()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()
        self._board.close()

    def _write(self, record: dict[str, Any]) -> None:
        self._lines_to_write.append(json.dumps(record) + "\n")
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flush_lines()

    def _flush_lines(self) -> None:
        self._store.check_attempt()
        self._file.write("".join(self._lines_to_write))
        self._file.flush()
        self._lines_to_write.clear()
        self._flushed = time.monotonic()


def cut_after(metrics: Path, step: int) -> None:
    """Keep the whole records up to and including `step`: a torn or damaged line and what follows it are removed."""
    if not metrics.is_file():
        return
    keep = 0
    with metrics.open("rb") as file:
        for line in file:
            record = parse_record(line) if line.endswith(b"\n") else None
            if record is None or record.step > step:
                break
            keep += len(line)
    with metrics.open("r+b") as file:
        file.truncate(keep)
