"""The placement of a trial on the machines that there are, by the memory that a process needs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from amscale.cluster.compilers import STAGE_3
from amscale.cluster.resources import Resources
from amscale.config import Experiment, LaunchSettings
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

    The fewest processes come first, then the smallest devices, then the smallest ZeRO stage (the fastest), then the
    largest micro-batch. A trial may run on every machine whose devices have the memory that it was planned for.

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
    precision = choose_precision(launch.precision, device, resources)
    usable = _usable(cell, device, precision, resources)
    forced = launch.micro_batch != "auto" and launch.zero_stage != "auto"
    placement = memory = too_little = None
    for candidate, device_memory in _candidates(cell, device, precision, sequences, usable):
        if forced and placement and _counts(candidate) != _counts(placement):
            break  # the settings decide, on the smallest device that holds the trial, else on the largest
        placement = candidate
        check_supported(placement)
        memory = estimate_memory(shape, placement, cell.train)
        if device in compared:
            memory = memory.scaled(compared[device].factor)
        if fits(memory, device_memory * placement.gpu_fraction):
            if _holds_new_models(shape, placement, usable):
                return Choice(placement, memory)
            too_little = too_little or placement
    assert placement is not None
    assert memory is not None
    if forced:
        return Choice(placement, memory)
    if too_little is not None:
        processes = too_little.processes_per_machine
        raise InputError(
            f"model.size: {shape.parameters.total:,} parameters take {4 * shape.parameters.total / 1e9:.1f} GB of main "
            f"memory in each process while a model is made, and no machine has that for {processes} process(es); give "
            "machines with more main memory, fewer processes on each (launch.processes_per_machine, with more "
            "launch.machines), or a smaller model"
        )
    part, advice = "a device", "give more machines, a smaller model, or launch.device_memory"
    if placement.gpu_fraction < 1:
        part = f"launch.gpu_fraction={placement.gpu_fraction:g} of one"
        advice = "give a larger part, or a smaller model"
    elif precision == "fp32" and launch.precision == "auto" and any(h.gpus and h.bf16 for h in resources.hosts):
        advice += "; launch.precision=bf16 leaves out the GPUs without bf16, for which all trials train in fp32"
    raise InputError(
        f"model.size: {shape.parameters.total:,} parameters need {memory.total / 1e9:.1f} GB a process at best, and "
        f"{part} has {device_memory * placement.gpu_fraction / 1e9:.1f} GB, of "
        f"which {_USABLE:.0%} may be filled; {advice}"
    )


def _holds_new_models(shape: Shape, placement: Placement, usable: Resources) -> bool:
    """Return whether the main memory of machines holds the models that processes for GPUs make in it at first.

    Each makes a whole one in float32, whatever the stage shards later. On a CPU the estimate of a process has more.
    """
    if placement.device == "cpu":
        return True
    needed = 4 * shape.parameters.total * placement.processes_per_machine
    enough = [host for host in usable.suited(placement).hosts if needed <= _USABLE * host.memory]
    return len(enough) >= placement.machines


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


def check_compiles(cell: Experiment, placement: Placement, resources: Resources) -> None:
    """Refuse `train.compile=true` where it would be refused in the trial: before anything is started.

    Args:
        cell: settings of the trial.
        placement: of the trial.
        resources: what the machines have; of those that are assumed nothing is known.

    Raises:
        InputError: it cannot be compiled under that stage, or on a machine that may run it.
    """
    if cell.train.compile is not True:
        return
    obstacle = STAGE_3 if placement.zero_stage == 3 else ""
    for host in resources.suited(placement).hosts:
        if not obstacle and host.compile_obstacle:
            obstacle = f"{host.compile_obstacle}{f' (node {host.node} of the cluster)' if host.node else ''}"
    if obstacle:
        raise InputError(f"train.compile=true: {obstacle}; give auto or false")


def _candidates(
    cell: Experiment,
    device: Literal["cpu", "cuda"],
    precision: Literal["fp32", "bf16"],
    sequences: int,
    usable: Resources,
) -> Iterator[tuple[Placement, int]]:
    """Yield the placements that the settings allow, the preferred ones first, with the bytes of the devices they get.

    Raises:
        InputError: more machines or processes than the cluster has.
    """
    launch = cell.launch
    every_stage = (1, 2, 3) if precision == "bf16" else (0, 1, 2, 3)
    stages = every_stage if launch.zero_stage == "auto" else (launch.zero_stage,)
    parts = usable.by_memory(device) if launch.device_memory == "auto" else [usable]
    _check_counts(cell, device, usable)
    counts = sorted(
        (machines * processes, machines, index)
        for index, part in enumerate(parts)
        for machines, processes in _process_counts(cell, device, part)
    )
    for world_size, machines, index in counts:
        memory = parts[index].device_memory(device) if launch.device_memory == "auto" else launch.device_memory
        for stage in stages:
            for micro_batch in _micro_batches(launch.micro_batch, sequences, world_size):
                placement = Placement(
                    machines=machines,
                    processes_per_machine=world_size // machines,
                    cpus_per_process=launch.least_cpus,
                    device=device,
                    zero_stage=stage,
                    precision=precision,
                    micro_batch=micro_batch,
                    accumulation=math.ceil(sequences / (world_size * micro_batch)),
                    gpu_fraction=_asked_fraction(launch, device),
                    device_memory=memory if index else 0,
                )
                yield placement, memory


def _counts(placement: Placement) -> tuple[int, int]:
    return placement.machines, placement.processes_per_machine


def _asked_fraction(launch: LaunchSettings, device: str) -> float:
    return 1.0 if launch.gpu_fraction == "auto" or device == "cpu" else launch.gpu_fraction


def choose_precision(asked: str, device: Literal["cpu", "cuda"], resources: Resources) -> Literal["fp32", "bf16"]:
    """Return the precision of trials on a device: bf16 on GPUs that all compute in it, else fp32.

    One precision for all trials: if it followed the size of the GPU that a model needs, a fit would take its effect for
    one of N.

    Args:
        asked: `launch.precision`.
        device: of the trials.
        resources: what the machines have.

    Raises:
        InputError: bf16 is asked for, and no GPU computes in it.
    """
    if asked == "bf16" and device == "cuda" and not any(host.gpus and host.bf16 for host in resources.hosts):
        raise InputError("launch.precision=bf16: no GPU here has bf16 (they are older than Ampere); give fp32 or auto")
    if asked == "auto":
        return "bf16" if device == "cuda" and resources.has_bf16 else "fp32"
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


def _usable(cell: Experiment, device: str, precision: str, resources: Resources) -> Resources:
    """Return the machines that can run a process of a trial: a head without CPU cores or GPUs is none of them.

    Raises:
        InputError: there is none.
    """
    launch = cell.launch
    hosts = [host for host in resources.hosts if host.slots(device, launch.least_cpus)]
    if not hosts:
        beside = " beside a GPU" if device == "cuda" else ""
        raise InputError(
            f"launch.cpus_per_process={launch.least_cpus}: no machine gives that many CPU cores{beside}; give "
            "fewer, or ask the scheduler for more (sbatch --cpus-per-task, a container's CPU limit)"
        )
    if device == "cuda" and precision == "bf16":
        hosts = [host for host in hosts if host.bf16]
    if _asked_fraction(launch, device) < 1:
        hosts = [host for host in hosts if not host.gpu_slices]
        if not hosts:
            raise InputError(
                f"launch.gpu_fraction={launch.gpu_fraction}: the GPUs here are slices (MIG), which are not shared; "
                "give auto or 1"
            )
    return replace(resources, hosts=tuple(hosts))


def _check_counts(cell: Experiment, device: str, usable: Resources) -> None:
    """Raise InputError if the settings ask for more machines or processes than there are, whatever their memory."""
    launch = cell.launch
    fraction = _asked_fraction(launch, device)
    several = [
        f"launch.{name}={count}"
        for name, count in (("machines", launch.machines), ("processes_per_machine", launch.processes_per_machine))
        if count not in ("auto", 1)
    ]
    if fraction < 1 and several:
        raise InputError(
            f"launch.gpu_fraction={fraction:g}: only a trial of one process shares a GPU; leave out {several[0]}, or "
            "give auto or 1"
        )
    slots = usable.processes(device, launch.least_cpus)
    if launch.machines != "auto" and launch.machines > len(slots):
        raise InputError(f"launch.machines={launch.machines}: the cluster has {len(slots)}; give at most that many")
    most = slots[0 if launch.machines == "auto" else launch.machines - 1]
    if launch.processes_per_machine != "auto" and launch.processes_per_machine > most:
        unit = f"slots of {'a GPU and ' if device == 'cuda' else ''}{launch.least_cpus} CPU core(s)"
        raise InputError(
            f"launch.processes_per_machine={launch.processes_per_machine}: the cluster's machines have "
            f"{most} {unit}; give at most that many"
        )


def _process_counts(cell: Experiment, device: str, usable: Resources) -> list[tuple[int, int]]:
    """Return pairs of machines and processes per machine that these machines can run."""
    launch = cell.launch
    if _asked_fraction(launch, device) < 1:
        return [(1, 1)]
    slots = usable.processes(device, launch.least_cpus)
    counts = range(1, len(slots) + 1) if launch.machines == "auto" else [launch.machines]
    # A trial's machines run equally many processes: the least of the best `machines` hosts is the limit.
    limits = {machines: slots[machines - 1] for machines in counts if machines <= len(slots)}
    wanted = launch.processes_per_machine
    if wanted != "auto":
        return [(machines, wanted) for machines, most in limits.items() if wanted <= most]
    return [(machines, 2**k) for machines, most in limits.items() for k in range(most.bit_length()) if 2**k <= most]


def _micro_batches(wanted: Any, sequences: int, world_size: int) -> list[int]:
    """Return the micro-batches to try, largest first; none is larger than a process's share of the batch."""
    share = math.ceil(sequences / world_size)
    if wanted != "auto":
        return [min(int(wanted), share)]
    smaller = [2**k for k in range(share.bit_length()) if 2**k < share]
    return [share, *reversed(smaller)]
