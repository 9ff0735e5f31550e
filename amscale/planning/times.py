"""The expected wall time of trials, and of a sweep of them."""

import heapq
import statistics
from collections.abc import Iterable, Sequence

from amscale.cluster.resources import Resources, assumed_flops
from amscale.cluster.warm_start import can_start_warm
from amscale.config import Experiment
from amscale.planning.sharing import STEP_SECONDS
from amscale.trials.records import Placement, TrialResult

_ATTEMPT_SECONDS = 9.0
"""What a trial takes beside its steps: `accelerate launch`, imports, DeepSpeed's engine, evaluation; once in a while
Ray's actor, which runs several trials."""
_WARM_ATTEMPT_SECONDS = 2.5
"""The same where its ranks are forked from a process that has imported everything."""


def trial_seconds(
    cell: Experiment, steps: int, flops: float, placement: Placement, resources: Resources, measured: float | None
) -> float:
    """Return the expected wall time of a trial, start included.

    Args:
        cell: its settings.
        steps: of its optimiser.
        flops: of all steps.
        placement: where it runs.
        resources: what the machines have.
        measured: FLOP/s of one process that are known; None for an assumed speed.
    """
    speed = measured or assumed_flops(placement, resources.suited(placement))
    attempt = _WARM_ATTEMPT_SECONDS if cell.launch.warm_starts and can_start_warm(placement) else _ATTEMPT_SECONDS
    return attempt + steps * STEP_SECONDS + flops / (speed * placement.world_size)


def measured_flops(results: Iterable[TrialResult]) -> float | None:
    """Return the median training FLOP/s of one process over a sweep's results; None without a timed one."""
    speeds = [result.device_flops for result in results if result.device_flops is not None]
    return statistics.median(speeds) if speeds else None


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
    """Return how many trials like one can run at a time."""
    suited = resources.suited(placement)
    processes = sum(suited.processes(placement.device, placement.cpus_per_process, placement.gpu_fraction))
    slots = processes // placement.world_size
    return max(1, min(slots, concurrent or slots))
