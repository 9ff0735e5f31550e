"""Write what a run measures: `metrics.jsonl` and TensorBoard. Rank 0 only."""

import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from amscale.cluster.cards import Utilisation
from amscale.errors import InputError
from amscale.probes.interface import ScalarChart
from amscale.probes.measurement import Measurement
from amscale.trackers.reporting import Reporting
from amscale.trials.metrics import MetricsRecord, ProbeRecord, TrainRecord, ValidationRecord, parse_record
from amscale.trials.trial_store import TrialStore

_FLUSH_SECONDS = 1.0

_TRAIN, _VALIDATION = "Loss/train", "Loss/validation"
"""A capital letter sorts before all others: TensorBoard shows the losses first."""
_CHARTS = (
    ScalarChart("loss", "train, nats per token", (f"^{_TRAIN}$",)),
    ScalarChart("loss", "validation, nats per token", (f"^{_VALIDATION}$",)),
)
_LAYER = re.compile(r"layer_(\d+)")
_ANY_LAYER = "layer_[0-9]+"


def layers_shown(layers: int, most: int) -> list[int]:
    """Return the layers of which histograms and charts are shown: the last, the first, and those evenly between."""
    if most < 2:
        return [layers - 1][:most]
    return sorted({round(index * (layers - 1) / (most - 1)) for index in range(most)})


def _layout(charts: Sequence[ScalarChart], shown: Sequence[int]) -> dict[str, dict[str, list[Any]]]:
    """Return TensorBoard's layout of custom scalars: charts by category and title, one for each layer that is shown."""
    layout: dict[str, dict[str, list[Any]]] = {}
    for chart in (*_CHARTS, *charts):
        category = layout.setdefault(chart.category, {})
        if not any(_ANY_LAYER in tag for tag in chart.tags):
            category[chart.title] = ["Multiline", list(chart.tags)]
            continue
        for layer in shown:
            tags = [tag.replace(_ANY_LAYER, f"layer_{layer:02d}") for tag in chart.tags]
            category[f"{chart.title}, layer {layer:02d}"] = ["Multiline", tags]
    return layout


