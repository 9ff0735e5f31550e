"""Trials of one N and several D that share a stable phase: one trains it, the others branch off before their decay."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from amscale.config import Experiment
from amscale.data import Sequences, nested_length
from amscale.settings import format_duration
from amscale.trials.records import Placement, SpecBranch
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

if TYPE_CHECKING:
    from amscale.planning.trial_plan import TrialPlan


@dataclass(frozen=True)
class Branch:
    """Where a trial branches off another."""

    trunk: str
    """Label of the trial that trains the steps up to there."""
    step: int
    """The last step that both have in common."""


def plan_branches(
    trials: "Sequence[TrialPlan]", folder: SweepStore, seconds: "Callable[[TrialPlan, int], float]"
) -> "list[TrialPlan]":
    """Return the trials, of which those that can branch off another know where, and what is left to them.

    Trials that differ in D alone have one model, batches and learning rates up to the decay of the one with less D. Of
    those without a result, the one of the most D trains from its first step.

    Args:
        trials: of a sweep, placed.
        folder: of the sweep.
        seconds: gives the expected wall time of a trial that begins after a step.
    """
    stores = {trial.label: folder.trial(trial.label) for trial in trials if _may_share(trial.cell)}
    alike: dict[tuple[str, Placement], list[TrialPlan]] = defaultdict(list)
    for trial in trials:
        if trial.label in stores and not stores[trial.label].done():
            alike[_but_size(trial.cell), trial.placement].append(trial)
    planned, counted = {}, dict[tuple[Any, ...], int]()
    for group in alike.values():
        trunk = max(group, key=lambda trial: trial.D)
        for trial in group:
            step = last_shared_step(trial, counted)
            if trial is not trunk and step and _can_branch(stores[trial.label], stores[trunk.label], step):
                left = seconds(trial, step)
                planned[trial.label] = replace(trial, branch=Branch(trunk.label, step), seconds=left)
    return [planned.get(trial.label, trial) for trial in trials]


def last_shared_step(trial: "TrialPlan", counted: "dict[tuple[Any, ...], int]") -> int:
    """Return the last step up to which a trial is the beginning of every one of more D; 0 where it is of none.

    Args:
        trial: as planned.
        counted: sequences of parts of corpora, which many trials have in common; what is counted here is added.
    """
    steps, data = trial.step_plan, trial.cell.data
    if trial.store is None:
        sequences = int(trial.D / steps.mean_tokens)
    else:
        part = (trial.store.folder, data.size, data.packing, steps.context)
        if part not in counted:  # reads the length of every document
            counted[part] = Sequences(trial.store.training(data.size, data.packing), steps.context).sequences_total
        sequences = counted[part]
    if sequences <= trial.cell.probes.sequences:  # the probes' sequences are the first ones, and fewer here
        return 0
    growth = trial.cell.block_growth
    assert growth is not None
    same_batches = nested_length(sequences, growth) // steps.sequences
    return min(int(trial.cell.train.decay_start(steps.steps)), same_batches, steps.steps - 1)


def branches_of(label: str, trials: "Sequence[TrialPlan]") -> tuple[SpecBranch, ...]:
    """Return the trials that branch off one."""
    return tuple(SpecBranch(label=t.label, step=t.branch.step) for t in trials if t.branch and t.branch.trunk == label)


def describe_branches(trials: "Sequence[TrialPlan]") -> list[str]:
    """Return what a reader of a plan should know of shared stable phases."""
    branched = sum(trial.branch is not None for trial in trials)
    if branched:
        return [
            f"{branched} of the trials branch off the one of the most D of their N before their decay: that saves "
            f"{_saved(trials)} (launch.share_trunk=false trains each from its first step)."
        ]
    apart = [trial for trial in trials if _only_warmup_differs(trial.cell)]
    sizes: Mapping[str, set[int]] = defaultdict(set)
    for trial in apart:
        probes = trial.cell.probes.model_copy(update={"every": "auto"})  # by the steps, if they are not shared
        sizes[_but_size(trial.cell.model_copy(update={"probes": probes}))].add(trial.D)
    if not any(len(found) > 1 for found in sizes.values()):
        return []
    share = apart[0].cell.train.warmup
    steps = max(1, round(share * min(trial.steps for trial in apart)))
    return [
        f"Trials that differ in D alone could share their stable phase, but train.warmup={share:g} is a share of the "
        f"steps, another number for each D: give it in steps, such as train.warmup={steps}."
    ]


def describe_refused(trials: "Sequence[TrialPlan]", shared: float, apart: float) -> list[str]:
    """Return why trials that could share stable phases do not.

    Args:
        trials: as they would branch off.
        shared: wall time of the sweep then, seconds.
        apart: wall time with each from its first step, seconds.
    """
    return [
        f"{sum(trial.branch is not None for trial in trials)} of the trials could branch off the one of the most D of "
        f"their N: that would save {_saved(trials)} and end later, after {format_duration(shared)} instead of "
        f"{format_duration(apart)}, for each would be started alone (launch.share_trunk=true does it)."
    ]


def _saved(trials: "Sequence[TrialPlan]") -> str:
    total, saved = sum(trial.flops for trial in trials), sum(trial.flops_saved for trial in trials)
    return f"{saved / total:.0%} of {total:.3g} FLOPs"


def _may_share(cell: Experiment) -> bool:
    train = cell.train
    same_warmup = train.script is None and (train.warmup == 0 or train.warmup >= 1)
    return bool(cell.launch.share_trunk) and cell.order == "nested" and train.schedule == "wsd" and same_warmup


def _only_warmup_differs(cell: Experiment) -> bool:
    without = cell.model_copy(update={"train": cell.train.model_copy(update={"warmup": 0.0})})
    return cell.order == "shuffled" and cell.train.order == "auto" and _may_share(without)


def _but_size(cell: Experiment) -> str:
    return cell.model_copy(update={"data": cell.data.model_copy(update={"size": None})}).model_dump_json()


def _can_branch(store: TrialStore, trunk: TrialStore, step: int) -> bool:
    """Return whether a trial has not begun by itself, and its trunk has not passed the step without it."""
    if store.attempt_file.exists():
        return False
    reached = trunk.local_checkpoints()
    return bool(store.local_checkpoints()) or not reached or reached[-1].name <= f"step_{step:09d}"
