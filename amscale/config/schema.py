"""The schema of an experiment, one class per section of the YAML file. Every field carries its unit and a default."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from amscale.config.rules import is_rule, parse_rule, rule_text
from amscale.data import DataSettings
from amscale.errors import InputError
from amscale.models.registry import ModelSettings
from amscale.models.shape import Convention
from amscale.policies import find_policy
from amscale.probes.registry import ProbeSettings
from amscale.settings import AutoOrSize, Settings, Size
from amscale.trackers import TENSORBOARD, TRACKERS


class TrainSettings(Settings):
    """How one model is trained. Everything here is part of a trial's identity. A number may be a rule, see above."""

    policy: str | None = None
    """A published policy, `step_law`, `olmo_ladder`, `power_lines`, `marin` or `marin_delphi`, or one of an installed
    package: it sets what is not set here, from N, D and the tokens seen (docs/tuning.md). Its numbers are part of a
    trial's identity, its name is not."""
    steps: Size | None = Field(None, ge=1)
    """Optimiser steps. Give this or `epochs`, not both."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the D unique tokens. Give this or `steps`, not both."""
    batch_tokens: Size = Field(16384, ge=1)
    """Tokens in one global batch, whatever the number of processes: a whole number of sequences, at least one, the
    nearest to this / mean sequence length."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    """After the warm-up: cosine or linear decay over the rest, constant, or warm-up-stable-decay (decay at the end)."""
    warmup: float = Field(0.05, ge=0)
    """Linear warm-up: a share of the steps where below 1, a number of steps otherwise."""
    decay: float = Field(0.2, gt=0, le=1)
    """The last share of the steps in which `wsd` decays linearly."""
    least_decay: Size = Field(0, ge=0)
    """Steps that `wsd` decays at least, where `decay` would be fewer: short decays cool too little."""
    final_learning_rate: float = Field(0.1, ge=0, le=1)
    """Learning rate at the end of a decay, as a share of the peak."""
    order: Literal["auto", "shuffled", "nested"] = "auto"
    """Order of the sequences in the first pass. shuffled: all of them, another order for every D. nested: in blocks, so
    that a run of less D begins with the batches of one of more D. auto: nested under `wsd` with `epochs` of at most 1,
    no copies, and a warm-up in steps (or none), where runs of one N and several D can share their stable phase."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    epsilon: float = Field(1e-8, gt=0)
    """AdamW's denominator constant."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay of matrices; vectors (norms, biases) are never decayed."""
    gradient_clip: float = Field(1.0, ge=0)
    """Largest global gradient norm; 0 does not clip."""
    z_loss: float = Field(0.0, ge=0)
    """Weight of the mean squared log-partition function of the logits, added to the cross-entropy while training (PaLM:
    1e-4). Losses are reported without it."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of a target's probability that training spreads over the vocabulary. Losses are reported without it."""
    validate_every: AutoOrSize = "auto"
    """Steps between measurements of the validation loss. It is measured at the last step too. auto: so that they take
    about 1 % of the run's arithmetic, at most 50 times; 100 with `patience`, or where trials share a beginning."""
    validation_tokens: AutoOrSize = "auto"
    """Validation tokens measured each time: the first of the held-out documents, always the same. auto: 4,096 to 64k by
    the length of the run, evenly spaced over the documents, and at the end 64k, or what 1 % of its arithmetic
    measures."""
    compile: Literal["auto"] | bool = "auto"
    """Whether the network is compiled by torch.compile. auto: where the run is long enough to pay for it, and a C++
    compiler is there. Results differ by rounding alone, so that this is no part of a trial's identity."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many validations in a row without a new least validation loss. None: train to the end."""
    script: str | None = None
    """A training script of your own, which every rank runs in the place of amscale's loop; `amscale.current_trial()`
    tells it its cell. The same path on every machine. None: amscale trains."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Settings of the script, such as train.options.dropout; grids may vary them."""

    @model_validator(mode="after")
    def _whole_path(self) -> "TrainSettings":
        if self.script is not None:
            object.__setattr__(self, "script", str(Path(os.path.expanduser(self.script)).absolute()))
        elif self.options:
            raise ValueError("train.options are those of train.script, which is not given; give it, or leave them out")
        return self

    rules: tuple[tuple[str, str], ...] = Field((), alias="(rules)", exclude=True)
    """Settings that are expressions, until the plan knows their values: names and texts."""

    @model_validator(mode="before")
    @classmethod
    def _set_rules_apart(cls, tree: Any) -> Any:
        """Move settings that are expressions into `rules`; each is checked as it stands.

        Raises:
            InputError: an expression is malformed, or there is no such policy.
        """
        if not isinstance(tree, dict):
            return tree
        names = numeric_settings(cls)
        rules = {
            key: rule_text(value)
            for key, value in tree.items()
            if key in names and is_rule(value) and value not in _kinds(cls.model_fields[key].annotation)
        }
        for key, text in rules.items():
            try:
                parsed = parse_rule(text)
            except ValueError as error:
                raise InputError(f"train.{key}={tree[key]!r}: {error}") from None
            if "policy" in parsed.names and (tree.get("policy") is None):
                raise InputError(f"train.{key}={tree[key]!r}: it names the policy, and train.policy gives none")
        if isinstance(tree.get("policy"), str):
            find_policy(tree["policy"])
        rest = {key: value for key, value in tree.items() if key not in rules}
        return rest | {"(rules)": tuple(rules.items())} if rules else rest

    @model_serializer(mode="wrap")
    def _write_rules(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write each rule under the key of its setting."""
        written: dict[str, Any] = write(self)
        return written | dict(self.rules)

    @model_validator(mode="after")
    def _one_length(self) -> "TrainSettings":
        rules = dict(self.rules)
        if (self.steps is None and "steps" not in rules) == (self.epochs is None and "epochs" not in rules):
            raise ValueError("give exactly one of train.steps and train.epochs; train.steps=null takes back the steps")
        return self

    def warmup_steps(self, steps: int) -> float:
        """Return the steps of the warm-up of a run of `steps`."""
        return self.warmup * steps if self.warmup < 1 else self.warmup

    def decay_start(self, steps: int) -> float:
        """Return the step after which `wsd` decays, in a run of `steps`."""
        return max(self.warmup_steps(steps), min(steps * (1 - self.decay), steps - self.least_decay))


@lru_cache(maxsize=8)
def numeric_settings(cls: type[TrainSettings]) -> dict[str, bool]:
    """Return the settings that may be rules, with whether each is a whole number."""
    found = {}
    for name, field in cls.model_fields.items():
        kinds = set(_kinds(field.annotation))
        if kinds & {int, float} and not field.exclude:
            found[name] = float not in kinds
    return found


def _kinds(annotation: Any) -> Iterator[Any]:
    inside = get_args(annotation)
    for each in inside:
        yield from _kinds(each)
    if not inside:
        yield annotation


LEAST_GRACE = 30.0
"""Seconds of `launch.grace=auto` before a trial's checkpoints have been measured."""


def _off(value: Any) -> Any:
    return "off" if value is False else value  # YAML 1.1 reads `off` as false


class LaunchSettings(Settings):
    """Where and how trials run. Nothing here but `precision` is part of a trial's identity."""

    machines: AutoOrSize = 1
    """Machines of one trial. auto: as few as the memory estimate allows."""
    processes_per_machine: AutoOrSize = "auto"
    """Processes (GPUs, or CPU ranks) of one trial on each machine. auto: as few as the memory estimate allows."""
    cpus_per_process: AutoOrSize = 1
    """CPU cores, and threads, of one process. auto: more than 1 where fewer trials wait than there are cores and a step
    is long enough. Another number rounds otherwise: with auto a loss may depend in its last digits on how many trials
    waited when the trial was first started; one that has a checkpoint keeps its number."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the tensors live. auto: cuda where the machines have it."""
    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """DeepSpeed ZeRO stage. auto: the smallest whose memory estimate fits the device; at least 1 with bf16."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the model. auto: bf16 on GPUs that compute in it, fp32 elsewhere. What was asked for is part of a
    trial's identity."""
    micro_batch: AutoOrSize = "auto"
    """Sequences per process and forward pass. auto: the largest power of two whose memory estimate fits. Halved, with
    the global batch unchanged, where a rank still runs out of memory."""
    device_memory: AutoOrSize = "auto"
    """Memory in bytes of one process's device (`80G`). auto: read from the machines."""
    gpu_fraction: Literal["auto"] | Annotated[float, Field(ge=0.01, le=1)] = "auto"
    """Part of a GPU that a trial of one process reserves (0.1), and to which its memory is capped. auto: where trials
    outnumber GPUs, the least that its memory and its arithmetic need, at least a tenth. 1: never share a GPU."""
    share_trunk: Literal["auto"] | bool = "auto"
    """Whether trials that differ in D alone share a stable phase under `wsd` (`train.order`): that of the most D trains
    it, and the others branch off before their decay, with the same results as if each trained from its first step.
    auto: where the whole sweep is expected to end sooner so; many short trials are trained sooner in packs."""
    concurrent_trials: int | None = Field(None, ge=1)
    """At most this many trials at a time. None: as many as fit the cluster."""
    warm_starts: bool = True
    """Whether trials of one machine's CPUs are forked from a process of the sweep that has imported everything already,
    which saves seconds a trial. Otherwise, and on GPUs and several machines, `accelerate launch` starts each."""
    pack: Annotated[Literal["auto", "off"] | Annotated[int, Field(ge=2)], BeforeValidator(_off)] = "auto"
    """Most trials of one shape that one process trains together, with stacked parameters, on CPUs without dropout.
    auto: short trials, where there are more than two for each that can run at a time. off: none."""
    retries: int = Field(2, ge=0)
    """How often a failed trial is restarted from its newest checkpoint without having got on: a newer checkpoint than
    at the failure before makes the count begin anew."""
    stalled_after: float = Field(1800, gt=0)
    """Seconds without a new record after which a trial counts as hung and is restarted, at most: earlier after ten
    times the longest interval between its records so far, but 300 s. 300 s more before an attempt's first record."""
    grace: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """Seconds that a trial's processes have to write a checkpoint when they are asked to end; then they are killed.
    auto: 30, and more where a step and a checkpoint of the trial have taken more than 10: twice as much, and 10."""
    collective_timeout: float = Field(1800, gt=0)
    """Seconds that a collective of training may take before its ranks end with an error; NCCL's own default is 600."""
    files_timeout: float = Field(7200, gt=0)
    """Seconds that ranks wait for each other where files are written, checked and uploaded, over gloo on any device."""
    visible_after: float = Field(120, gt=0)
    """Seconds that storage may take to show one machine what another wrote (NFS caches for up to a minute)."""
    checkpoint_every: Size = Field(500, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(2, ge=1)
    """Checkpoints kept for each unfinished trial."""
    scratch: str | None = None
    """Folder on each machine in which it works on trials where `storage` is a URI; `~` and `$VARIABLES` are
    expanded on that machine. None: a folder below the temporary folder ($TMPDIR)."""
    address: str | None = None
    """Address of a running Ray cluster (`auto` finds one). None starts Ray on this machine, bound to loopback."""

    @property
    def least_cpus(self) -> int:
        """The cores that a process has at least."""
        return 1 if self.cpus_per_process == "auto" else self.cpus_per_process

    @property
    def least_grace(self) -> float:
        """The grace in seconds before anything of a trial has been measured."""
        return LEAST_GRACE if self.grace == "auto" else self.grace


class FitSettings(Settings):
    """What is estimated once the trials are done."""

    count: Convention = "non_embedding"
    """The parameters that count as N. The paper's are attention and feed-forward only; `active` takes of a mixture of
    experts only those that one token passes through."""
    window: float = Field(0.2, gt=0)
    """Window of the D* criterion: a share of the steps before the least validation loss where at most 1, else steps."""
    threshold: float = Field(0.04, gt=0)
    """Threshold of the D* criterion, in nats squared."""
    hypotheses: tuple[float, ...] = (0.5, 1.0, 1.35, 2.0, 4.0)
    """Exponents k of N = C·D^k that are tested."""


Axis = Annotated[tuple[Any, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list | tuple) else (v,))]


_TUNABLE = tuple(
    f"train.{name}"
    for name in (
        "learning_rate",
        "batch_tokens",
        "weight_decay",
        "warmup",
        "decay",
        "final_learning_rate",
        "epsilon",
        "gradient_clip",
        "z_loss",
        "label_smoothing",
    )
)
"""Settings of which a cell can have a best value; the length of training is an axis of the grid."""


class TuneSettings(Settings):
    """Settings that are tuned by cell: each cell of N and D runs every value, and its fit takes the optimum."""

    axes: dict[str, Axis] = Field(default_factory=dict)
    """Dotted keys of `train` to lists of values, written as keys of `tune` itself. `x0.5` is a multiple of what the
    setting, its rule or the policy has otherwise."""
    small: Size | None = Field(None, ge=1)
    """Cells with an N up to this run all values first; larger ones then only the value that the rule through these
    gives, and one step to each side. None: all cells run all values."""
    stop: Literal["asha"] | None = None
    """`asha`: values that are hopeless beside the others of their cell are stopped early (Ray Tune's ASHA) and count as
    tried; never the last of a cell. None: all run to their end."""

    @model_validator(mode="before")
    @classmethod
    def _gather_axes(cls, tree: Any) -> Any:
        """Move keys that name a setting into `axes`; `train: {learning_rate: ...}` is the same as a dotted key."""
        if not isinstance(tree, dict):
            return tree
        own = {key: value for key, value in tree.items() if key in cls.model_fields}
        axes = dict(own.pop("axes", None) or {})
        for key, value in tree.items():
            if key not in cls.model_fields:
                axes |= (
                    {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, dict) else {key: value}
                )
        return own | {"axes": axes}

    @model_serializer(mode="wrap")
    def _write_axes(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write each axis under its own key."""
        written: dict[str, Any] = write(self)
        return written.pop("axes", {}) | written

    @model_validator(mode="after")
    def _has_axes(self) -> "TuneSettings":
        for key, values in self.axes.items():
            if key not in _TUNABLE:
                allowed = ", ".join(_TUNABLE)
                raise InputError(f"tune.{key}: not a setting that can be tuned; those are {allowed}")
            if not values:
                raise InputError(f"tune.{key}=[]: give at least one value")
        if not self.axes:
            raise InputError("tune: names no setting; write tune: {train.learning_rate: [x0.5, x1, x2]}")
        return self


Names = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]


class Experiment(Settings):
    """One experiment: a grid of trials over settings that the trials share."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    """Name of the sweep, and of its folder."""
    grid: dict[str, Axis] = Field(default_factory=dict)
    """Axes: any dotted key to a list of its values. The trials are their product."""
    tune: TuneSettings | None = None
    """Axes that each cell of the grid is tuned over, such as `train.learning_rate: [x0.5, x1, x2]`."""
    model: ModelSettings
    """The model family and its shape."""
    data: DataSettings
    """The corpus, its tokenizer and how much of it is used."""
    train: TrainSettings
    """Optimisation and its length."""
    probes: ProbeSettings = ProbeSettings()
    """What is measured while training."""
    launch: LaunchSettings = LaunchSettings()
    """Machines, processes and memory."""
    fit: FitSettings = FitSettings()
    """Estimates afterwards."""
    seed: int = Field(0, ge=0)
    """Seed of initialisation, batches and dropout."""
    report_to: Names = ("tensorboard",)
    """Trackers that show the trials as runs, beside TensorBoard's event files, which every trial has: wandb, mlflow,
    trackio."""
    storage: str = "results"
    """Folder for results, on a disk that all machines of a trial share; or a URI that pyarrow.fs takes, such as
    `s3://bucket/prefix`, with credentials from the environment (docs/storage.md)."""

    @model_validator(mode="after")
    def _trackers_are_known(self) -> "Experiment":
        for name in self.report_to:
            if name != TENSORBOARD and name not in TRACKERS:
                allowed = ", ".join((TENSORBOARD, *TRACKERS))
                raise ValueError(f"report_to: there is no tracker {name!r}; allowed are {allowed}")
        return self

    @model_validator(mode="after")
    def _script_has_what_it_needs(self) -> "Experiment":
        script = self.train.script
        for key, name in (("model.family", self.model.family), ("data.corpus", self.data.corpus)):
            if name == "script" and script is None:
                raise ValueError(f"{key}=script names what a script of yours makes; give train.script, or another")
        if script is not None and "://" in self.storage:
            raise ValueError(
                f"train.script keeps its checkpoints in a folder, and storage={self.storage!r} is a URI; "
                "give a folder that all machines share"
            )
        return self

    @property
    def order(self) -> Literal["shuffled", "nested"]:
        """The order of the first pass over the data: `train.order`, resolved."""
        train = self.train
        if train.order != "auto":
            return train.order
        one_pass = train.epochs is not None and train.epochs <= 1 and self.data.copies == 1
        same_warmup = train.warmup == 0 or train.warmup >= 1
        ours = train.script is None  # a script has an order of its own
        return "nested" if ours and train.schedule == "wsd" and one_pass and same_warmup else "shuffled"

    @property
    def block_growth(self) -> float | None:
        """Growth of the blocks of a nested order, so that they end before the decay; None for a shuffled one."""
        return self.train.decay / 2 if self.order == "nested" else None
