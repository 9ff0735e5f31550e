"""Plan a sweep: the list of its trials, each with its shape, steps, cost and placement."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale import models
from amscale.cluster.resources import Resources
from amscale.cluster.supervisor import measured_grace
from amscale.config import Experiment, LaunchSettings
from amscale.config.loading import all_axes
from amscale.data import Subset, TokenStatistics, TokenStore, corpus_content, statistics_without_tokens
from amscale.errors import InputError
from amscale.models import FLOPS_FORMULA, Shape
from amscale.planning.branches import Branch, plan_branches
from amscale.planning.corpora import Corpora
from amscale.planning.memory import Comparison, Memory, compare_memory
from amscale.planning.packs import Pack, describe_packs, loads, plan_packs
from amscale.planning.placement import choose_placement
from amscale.planning.probing import probe_interval
from amscale.planning.resolving import describe_policies, resolve
from amscale.planning.sharing import share_gpus
from amscale.planning.speeds import Speeds, speeds_for
from amscale.planning.staging import stage_cells
from amscale.planning.times import makespan, places, trial_seconds
from amscale.trials.identity import trial_id, trial_label
from amscale.trials.records import Placement
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

if TYPE_CHECKING:
    from pandas import DataFrame

_RECORD_BYTES = 350
"""Of a step: its line in metrics.jsonl and what TensorBoard keeps."""
_AXES_IN_COLUMNS = {"model.size", "model.layers", "model.width", "data.size", "seed", "train.steps"}
"""Axes whose values the columns of every plan show."""


@dataclass(frozen=True)
class StepPlan:
    """How a trial's tokens become optimiser steps."""

    context: int
    """Tokens of a sequence, at most."""
    sequences: int
    """Sequences of a global batch."""
    mean_tokens: float
    """Mean tokens of a sequence over the corpus."""
    steps: int


@dataclass(frozen=True)
class TrialPlan:
    """One trial before it runs."""

    cell: Experiment
    """Its settings: one cell of the grid, as numbers."""
    identity: str
    label: str
    shape: Shape
    N: int
    """Model size under the sweep's counting convention."""
    D: int
    """Unique training tokens."""
    step_plan: StepPlan
    flops: float
    """Training FLOPs of all steps."""
    placement: Placement
    memory: Memory
    """Estimated for one process."""
    seconds: float
    """Expected wall time, start included."""
    store: TokenStore | None
    """None in a plan that was made before the corpus was tokenised."""
    by_rule: tuple[str, ...] = ()
    """Dotted keys of its settings that rules or the policy gave."""
    branch: Branch | None = None
    """Where it branches off another trial; `seconds` is what is left from there on."""

    @property
    def steps(self) -> int:
        """Optimiser steps, at most."""
        return self.step_plan.steps

    @property
    def flops_saved(self) -> float:
        """Training FLOPs of the steps that the trial does not train itself."""
        return self.flops * self.branch.step / self.steps if self.branch else 0.0

    def setting(self, key: str) -> Any:
        """Return the value of a dotted key of the trial's settings, such as `train.learning_rate`."""
        value: Any = self.cell
        for part in key.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value


