"""Typed records of one trial: its spec, its result, and the attempts that failed.

A record is checked once, where it is read: what must be there and is not gives one line, and no later step has to ask
again. Fields that older versions did not write are optional. docs/files.md lists the files and their keys.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PlainValidator, ValidationError

from amscale.errors import InputError
from amscale.files import parse_json, parse_yaml, read_lines
from amscale.trials.record import FORMAT, Amount, Count, Number, R, Record, checked, count

_Positive = Annotated[int, Field(strict=True, ge=1)]


@dataclass(frozen=True)
class Placement:
    """Where a trial runs: machines, processes, device and DeepSpeed stage. Not part of its identity."""

    machines: _Positive
    processes_per_machine: _Positive
    cpus_per_process: _Positive
    device: Literal["cpu", "cuda"]
    zero_stage: Annotated[int, Field(strict=True, ge=0, le=3)]
    precision: Literal["fp32", "bf16"]
    micro_batch: _Positive
    """Sequences per process and forward pass."""
    accumulation: _Positive
    """Forward passes per optimiser step."""
    gpu_fraction: Annotated[float, Field(strict=True, gt=0, le=1)] = 1.0
    """The part of a GPU that its one process reserves; 1 where each process has its own."""
    device_memory: Annotated[int, Field(strict=True, ge=0)] = 0
    """Bytes that a device must have at least, where the plan found machines with less; 0 where any will do."""

    @property
    def world_size(self) -> int:
        """Processes of the trial over all its machines."""
        return self.machines * self.processes_per_machine

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


def _label(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", value):
        raise ValueError("the name of a trial")
    return value


class SpecBranch(Record):
    """A trial that branches off this one: it goes on from this one's state after `step`."""

    label: Annotated[str, PlainValidator(_label)]
    step: Count


class TrialSpec(Record):
    """What `spec.yaml` holds: what a trial is (settings) and where its newest attempt runs (placement)."""

    format: int = FORMAT
    trial: str
    """Identity: twelve hexadecimal digits."""
    label: Annotated[str, PlainValidator(_label)]
    """Name of the trial's folder: one part of a path."""
    placement: Placement
    store: str
    """Path of the token store; its name counts. Empty where the trial's script reads data by itself."""
    settings: dict[str, Any]
    """All settings of the cell, for `amscale.config.parse`."""
    branches: list[SpecBranch] = Field(default_factory=list)
    """Trials that wait for this one, in the sweep that runs it."""

    @classmethod
    def from_yaml(cls, text: str, source: Path) -> "TrialSpec":
        """Read the text of a `spec.yaml`.

        Raises:
            InputError: not YAML, another format, or a field that is missing or wrong.
        """
        advice = "remove the folder to run the trial again"
        try:
            tree = parse_yaml(text)
        except ValueError as error:
            raise InputError(f"{source}: not a trial's spec ({error}); {advice}") from None
        return checked(cls, tree, source, advice)

    def to_yaml(self) -> str:
        """Return the text of `spec.yaml`."""
        return yaml.safe_dump(self.to_tree(), sort_keys=False)


class ResultShape(Record):
    """Dimensions of the model."""

    family: str | None = None
    layers: Count | None = None
    width: Count | None = None
    heads: Count | None = None
    feed_forward: Count | None = None
    vocabulary: Count | None = None
    context: Count | None = None
    options: dict[str, Any] | None = None
    """The family's own choices."""
    wanted: Count | None = None
    """The size that was asked for under `count`; None where the dimensions were given."""
    count: str | None = None


class ResultParameters(Record):
    """Parameters by component, and all of them."""

    embedding: Amount
    output_head: Amount
    attention: Amount
    feed_forward: Amount
    norms_and_rest: Amount
    total: Amount
    active_feed_forward: Amount | None = None
    """Those of feed_forward that one token passes through; None without experts."""


class ResultFlops(Record):
    """Training FLOPs by the formula that is named."""

    formula: str | None = None
    per_token: Number | None = None
    total: Number
    peak: Number | None = None
    """FLOP/s of one device at most, in bf16; this and what follows is absent where it is not known."""
    mfu: Number | None = None
    """Model FLOPs utilisation over all steps."""
    mfu_formula: str | None = None


