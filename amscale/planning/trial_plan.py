"""Plan one trial: its shape, steps, cost and placement."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from amscale import models
from amscale.cluster.resources import Resources
from amscale.config import Experiment
from amscale.data import Subset, TokenStatistics, TokenStore, corpus_content, statistics_without_tokens
from amscale.errors import InputError
from amscale.models import Shape
from amscale.planning.branches import Branch
from amscale.planning.memory import Comparison, Memory
from amscale.planning.placement import check_compiles, choose_placement
from amscale.planning.probing import probe_interval
from amscale.planning.resolving import resolve
from amscale.planning.speeds import Speeds
from amscale.planning.threads import choose_threads, has_room
from amscale.planning.times import trial_seconds
from amscale.trials.identity import trial_id, trial_label
from amscale.trials.records import Placement
from amscale.trials.trial_store import TrialStore


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


def plan_trial(cell: Experiment, store: TokenStore | None, resources: Resources, count: str) -> TrialPlan:
    """Resolve one cell against its token store, as `plan_sweep` does; None where its script reads data by itself."""
    trial = plan_cell(
        cell, store or statistics_without_tokens(cell.data), corpus_content(cell.data), resources, count, Speeds()
    )
    return with_threads(trial, None, resources, 1, Speeds())


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
    if cell.train.batch_tokens < math.floor(mean) and cell.data.has_tokens:  # else the script makes its own batches
        raise InputError(
            f"train.batch_tokens={cell.train.batch_tokens}: a batch has at least one sequence, of "
            f"{'' if mean == context else 'in the mean '}{mean:.4g} tokens; give at least {math.ceil(mean)}, or lower "
            "data.context"
        )
    sequences = max(1, round(cell.train.batch_tokens / mean))
    if cell.train.steps is not None:
        return StepPlan(context, sequences, mean, cell.train.steps)
    assert cell.train.epochs is not None
    return StepPlan(context, sequences, mean, math.ceil(cell.train.epochs * unique_tokens / (sequences * mean)))


def plan_cell(
    cell: Experiment,
    corpus: TokenStore | TokenStatistics,
    content: dict[str, Any],
    resources: Resources,
    count: str,
    speeds: Speeds,
    policies: dict[str, dict[str, tuple[str, ...]]] | None = None,
) -> TrialPlan:
    """Resolve one cell of a grid: its shape, settings, steps, placement and time.

    Args:
        cell: its settings, rules among them.
        corpus: its tokens, or what is known of them without.
        content: what identifies the files of the corpus.
        resources: what the machines have.
        count: convention for N.
        speeds: what is known of the time of a step.
        policies: gets, by the name of the cell's policy, the settings that it gives and those that a person gave.

    Raises:
        InputError: no such shape, a rule that cannot be resolved, a corpus smaller than D, or no machine that fits.
    """
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
    check_compiles(cell, choice.placement, resources)
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


def place_again(
    trial: TrialPlan, resources: Resources, compared: Mapping[str, Comparison], speeds: Speeds
) -> TrialPlan:
    """Return a planned trial placed by a memory estimate that earlier results correct."""
    choice = choose_placement(trial.cell, trial.shape, trial.step_plan.sequences, resources, compared)
    check_compiles(trial.cell, choice.placement, resources)
    seconds = trial_seconds(
        trial.cell, trial.shape.family, trial.steps, trial.flops, choice.placement, resources, speeds
    )
    return replace(trial, placement=choice.placement, memory=choice.memory, seconds=seconds)


def with_threads(
    trial: TrialPlan, store: TrialStore | None, resources: Resources, at_a_time: int, speeds: Speeds
) -> TrialPlan:
    """Return a placed trial with the threads of its processes, where `launch.cpus_per_process` leaves them open.

    One with a checkpoint keeps its number, where a machine has as many cores: another would round otherwise.

    Args:
        trial: as placed, with one thread a process.
        store: its folder; None where it is not known.
        resources: what the machines have.
        at_a_time: trials that may run at a time, if there were cores for all.
        speeds: what is known of the time of a step.
    """
    if trial.cell.launch.cpus_per_process != "auto":
        return trial
    if store is not None and any(store.checkpoints.glob("step_*")):
        kept = store.read_spec().placement.cpus_per_process
        threads = kept if has_room(replace(trial.placement, cpus_per_process=kept), resources) else 1
    else:
        threads = choose_threads(trial.placement, trial.flops / trial.steps, resources, at_a_time)
    placement = replace(trial.placement, cpus_per_process=threads)
    seconds = trial_seconds(trial.cell, trial.shape.family, trial.steps, trial.flops, placement, resources, speeds)
    return replace(trial, placement=placement, seconds=seconds)


def seconds_after(trial: TrialPlan, step: int, resources: Resources, speeds: Speeds) -> float:
    """Return the expected wall time of a trial that begins after a step."""
    left = trial.steps - step
    return trial_seconds(
        trial.cell, trial.shape.family, left, trial.flops * left / trial.steps, trial.placement, resources, speeds
    )
