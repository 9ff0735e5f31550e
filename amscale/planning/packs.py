"""Which trials of a sweep one process trains together, with stacked parameters: rows of the grid that have one shape.

The members of a pack differ in data, seed, steps, learning rate and its schedule, weight decay. What decides the result
of a trial is the same as alone, up to rounding (docs/packing.md).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from amscale.cluster.resources import Resources
from amscale.config import Experiment
from amscale.models import Shape
from amscale.planning.speeds import Speeds
from amscale.planning.times import WARM_ATTEMPT_SECONDS, work_seconds
from amscale.trials.location import is_uri
from amscale.trials.records import Placement

if TYPE_CHECKING:
    from amscale.planning.trial_plan import TrialPlan

_MOST = 32
"""Members of a pack that `auto` makes: what a crash costs."""
_SHORT_SECONDS = 300.0
"""Trials that are expected to take longer are left alone by `auto`: their start is little of them, and so is what a
step costs beside its arithmetic."""
_HUB = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Architectures of the hub family whose modules can be stacked."""

_GAINING_ACTIVATIONS = 20_000
"""Tokens of a step times width, at most, where `auto` packs: above it a step is arithmetic, of which packing spares
none (benchmarks/packing.py: 2.2 times as many trials an hour at 8,000, 1.45 at 16,000, 1.0 at 33,000)."""

Pack = tuple[str, ...]
"""Labels of trials that are trained together."""


def plan_packs(waiting: "Sequence[TrialPlan]", places: "Callable[[TrialPlan], int]") -> tuple[Pack, ...]:
    """Return the packs of the trials that have no result; a trial that is in none of them trains alone.

    `auto` packs short trials with small steps, where there are more than two for each that can run at a time,
    into packs of about equal time and at least as many as can run at a time.

    Args:
        waiting: trials without a result, placed.
        places: gives how many trials like one can run at a time.
    """
    rows: dict[Hashable, list[TrialPlan]] = defaultdict(list)
    for trial in waiting:
        if trial.cell.launch.pack != "off" and why_alone(trial, waiting) is None:
            shared = what_members_share(trial.cell, trial.placement, trial.shape, trial.step_plan.sequences)
            rows[trial.cell.launch.pack, *shared.values()].append(trial)
    packs: list[Pack] = []
    for row in rows.values():
        most, slots = row[0].cell.launch.pack, places(row[0])
        if most == "auto":
            row = [
                trial
                for trial in row
                if trial.seconds <= _SHORT_SECONDS and _activations(trial) <= _GAINING_ACTIVATIONS
            ]
            if len(waiting) <= 2 * slots or not row:
                continue
            share = sum(trial.seconds for trial in waiting) / slots
            count = max(math.ceil(len(row) / _MOST), math.ceil(sum(trial.seconds for trial in row) / share))
        else:
            count = math.ceil(len(row) / int(most))
        packs += _deal(row, min(count, len(row)))
    return tuple(pack for pack in packs if len(pack) > 1)


def _activations(trial: "TrialPlan") -> float:
    return trial.step_plan.sequences * trial.step_plan.mean_tokens * trial.shape.width


def _deal(row: "Sequence[TrialPlan]", count: int) -> list[Pack]:
    """Share a row out into so many packs, longest first, each to the one that has least."""
    packs: list[list[TrialPlan]] = [[] for _ in range(count)]
    most = math.ceil(len(row) / count)
    for trial in sorted(row, key=lambda t: -t.seconds):
        open_packs = [pack for pack in packs if len(pack) < most]
        min(open_packs, key=lambda pack: sum(t.seconds for t in pack)).append(trial)
    return [tuple(trial.label for trial in pack) for pack in packs]


def why_alone(trial: "TrialPlan", trials: "Sequence[TrialPlan]") -> str | None:
    """Return why a trial cannot be trained in a pack, in words; None where it can."""
    branches = trial.branch or any(other.branch and other.branch.trunk == trial.label for other in trials)
    return why_not_packed(trial.cell, trial.placement, bool(branches)) or why_not_stacked(trial.shape)