class ResultData(Record):
    """What the run was trained on: unique tokens D, and the facts of its corpus."""

    corpus: str | None = None
    unique_tokens: Amount
    documents: Count | None = None
    tokens_seen: Amount | None = None
    epochs: Number | None = None
    entropy_per_token: Number | None = None
    """Entropy of the corpus's source in nats per token, where it is known."""
    memorised_per_token: Number | None = None


class ResultLosses(Record):
    """Losses in nats per token; None where nothing was measured.

    `train_last` and `train_least` are means over `train_window` steps, `train_evaluated` is without dropout.
    Where the end measured more than a validation's sample, `validation_last` is a mean over `validation_tokens`, with
    its standard error, and `validation_least` is moved by the sample's error at the end.
    """

    validation_last: Number | None = None
    validation_least: Number | None = None
    validation_least_step: Count | None = None
    validation_standard_error: Number | None = None
    validation_tokens: Count | None = None
    train_last: Number | None = None
    train_least: Number | None = None
    train_least_step: Count | None = None
    train_window: Count | None = None
    train_evaluated: Number | None = None


class ResultTime(Record):
    """Seconds; `probe_share` is the probes' part of the time of the steps."""

    wall_seconds: Number | None = None
    device_seconds: Number | None = None
    probe_seconds: Number | None = None
    probe_share: Number | None = None
    checkpoint_seconds: Number | None = None
    """The longest that a checkpoint took, its upload included; None without one."""


class ResultMemory(Record):
    """Peaks of memory in bytes; None where the system does not tell, or an earlier version did not ask."""

    peak_host_bytes: Amount | None = None
    """Resident memory of rank 0, libraries and the files that it reads included."""
    before_model_bytes: Amount | None = None
    """Private memory of a process before it made the model; of this and all that follow, the most of a rank."""
    peak_private_bytes: Amount | None = None
    """Private memory of a process, until the weights were written."""
    peak_device_bytes: Amount | None = None
    """Memory that tensors took on a GPU; None on a CPU."""

    @property
    def training_bytes(self) -> float | None:
        """What training took on its device, beyond what its process held before; None where it was not measured."""
        if self.peak_device_bytes is not None:
            return self.peak_device_bytes
        if self.peak_private_bytes is None or self.before_model_bytes is None:
            return None
        return max(0.0, self.peak_private_bytes - self.before_model_bytes)


class ResultElectricity(Record):
    """Electricity in kWh while a trial trained, by counters of whole devices and machines; None where there are none.

    Nothing to do with the Hopfield energy that probes measure.
    """

    device_kwh: Amount | None = None
    """Of its GPUs (NVML)."""
    host_kwh: Amount | None = None
    """Of the processors of its machines (RAPL)."""
    reasons: dict[str, str] = Field(default_factory=dict)
    """Why `device` or `host` is not known."""


class ResultBranch(Record):
    """Where a trial branched off another, and what it did not train again."""

    trial: str
    label: str
    step: Count
    tokens: Amount
    device_seconds: Amount
    """Of the steps that the other trial trained; `time.device_seconds` counts them as if they were this one's."""


def _world_size(value: Any) -> int:
    if count(value) < 1:
        raise ValueError("a whole number of at least 1")
    return int(value)


class ResultEngine(Record):
    """What the engine said of itself, and the micro-batches that did not fit the memory."""

    distributed_type: str | None = None
    engine: str | None = None
    world_size: Annotated[int, PlainValidator(_world_size)] = 1
    zero_stage: Count | None = None
    precision: str | None = None
    micro_batch: Count | None = None
    accumulation: Count | None = None
    device: str | None = None
    device_name: str | None = None
    """Model of rank 0's GPU or CPU."""
    optimizer_elements: list[Count] | None = None
    """Elements of AdamW's first moment on each rank."""
    out_of_memory_at: list[Count] | None = None
    compiled: bool = False
    """Whether the network was compiled by torch.compile."""
    skipped_updates: Count | None = None
    """Updates that were not applied, since their gradients were not finite."""


