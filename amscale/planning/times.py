"""The expected wall time of trials, and of a sweep of them."""

import heapq
import math
from collections.abc import Sequence

from amscale.cluster.resources import Resources
from amscale.cluster.warm_start import can_start_warm
from amscale.config import Experiment, validating
from amscale.planning.speeds import Speeds
from amscale.trials.records import Placement

_ATTEMPT_SECONDS = 9.0
"""What a trial takes beside its steps: `accelerate launch`, imports, DeepSpeed's engine, evaluation; once in a while
Ray's actor, which runs several trials."""
WARM_ATTEMPT_SECONDS = 1.0
"""The same where its ranks are forked from a process that has imported everything: 0.8 to 1.2 seconds from the end of
one trial to that of the next, less its steps, on two free cores."""
_RECORD_SECONDS = 0.0004
"""Of a step: its records, its batch, and a look at whether the run is asked to end."""
_FORWARD_SHARE = 1 / 3
"""Of a training step's arithmetic, what a forward pass takes."""


def trial_seconds(
    cell: Experiment, family: str, steps: int, flops: float, placement: Placement, resources: Resources, speeds: Speeds
) -> float:
    """Return the expected wall time of a trial, start and validations included.

    Args:
        cell: its settings.
        family: of its model.
        steps: of its optimiser.
        flops: of all steps.
        placement: where it runs.
        resources: what the machines have.
        speeds: what is known of the time of a step.
    """
    attempt = WARM_ATTEMPT_SECONDS if cell.launch.warm_starts and can_start_warm(placement) else _ATTEMPT_SECONDS
    return attempt + work_seconds(cell, family, steps, flops, placement, resources, speeds)


def work_seconds(
    cell: Experiment,
    family: str,
    steps: int,
    flops: float,
    placement: Placement,
    resources: Resources,
    speeds: Speeds,
    members: int = 1,
) -> float:
    """Return the expected seconds of a trial's steps, records and validations, or of a member's of a pack.

    Args:
        cell, family, steps, flops, placement, resources, speeds: as for `trial_seconds`.
        members: trials that the process trains together.
    """
    alone = speeds.step_seconds(family, flops / steps, placement, resources)
    step = speeds.step_seconds(family, flops / steps, placement, resources, members) if members > 1 else alone
    validation = validating(cell, steps)
    # The last evaluation is of the training tokens, after the end's of more held-out ones where the run decides.
    passes = math.ceil(steps / validation.every) + 1
    tokens = validation.tokens * passes
    if validation.last_tokens > validation.tokens:
        tokens += validation.last_tokens
    fixed = min(alone, speeds.fixed_seconds(family, placement))
    forward = passes * fixed + (alone - fixed) * tokens / cell.train.batch_tokens
    return steps * (step + _RECORD_SECONDS) + _FORWARD_SHARE * forward


def makespan(trials: Sequence[tuple[Placement, float]], resources: Resources, concurrent: int | None) -> float:
    """Return the wall time if the longest trials start first, each as soon as machines are free for it.

    Where trials need unlike machines, those with the fewest places may be what takes longest.

    Args:
        trials: placement and expected seconds of each.
        resources: what the machines have.
        concurrent: trials that may run at a time, at most.
    """
    slots_of = {placement: places(placement, resources, concurrent) for placement in {p for p, _ in trials}}
    longest = 0.0
    for slots in set(slots_of.values()):
        ends = [0.0] * slots
        for seconds in sorted((s for p, s in trials if slots_of[p] <= slots), reverse=True):
            heapq.heapreplace(ends, ends[0] + seconds)
        longest = max(longest, *ends)
    return longest


def places(placement: Placement, resources: Resources, concurrent: int | None) -> int:
    """Return how many trials like one can run at a time, at most `concurrent`."""
    suited = resources.suited(placement)
    processes = sum(suited.processes(placement.device, placement.cpus_per_process, placement.gpu_fraction))
    slots = processes // placement.world_size
    return max(1, min(slots, concurrent or slots))