class MetricsWriter:
    """A writer of records to `metrics.jsonl`, and of the same numbers to TensorBoard.

    Args:
        store: the trial's, with `metrics.jsonl` and the folder of event files. Records after `step` are cut off first:
            they belong to a run that was killed after its newest checkpoint, and will be written again.
        step: the step that training continues from.
        charts: those of the probes, for the Custom Scalars tab.
        layers: of the model.
        histogram_layers: layers of which TensorBoard gets histograms, and charts, at most.
        utilisation: measures the MFU of each step; None where the device's peak is not known.
        reporting: gets the same numbers for the trackers that the sweep reports to.
    """

    def __init__(
        self,
        store: TrialStore,
        step: int,
        charts: Sequence[ScalarChart] = (),
        layers: int = 1,
        histogram_layers: int = 3,
        utilisation: Utilisation | None = None,
        reporting: Reporting | None = None,
    ) -> None:
        store.check_attempt()
        cut_after(store.metrics, step)
        self._store = store
        self._lines_to_write: list[str] = []
        self._file: TextIO = store.metrics.open("a", encoding="utf-8")
        self._flushed = time.monotonic()
        had_curves = any(store.tensorboard.glob("*tfevents*"))
        self._board = SummaryWriter(str(store.tensorboard), purge_step=step + 1 if step else None, flush_secs=10)
        self._shown = layers_shown(layers, histogram_layers)
        self._board.add_custom_scalars(_layout(charts, self._shown))
        if step and not had_curves:
            self._repeat_curves()
        self._utilisation = utilisation
        self._reporting = reporting
        self._before: tuple[int, float] | None = None
        """Tokens and seconds at the step before, of this attempt."""

    def _repeat_curves(self) -> None:
        """Draw what the trial recorded before it had curves: those of a trial that branched off another begin there."""
        for record in self._store.read_metrics(MetricsRecord):
            if isinstance(record, TrainRecord):
                self._board.add_scalar(_TRAIN, record.loss, record.step)
                if record.learning_rate is not None:
                    self._board.add_scalar("optimiser/learning_rate", record.learning_rate, record.step)
                if record.gradient_norm is not None:
                    self._board.add_scalar("optimiser/gradient_norm", record.gradient_norm, record.step)
            elif isinstance(record, ValidationRecord):
                self._board.add_scalar(_VALIDATION, record.loss, record.step)
            elif isinstance(record, ProbeRecord):
                for name, value in record.values.items():
                    self._board.add_scalar(name, value, record.step)

    def train(
        self, step: int, tokens: int, loss: float, rate: float | None, norm: float, seconds: float, applied: bool
    ) -> None:
        """Write one optimiser step: the mean loss over its global batch in nats per token, before the update.

        A step whose update was not applied, since its gradients were not finite, says so by `"skipped": true`. Its MFU
        is there from the second step of an attempt on, where the device's peak is known.
        """
        record: dict[str, Any] = {
            "kind": "train",
            "step": step,
            "tokens": tokens,
            "loss": loss,
            "learning_rate": rate,
            "gradient_norm": norm if math.isfinite(norm) else None,
            "time": round(seconds, 3),
        }
        if not applied:
            record["skipped"] = True
        if self._utilisation and self._before:
            record["mfu"] = self._utilisation.mfu(tokens - self._before[0], seconds - self._before[1])
        self._before = tokens, seconds
        self._write(record)
        shown = {
            _TRAIN: loss,
            "optimiser/learning_rate": rate,
            "optimiser/gradient_norm": record["gradient_norm"],
            "speed/mfu": record.get("mfu"),
        }
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in shown.items() if value is not None]
        # One event a step: `add_scalar` makes one of each number, and takes twice as long for them.
        self._board._get_file_writer().add_summary(Summary(value=values), step)

    def validation(self, step: int, loss: float) -> None:
        """Write the mean loss over the validation tokens, in nats per token."""
        self._write({"kind": "validation", "step": step, "loss": loss})
        self._board.add_scalar(_VALIDATION, loss, step)

    def probe(self, step: int, measurement: Measurement) -> None:
        """Write one measurement of the probes, its seconds, and why anything is missing.

        Raises:
            InputError: a tag or a value that no reader of `metrics.jsonl` would accept.
        """
        record = {
            "kind": "probe",
            "step": step,
            "pattern": measurement.pattern,
            "values": measurement.scalars,
            "seconds": measurement.seconds,
        }
        if measurement.reasons:
            record["reasons"] = measurement.reasons
        _check_readable(record)
        self._write(record)
        self._board.add_text("probes/pattern", f"Pattern of a sequence: {measurement.pattern}.", step)
        if measurement.reasons:
            lines = "\n".join(f"* `{name}`: {reason}" for name, reason in measurement.reasons.items())
            self._board.add_text("probes/not_measured", lines, step)
        self._board.add_scalar("probes/seconds", measurement.seconds, step)
        for name, value in measurement.scalars.items():
            self._board.add_scalar(name, value, step)
        for name, values in measurement.histograms.items():
            layer = _LAYER.search(name)
            if layer is None or int(layer.group(1)) in self._shown:
                self._board.add_histogram(f"histograms/{name}", values, step)

    def hyper_parameters(self, settings: Mapping[str, Any], outcome: Mapping[str, float]) -> None:
        """Write the run's row of TensorBoard's HParams tab."""
        writer = self._board._get_file_writer()
        for summary in hparams(dict(settings), dict(outcome)):
            writer.add_summary(summary)
        for name, value in outcome.items():
            self._board.add_scalar(name, value)

    def flush(self) -> None:
        """Hand everything that was written to the operating system."""
        self.flush_records()
        self._board.flush()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()
        self._board.close()

    def finish_reports(self, outcome: Mapping[str, Any] | None) -> None:
        """End the trackers' runs, and wait a bounded time for them.

        Args:
            outcome: losses and state; None where the trial was preempted.
        """
        if self._reporting:
            self._reporting.finish(outcome)

    def _write(self, record: dict[str, Any]) -> None:
        if self._reporting:
            self._reporting.log(record["step"], _numbers(record))
        self._lines_to_write.append(json.dumps(record) + "\n")
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush_records()

    def flush_records(self) -> None:
        """Hand the records to the operating system, so that they outlive this process."""
        self._store.check_attempt()
        self._file.write("".join(self._lines_to_write))
        self._file.flush()
        self._lines_to_write.clear()
        self._flushed = time.monotonic()


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a record by tag."""
    if record["kind"] == "probe":
        return dict(record["values"])
    found = {f"loss/{record['kind']}": record["loss"]} | {
        f"optimiser/{name}": record.get(name) for name in ("learning_rate", "gradient_norm")
    }
    return {tag: value for tag, value in found.items() if value is not None and math.isfinite(value)}


def _check_readable(record: dict[str, Any]) -> None:
    """Raise an error for what would make a reader of `metrics.jsonl` take the whole record for a damaged line.

    Raises:
        InputError: naming the first tag and value, or the reasons.
    """
    if parse_record(json.dumps(record)) is not None:
        return
    for tag, value in record["values"].items():
        if parse_record(json.dumps({**record, "values": {tag: value}, "reasons": {}})) is None:
            raise InputError(
                f"a probe measured {tag!r} = {value!r}; a tag is group/name or group/layer_00/name, of letters, digits "
                "and _, and its value a number: mend the probe"
            )
    raise InputError(f"a probe gave reasons {record.get('reasons')!r}; a reason is a sentence by tag: mend the probe")


def cut_after(metrics: Path, step: int) -> None:
    """Keep the whole records up to and including `step`; remove the first torn or damaged line and what follows it."""
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
