"""The placement of a trial on the machines that there are, by the memory that a process needs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from amscale.cluster.resources import Resources
from amscale.config import Experiment
from amscale.errors import InputError
from amscale.models import Shape
from amscale.planning.memory import Comparison, Memory, estimate_memory
from amscale.trials.records import Placement

_USABLE = 0.85
"""Share of a device's memory that a plan may fill: allocators fragment, and peaks overlap."""


def fits(memory: Memory, device_memory: float) -> bool:
    """Return whether an estimate leaves the margin that a device needs."""
    return memory.total <= _USABLE * device_memory


@dataclass(frozen=True)
class Choice:
    """A placement and the memory that one of its processes is expected to need."""

    placement: Placement
    memory: Memory


def choose_placement(
    cell: Experiment,
    shape: Shape,
    sequences: int,
    resources: Resources,
    compared: Mapping[str, Comparison] = MappingProxyType({}),
) -> Choice:
    """Place one trial: what the settings force is kept, the rest follows from the memory estimate.

    The fewest processes come first, then the smallest ZeRO stage (the fastest), then the largest micro-batch.

    Args:
        cell: settings of the trial.
        shape: its model.
        sequences: sequences of a global batch.
        resources: what the machines have.
        compared: estimates against measured peaks, by device, which the estimate is corrected by.

    Raises:
        InputError: no placement fits the machines, or DeepSpeed does not train as the settings say under it.
    """
    launch = cell.launch
    device = _device(cell, resources)
    device_memory = resources.device_memory(device) if launch.device_memory == "auto" else launch.device_memory
    forced = launch.micro_batch != "auto" and launch.zero_stage != "auto"
    memory = None
    for placement in _candidates(cell, device, sequences, resources):
        check_supported(placement)
        memory = estimate_memory(shape, placement, cell.train)
        if device in compared:
            memory = memory.scaled(compared[device].factor)
        if forced or fits(memory, device_memory):
            return Choice(placement, memory)
    assert memory is not None
    raise InputError(
        f"model.size: {shape.parameters.total:,} parameters need {memory.total / 1e9:.1f} GB a process at best, and a "
        f"device has {device_memory / 1e9:.1f} GB; give more machines, a smaller model, or launch.device_memory"
    )


def check_supported(placement: Placement) -> None:
    """Refuse a placement under which DeepSpeed does not train what the settings say.

    Raises:
        InputError: bf16 without sharding. DeepSpeed takes AdamW's first step there on gradients of zero, while it makes
            the optimiser, so that every bias correction is that of the step after, and sums gradients in bf16.
    """
    if placement.precision == "bf16" and placement.zero_stage == 0:
        raise InputError(
            "launch.zero_stage=0 with bf16: DeepSpeed makes other updates there than AdamW's and sums gradients in "
            "bf16; give 1 (on one device it shards nothing), auto, or launch.precision=fp32"
        )


def _candidates(
    cell: Experiment, device: Literal["cpu", "cuda"], sequences: int, resources: Resources
) -> Iterator[Placement]:
    """Yield the placements that the settings allow, the preferred ones first."""
    launch = cell.launch
    precision = choose_precision(launch.precision, device, resources)
    every_stage = (1, 2, 3) if precision == "bf16" else (0, 1, 2, 3)
    stages = every_stage if launch.zero_stage == "auto" else (launch.zero_stage,)
    for machines, processes in _process_counts(cell, device, resources):
        world_size = machines * processes
        for stage in stages:
            for micro_batch in _micro_batches(launch.micro_batch, sequences, world_size):
                yield Placement(
                    machines=machines,
                    processes_per_machine=processes,
                    cpus_per_process=launch.cpus_per_process,
                    device=device,
                    zero_stage=stage,
                    precision=precision,
                    micro_batch=micro_batch,
                    accumulation=math.ceil(sequences / (world_size * micro_batch)),
                )


def choose_precision(asked: str, device: Literal["cpu", "cuda"], resources: Resources) -> Literal["fp32", "bf16"]:
    """Return the precision of trials on a device: bf16 on GPUs that all compute in it, else fp32.

    Args:
        asked: `launch.precision`.
        device: of the trials.
        resources: what the machines have.

    Raises:
        InputError: bf16 is asked for, and a GPU does not compute in it.
    """
    able = device == "cuda" and resources.has_bf16
    if asked == "bf16" and device == "cuda" and not able:
        raise InputError("launch.precision=bf16: a GPU here has no bf16 (it is older than Ampere); give fp32 or auto")
    if asked == "auto":
        return "bf16" if able else "fp32"
    return "bf16" if asked == "bf16" else "fp32"


def _device(cell: Experiment, resources: Resources) -> Literal["cpu", "cuda"]:
    """Return the device of a trial.

    Raises:
        InputError: a GPU is asked for, and there is none.
    """
    device = cell.launch.device
    if device != "cpu" and resources.trouble:
        raise InputError(
            f"launch.device={device}: {resources.trouble}; mend it, or give launch.device=cpu to train without GPUs"
        )
    if device == "auto":
        return "cuda" if resources.has_gpus else "cpu"
    if device == "cuda" and not resources.has_gpus:
        raise InputError("launch.device=cuda: the machines have no GPU; give cpu or auto")
    return device


def _process_counts(cell: Experiment, device: str, resources: Resources) -> list[tuple[int, int]]:
    """Return pairs of machines and processes per machine to try: fewest processes first, then fewest machines.

    Raises:
        InputError: more machines or processes than the cluster has.
    """
    launch = cell.launch
    slots = resources.processes(device, launch.cpus_per_process)
    unit = f"slots of {'a GPU and ' if device == 'cuda' else ''}{launch.cpus_per_process} CPU core(s)"
    slots = [count for count in slots if count]  # a head without CPU cores or GPUs is no machine of a trial
    if not slots:
        beside = " beside a GPU" if device == "cuda" else ""
        raise InputError(
            f"launch.cpus_per_process={launch.cpus_per_process}: no machine gives that many CPU cores{beside}; give "
            "fewer, or ask the scheduler for more (sbatch --cpus-per-task, a container's CPU limit)"
        )
    if launch.machines != "auto" and launch.machines > len(slots):
        raise InputError(f"launch.machines={launch.machines}: the cluster has {len(slots)}; give at most that many")
    counts = range(1, len(slots) + 1) if launch.machines == "auto" else [launch.machines]
    # A trial's machines run equally many processes: the least of the best `machines` hosts is the limit.
    limits = {machines: slots[machines - 1] for machines in counts}
    if launch.processes_per_machine == "auto":
        pairs = [(m, 2**k) for m, most in limits.items() for k in range(most.bit_length()) if 2**k <= most]
    else:
        pairs = [
            (m, launch.processes_per_machine) for m, most in limits.items() if launch.processes_per_machine <= most
        ]
    if not pairs:
        raise InputError(
            f"launch.processes_per_machine={launch.processes_per_machine}: the cluster's machines have "
            f"{max(limits.values())} {unit}; give at most that many"
        )
    return sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair[0]))


def _micro_batches(wanted: Any, sequences: int, world_size: int) -> list[int]:
    """Return the micro-batches to try, largest first; none is larger than a process's share of the batch."""
    share = math.ceil(sequences / world_size)
    if wanted != "auto":
        return [min(int(wanted), share)]
    smaller = [2**k for k in range(share.bit_length()) if 2**k < share]
    return [share, *reversed(smaller)]
