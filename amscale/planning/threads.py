"""The threads of a trial's processes on CPUs, where the settings leave them to the plan."""

from dataclasses import replace

from amscale.cluster.resources import Resources
from amscale.trials.records import Placement

_FLOPS = 3e8
"""Arithmetic of a step that is worth a thread: with less, threads wait for each other for longer than they compute."""


def choose_threads(placement: Placement, step_flops: float, resources: Resources, at_a_time: int) -> int:
    """Return the most threads a process that leave a place for every trial that may run, and have enough to do each.

    On a GPU a process needs one.

    Args:
        placement: of the trial, with one thread a process.
        step_flops: arithmetic of a step, on all ranks together.
        resources: what the machines have.
        at_a_time: trials that may run at a time, if there were cores for all.
    """
    if placement.device != "cpu":
        return 1
    most = int(step_flops / placement.world_size / _FLOPS)
    largest = max(host.cpus for host in resources.hosts)
    for threads in range(min(most, largest), 1, -1):
        if has_room(replace(placement, cpus_per_process=threads), resources, at_a_time):
            return threads
    return 1


def has_room(placement: Placement, resources: Resources, trials: int = 1) -> bool:
    """Return whether the machines can run so many trials of this placement at a time."""
    suited = resources.suited(placement)
    on_each = [
        slots // placement.processes_per_machine for slots in suited.processes("cpu", placement.cpus_per_process)
    ]
    return sum(min(slots, trials) for slots in on_each) >= trials * placement.machines