class ResultPacked(Record):
    """The trials that were trained with this one by one process, with stacked parameters."""

    largest: Count
    """How many there were at once, this one included, when this attempt began."""
    members: list[str]
    """Their labels, this one's included."""


class ResultScript(Record):
    """The training script of the user's own that ran a trial, and what it reported of itself."""

    path: str | None = None
    code: str | None = None
    """Hash of its code."""
    reported: tuple[str, ...] = ()
    """What is recorded as the script reported it: `parameters`, `unique_tokens`, `tokens_seen`. Of the rest amscale's
    plan is recorded."""


class TrialResult(Record):
    """What `result.json` holds: the outcome of one trial."""

    format: int = FORMAT
    trial: str | None = None
    label: str | None = None
    state: str
    """`finished`, `diverged`, or `stopped_early`: a hopeless value of a tuned setting."""
    reason: str | None = None
    seed: Count | None = None
    steps: Count
    shape: ResultShape
    parameters: ResultParameters
    flops: ResultFlops
    data: ResultData
    losses: ResultLosses
    time: ResultTime = ResultTime()
    memory: ResultMemory = ResultMemory()
    engine: ResultEngine = ResultEngine()
    script: ResultScript | None = None
    """None where amscale trained."""
    electricity: ResultElectricity | None = None
    """None where an earlier version did not look."""
    branch: ResultBranch | None = None
    """The trial that it branched off; None where it trained from its first step."""
    packed: ResultPacked | None = None
    """The trials that one process trained together; None where it was alone."""
    versions: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    """All settings of the cell, defaults included, as the version that ran it wrote them."""

    @classmethod
    def from_json(cls, text: str, source: Path) -> "TrialResult":
        """Read the text of a `result.json`.

        Raises:
            InputError: not JSON, another format, or a field that is missing or wrong.
        """
        advice = "remove the file to run the trial again"
        try:
            tree = parse_json(text)
        except ValueError as error:
            raise InputError(f"{source}: not valid JSON ({error}); {advice}") from None
        return checked(cls, tree, source, advice)

    def to_json(self) -> str:
        """Return the text of `result.json`."""
        return json.dumps(self.to_tree(), indent=1)

    def setting(self, key: str) -> Any:
        """Return the value of a dotted key of the settings, or of `engine` or `versions`; None without one."""
        value: Any = {**self.settings, "engine": dict(self.engine), "versions": self.versions}
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def section(self, name: str) -> dict[str, Any]:
        """Return one section of the settings; empty where there is no such section."""
        value = self.settings.get(name)
        return value if isinstance(value, dict) else {}

    @property
    def device_flops(self) -> float | None:
        """Training FLOP/s of one device; None where the run was not timed."""
        seconds = self.time.device_seconds
        return self.flops.total / seconds if seconds else None


class Failure(Record):
    """One attempt that failed: a line of `failures.jsonl`."""

    time: Number
    """Seconds since 1970."""
    reason: str


class OutOfMemory(Failure):
    """One placement that did not fit the memory: a line of `out_of_memory.jsonl`."""

    placement: Placement

    def to_tree(self) -> dict[str, Any]:
        """Return one flat mapping: time, reason and the fields of the placement."""
        return {"time": self.time, "reason": self.reason, **self.placement.to_dict()}


def read_failures(path: Path) -> list[Failure]:
    """Read the failed attempts of a trial; lines that are torn or damaged are left out.

    Raises:
        InputError: the file cannot be read.
    """
    return list(_valid(Failure, read_lines(path, "time", "reason")))


def read_out_of_memory(path: Path) -> list[OutOfMemory]:
    """Read the placements of a trial that did not fit the memory; lines that are torn or damaged are left out.

    Raises:
        InputError: the file cannot be read.
    """
    entries = read_lines(path, "time", "reason")
    return list(_valid(OutOfMemory, [entry | {"placement": entry} for entry in entries]))


def _valid(kind: type[R], entries: list[dict[str, Any]]) -> Iterator[R]:
    for entry in entries:
        try:
            yield kind.model_validate(entry)
        except ValidationError:
            continue