@dataclass(frozen=True)
class SweepPlan:
    """All trials of a sweep, by N, D and seed; those that agree in these in the order of the grid."""

    trials: tuple[TrialPlan, ...]
    axes: tuple[str, ...]
    """Dotted keys that the grid varies."""
    grid: tuple[str, ...]
    """Those of `axes` that make the cells; over the others each cell is tuned."""
    stops_early: bool
    """Whether hopeless values of tuned settings are stopped early."""
    resources: Resources
    count: str
    """Convention for N."""
    flops_formula: str
    seconds: float
    """Expected wall time of the sweep on these machines."""
    speeds: Speeds
    """What the expected times rest on."""
    concurrent: int | None
    """Trials that may run at a time, at most; None where the machines decide."""
    end_seconds: float
    """Seconds that trials may need to write their checkpoints when they are asked to end."""
    texts: tuple[str, ...] = ()
    """A sentence on each text: its documents, and what its tokenizer lost."""
    policies: tuple[str, ...] = ()
    """A sentence on each policy: its source, what N is in it, and what was set by hand instead."""
    stages: tuple[str, ...] = ()
    """A sentence on each stage of a sweep that tunes small cells first."""
    later: tuple[TrialPlan, ...] = ()
    """Trials of the second stage while the first has not all its results; their tuned settings are provisional."""
    memory_basis: tuple[str, ...] = ()
    """A sentence for each kind of device whose memory estimates are corrected by earlier results of the sweep."""
    packs: tuple[Pack, ...] = ()
    """Trials without a result that one process trains together."""
    pack_notes: tuple[str, ...] = ()
    """What a reader should know of them."""

    @property
    def further_axes(self) -> tuple[str, ...]:
        """Axes, and settings that rules or a policy give differently, that no column of a plan shows otherwise."""
        keys = [*self.axes, *(key for key, values in self._by_rule().items() if len(values) > 1)]
        return tuple(key for key in dict.fromkeys(keys) if key not in _AXES_IN_COLUMNS)

    @property
    def common_settings(self) -> dict[str, Any]:
        """Settings that rules or a policy give, and that are the same for all trials."""
        return {key: values[0] for key, values in self._by_rule().items() if len(values) == 1 and key not in self.axes}

    def _by_rule(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for key in dict.fromkeys(key for trial in self.trials for key in trial.by_rule):
            for value in (trial.setting(key) for trial in self.trials):
                if value not in found.setdefault(key, []):
                    found[key].append(value)
        return found

    def cell_of(self, trial: TrialPlan) -> str:
        """Return what a trial has in common with those that differ in tuned settings alone; empty where none stops."""
        return json.dumps({key: trial.setting(key) for key in self.grid}, default=str) if self.stops_early else ""

    def cards(self, placement: Placement) -> str:
        """Return the GPUs that may run a trial, by count and kind; empty on the CPU, and where none has a name."""
        return " or ".join(self.resources.suited(placement).cards()) if placement.device == "cuda" else ""

    @property
    def time_basis(self) -> str:
        """What the expected times rest on, in words."""
        return self.speeds.basis

    @property
    def storage(self) -> int:
        """Bytes that the trials leave: weights in float32, and their records."""
        return sum(4 * trial.shape.parameters.total + _RECORD_BYTES * trial.steps for trial in self.trials)

    @property
    def checkpoint_storage(self) -> int:
        """Bytes of checkpoints while the trials that need the most run: weights and both moments in float32."""
        sizes = sorted(
            (12 * t.shape.parameters.total * (t.cell.launch.keep_checkpoints + 1) for t in self.trials), reverse=True
        )
        if not sizes:
            return 0
        return sum(sizes[: places(self.trials[-1].placement, self.resources, self.concurrent)])

    def to_frame(self) -> "DataFrame":
        """Return a table with one row a trial, in the order of `trials`.

        Columns: label, shape, family, N, D, seed, steps, flops (all steps), memory_bytes (of one process), zero_stage,
        machines, processes (of all machines), device, precision, seconds (expected), gpu_fraction, cards (that may run
        it), trunk and branch_step (the trial that it branches off, and after which step), and the value of each further
        axis by its dotted key.
        """
        import pandas

        rows = [
            {
                "label": trial.label,
                "shape": trial.shape.describe(),
                "family": trial.shape.family,
                "N": trial.N,
                "D": trial.D,
                "seed": trial.cell.seed,
                "steps": trial.steps,
                "flops": trial.flops,
                "memory_bytes": trial.memory.total,
                "zero_stage": trial.placement.zero_stage,
                "machines": trial.placement.machines,
                "processes": trial.placement.world_size,
                "device": trial.placement.device,
                "precision": trial.placement.precision,
                "seconds": trial.seconds,
                "gpu_fraction": trial.placement.gpu_fraction,
                "cards": self.cards(trial.placement),
                "trunk": trial.branch.trunk if trial.branch else None,
                "branch_step": trial.branch.step if trial.branch else None,
                **{key: trial.setting(key) for key in self.further_axes},
            }
            for trial in self.trials
        ]
        return pandas.DataFrame(rows).astype({"branch_step": "Int64"})


def tokens_folder(storage: Path) -> Path:
    """Return the folder of token stores, which the sweeps of one storage share."""
    return storage / "tokens"


def plan_sweep(config: Experiment, storage: Path, resources: Resources, *, build: bool = True) -> SweepPlan:
    """Resolve every cell of the grid.

    D, the vocabulary and the mean length of a sequence are facts of the tokens, so the corpus is tokenised first (once:
    the store is cached by content), unless only a plan is wanted and these facts are known without.

    Args:
        config: the experiment.
        storage: folder of results and token stores.
        resources: what the machines have.
        build: whether to build token stores that are not there yet even where the plan can do without.

    Raises:
        InputError: a size that no shape reaches, a corpus smaller than D, a model that fits no machine, or two cells
            that are one trial.
    """
    folder = SweepStore(storage / config.name)
    results = {r.trial: r for r in (trial.read_result() for trial in folder.all_trials()) if r is not None}
    device = "cuda" if resources.has_gpus and config.launch.device != "cpu" else "cpu"
    # What was measured here says nothing of machines that are assumed.
    speeds = Speeds() if resources.assumed else speeds_for(results.values(), device)
    corpora = Corpora(tokens_folder(storage), build)
    axes = tuple(all_axes(config))
    policies: dict[str, dict[str, tuple[str, ...]]] = {}

    def plan_cell(cell: Experiment) -> TrialPlan:
        tokens, content = corpora.tokens(cell.data), corpora.content(cell.data)
        return _plan_cell(cell, tokens, content, resources, config.fit.count, speeds, policies)

    stages = stage_cells(config, plan_cell, results)
    trials = [plan_cell(cell) for cell in stages.now]
    _check_distinct(trials, axes)
    compared = compare_memory((t.shape, t.cell.train, results[t.identity]) for t in trials if t.identity in results)
    if compared:
        # A trial that has a checkpoint goes on with as many ranks as wrote it.
        trials = [
            trial
            if any(folder.trial(trial.label).checkpoints.glob("step_*"))
            else _place_again(trial, resources, compared, speeds)
            for trial in trials
        ]
    waiting = sum(not folder.trial(trial.label).done() for trial in trials)
    trials = share_gpus(trials, resources, min(waiting, config.launch.concurrent_trials or waiting))
    trials = plan_branches(trials, folder, lambda trial, step: _seconds_after(trial, step, resources, speeds))
    trials.sort(key=lambda trial: (trial.N, trial.D, trial.cell.seed))
    left = [trial for trial in trials if not folder.trial(trial.label).done()]
    stops_early = config.tune is not None and config.tune.stop is not None  # Ray Tune sees a pack as one trial
    most = config.launch.concurrent_trials
    packs = () if stops_early else plan_packs(left, lambda trial: places(trial.placement, resources, most))
    return SweepPlan(
        trials=tuple(trials),
        axes=axes,
        grid=tuple(config.grid),
        stops_early=stops_early,
        policies=tuple(describe_policies(policies)),
        stages=stages.sentences,
        later=tuple(plan_cell(cell) for cell in stages.later),
        resources=resources,
        count=config.fit.count,
        flops_formula=f"{FLOPS_FORMULA}: {models.FLOPS_FORMULAS[FLOPS_FORMULA]}",
        seconds=makespan(loads(trials, packs), resources, config.launch.concurrent_trials),
        packs=packs,
        pack_notes=tuple(describe_packs(packs, trials, left)),
        speeds=speeds,
        concurrent=config.launch.concurrent_trials,
        end_seconds=max((_end_seconds(folder.trial(trial.label), config.launch) for trial in trials), default=0.0),
        texts=corpora.texts,
        memory_basis=tuple(comparison.describe() for comparison in compared.values()),
    )


def plan_steps(cell: Experiment, store: TokenStore | None, subset: Subset | None) -> StepPlan:
    """Return batch and steps of a run, from its settings and the facts of its tokens; the same in plan and training.

    Without tokens, where the trial's script reads data by itself, its settings alone decide.
    """
    if store is None or subset is None:
        facts = statistics_without_tokens(cell.data)
        return _steps(cell, facts.context, facts.mean_tokens_per_sequence, int(cell.data.size or 0))
    return _steps(cell, *_lengths(cell, store), subset.unique_tokens)


def _lengths(cell: Experiment, store: TokenStore) -> tuple[int, float]:
    """Return the tokens of a sequence, at most and in the mean."""
    context = cell.data.context or store.longest_document
    mean = context if cell.data.packing == "stream" else min(context, store.training_tokens / store.training_documents)
    return context, mean


def _steps(cell: Experiment, context: int, mean: float, unique_tokens: int) -> StepPlan:
    sequences = max(1, round(cell.train.batch_tokens / mean))
    if cell.train.steps is not None:
        return StepPlan(context, sequences, mean, cell.train.steps)
    assert cell.train.epochs is not None
    return StepPlan(context, sequences, mean, math.ceil(cell.train.epochs * unique_tokens / (sequences * mean)))


def plan_trial(cell: Experiment, store: TokenStore | None, resources: Resources, count: str) -> TrialPlan:
    """Resolve one cell against its token store, as `plan_sweep` does; None where its script reads data by itself."""
    return _plan_cell(
        cell, store or statistics_without_tokens(cell.data), corpus_content(cell.data), resources, count, Speeds()
    )


def _plan_cell(
    cell: Experiment,
    corpus: TokenStore | TokenStatistics,
    content: dict[str, Any],
    resources: Resources,
    count: str,
    speeds: Speeds,
    policies: dict[str, dict[str, tuple[str, ...]]] | None = None,
) -> TrialPlan:
    if isinstance(corpus, TokenStore):
        D = corpus.training(cell.data.size, cell.data.packing, cell.data.copies).unique_tokens
        context, mean = _lengths(cell, corpus)
    else:
        assert cell.data.size is not None
        D, context, mean = cell.data.size, corpus.context, corpus.mean_tokens_per_sequence
    shape = models.solve(cell.model, corpus.vocabulary_size, context)
    name, resolved = cell.train.policy, resolve(cell, shape, D, context)
    if policies is not None and name is not None:
        policies[name] = {"by_policy": resolved.by_policy, "by_hand": resolved.by_hand}
    cell = resolved.cell
    steps = _steps(cell, context, mean, D)
    choice = choose_placement(cell, shape, steps.sequences, resources)
    flops = models.flops_per_token(shape) * steps.steps * steps.sequences * steps.mean_tokens
    every = probe_interval(cell, shape, steps.steps, flops / steps.steps, choice.placement)
    cell = cell.model_copy(update={"probes": cell.probes.model_copy(update={"every": every})})
    identity = trial_id(cell, _dimensions(shape), content)
    return TrialPlan(
        cell=cell,
        identity=identity,
        label=trial_label(cell, shape.parameters.under("non_embedding"), D, identity),
        shape=shape,
        N=shape.parameters.under(count),
        D=D,
        step_plan=steps,
        flops=flops,
        placement=choice.placement,
        memory=choice.memory,
        seconds=trial_seconds(cell, shape.family, steps.steps, flops, choice.placement, resources, speeds),
        store=corpus if isinstance(corpus, TokenStore) else None,
        by_rule=tuple(f"train.{key}" for key in (*resolved.by_rule, *resolved.by_policy)),
    )


@lru_cache(maxsize=4096)
def _dimensions(shape: Shape) -> dict[str, Any]:
    """Return what identifies a shape: not the size that was asked for, and not what follows from the data."""
    return {k: v for k, v in shape.as_dict().items() if k not in ("wanted", "count", "vocabulary")}


def _place_again(
    trial: TrialPlan, resources: Resources, compared: Mapping[str, Comparison], speeds: Speeds
) -> TrialPlan:
    """Return a planned trial placed by a memory estimate that earlier results correct."""
    choice = choose_placement(trial.cell, trial.shape, trial.step_plan.sequences, resources, compared)
    seconds = trial_seconds(
        trial.cell, trial.shape.family, trial.steps, trial.flops, choice.placement, resources, speeds
    )
    return replace(trial, placement=choice.placement, memory=choice.memory, seconds=seconds)


def _seconds_after(trial: TrialPlan, step: int, resources: Resources, speeds: Speeds) -> float:
    """Return the expected wall time of a trial that begins after a step."""
    left = trial.steps - step
    return trial_seconds(
        trial.cell, trial.shape.family, left, trial.flops * left / trial.steps, trial.placement, resources, speeds
    )


def _end_seconds(trial: TrialStore, launch: LaunchSettings) -> float:
    """Return the grace of a trial: what was set, or else what its ranks have measured so far."""
    return measured_grace(str(trial.path), launch.least_grace) if launch.grace == "auto" else launch.least_grace


def _check_distinct(trials: list[TrialPlan], keys: tuple[str, ...]) -> None:
    """Raise InputError if two cells of the grid are one trial."""
    seen: dict[str, TrialPlan] = {}
    for trial in trials:
        first = seen.setdefault(trial.identity, trial)
        if first is not trial:
            values = ", ".join(f"{key}={first.setting(key)} and {trial.setting(key)}" for key in keys)
            raise InputError(f"grid: two cells are one and the same trial ({values}); remove one of them")