def why_not_packed(cell: Experiment, placement: Placement, branches: bool) -> str | None:
    """Return why a trial with these settings cannot be trained in a pack; None where it can if its network can.

    Args:
        cell: its settings.
        placement: where it runs.
        branches: whether it branches off another trial, or others off it.
    """
    if placement.device != "cpu" or placement.world_size > 1:
        return "packs are trained by one process on CPUs"
    if placement.precision != "fp32" or placement.zero_stage or placement.accumulation > 1:
        return "packs are trained in fp32 under ZeRO 0 with one forward pass a step"
    if cell.train.script:
        return "its training script is the user's own"
    if branches:
        return "it shares a stable phase with others"
    return "its results are kept as objects" if is_uri(cell.storage) else None


def why_not_stacked(shape: Shape) -> str | None:
    """Return why networks of a shape cannot be trained with stacked parameters; None where they can."""
    family, options = shape.family, shape.options
    if getattr(options, "dropout", 0.0):
        return "with dropout a pack would draw other masks than the trial alone"
    if family == "vanilla":
        return "relative positions cannot be stacked" if options.positions == "relative" else None
    if family == "hub":
        return None if getattr(options, "architecture", None) in _HUB else "its architecture cannot be stacked"
    return None if family == "gpt2" else "its family cannot be stacked"


def what_members_share(cell: Experiment, placement: Placement, shape: Shape, sequences: int) -> dict[str, Hashable]:
    """Return what has one value in a pack, by name: network, placement, sequences of a step, AdamW's constants."""
    dimensions = (shape.family, shape.layers, shape.width, shape.heads, shape.feed_forward)
    return {
        "the network": (*dimensions, shape.vocabulary, shape.context, shape.options),
        "its placement": placement,
        "the number of sequences in a batch": sequences,
        "train.betas": cell.train.betas,
        "train.epsilon": cell.train.epsilon,
    }


def pack_seconds(members: "Sequence[TrialPlan]", resources: Resources, speeds: Speeds) -> float:
    """Return the expected wall time of a pack: one start, and what a step costs beside its arithmetic, once."""
    return WARM_ATTEMPT_SECONDS + sum(
        work_seconds(
            trial.cell,
            trial.shape.family,
            trial.steps,
            trial.flops,
            trial.placement,
            resources,
            speeds,
            len(members),
        )
        for trial in members
    )


def loads(
    trials: "Sequence[TrialPlan]", packs: Sequence[Pack], resources: Resources, speeds: Speeds
) -> list[tuple[Placement, float]]:
    """Return placement and expected seconds of each process that trains some of the trials.

    Args:
        trials: which are to be trained.
        packs: of them and perhaps of others.
        resources: what the machines have.
        speeds: what is known of the time of a step.
    """
    by_label = {trial.label: trial for trial in trials}
    packed = [[by_label.pop(label) for label in pack if label in by_label] for pack in packs]
    packed = [members for members in packed if members]
    loads = [(members[0].placement, pack_seconds(members, resources, speeds)) for members in packed]
    return loads + [(trial.placement, trial.seconds) for trial in by_label.values()]


def describe_packs(packs: Sequence[Pack], trials: "Sequence[TrialPlan]", waiting: "Sequence[TrialPlan]") -> list[str]:
    """Return what a reader of a plan should know of packs."""
    lines = []
    if packs:
        sizes = sorted(len(pack) for pack in packs)
        each = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        processes = f"{len(packs)} process{'es' if len(packs) > 1 else ''} of {each}"
        lines.append(
            f"{sum(sizes)} trials of equal shapes are trained by {processes}, with stacked parameters (launch.pack=off "
            "trains each alone)."
        )
    asked = [trial for trial in waiting if isinstance(trial.cell.launch.pack, int)]
    reasons = sorted({reason for trial in asked if (reason := why_alone(trial, trials))})
    return lines + [f"launch.pack: trials are trained alone, since {reason}." for reason in reasons]
