"""Trials that share a GPU: the part of it that each reserves, and what a rank may allocate of its part."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from amscale.cluster.resources import Resources, assumed_flops
from amscale.planning.memory import PROCESS_BYTES, Memory
from amscale.planning.placement import fits
from amscale.trials.records import Placement

if TYPE_CHECKING:
    from amscale.planning.trial_plan import TrialPlan

STEP_SECONDS = 0.006
"""What a step takes beside its arithmetic: Python, the optimiser's many small tensors, records."""
_MOST = 10
"""Trials on one GPU: each also takes CPU cores, and a context of the driver."""


def share_gpus(trials: "list[TrialPlan]", resources: Resources, at_a_time: int) -> "list[TrialPlan]":
    """Return the trials with the part of a GPU that each reserves, where `launch.gpu_fraction` leaves that open.

    Args:
        trials: of a sweep.
        resources: what the machines have.
        at_a_time: how many may run at a time, if there were GPUs for all.
    """
    machines: dict[Placement, Resources] = {}

    def shared(trial: "TrialPlan") -> "TrialPlan":
        placement, launch = trial.placement, trial.cell.launch
        if placement.device == "cpu" or launch.gpu_fraction != "auto":
            return trial
        suited = machines.get(placement) or machines.setdefault(placement, resources.suited(placement))
        memory = suited.device_memory("cuda") if launch.device_memory == "auto" else launch.device_memory
        computing = trial.flops / trial.steps / assumed_flops(placement, suited)
        busy = computing / (computing + STEP_SECONDS)
        fraction = share_of_gpu(placement, trial.memory, busy, suited, memory, at_a_time)
        return replace(trial, placement=replace(placement, gpu_fraction=fraction))

    return [shared(trial) for trial in trials]


def share_of_gpu(
    placement: Placement, memory: Memory, busy: float, suited: Resources, device_memory: int, trials: int
) -> float:
    """Return the part of a GPU that a trial reserves: 1/n, for the largest n up to 10 that takes nothing from it.

    Each of n trials like it must have the memory of its estimate, with the margin; together they must not keep the GPU
    busy for longer than there is time; each must have its CPU cores on every machine; and n is no larger than what
    spreads the trials over all GPUs. Trials of several processes, and those on slices (MIG), share nothing.

    Args:
        placement: of the trial, on a whole GPU.
        memory: that its process is expected to need.
        busy: share of a step's time in which its GPU computes.
        suited: the machines that may run it.
        device_memory: bytes of the smallest of their GPUs.
        trials: that may run at a time, if there were GPUs for all.
    """
    if placement.device != "cuda" or placement.world_size > 1 or any(host.gpu_slices for host in suited.hosts):
        return 1.0
    hosts = [host for host in suited.hosts if host.slots("cuda", placement.cpus_per_process)]
    gpus = sum(host.gpus for host in hosts)
    cores = min(host.cpus // placement.cpus_per_process // host.gpus for host in hosts)
    most = min(_MOST, cores, math.ceil(trials / gpus))
    n = next((n for n in range(most, 1, -1) if n * busy <= 1 and fits(memory, device_memory / n)), 1)
    return int(10_000 / n) / 10_000  # Ray counts in ten-thousandths


def allocator_share(fraction: float, device_memory: int) -> float:
    """Return the share of a GPU's memory that torch may allocate in a process which has a part of it.

    The driver's context and the libraries' workspaces are not counted by torch's allocator, and belong to the part.
    """
    return max(0.0, fraction - PROCESS_BYTES["cuda"] / device_memory)
