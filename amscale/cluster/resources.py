"""What machines have: processes, memory and devices; of a Ray cluster, of this machine, or assumed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import amscale
from amscale.cluster.cards import MEMORIES, USUAL_SHARE, known_card, peak_flops
from amscale.cluster.compilers import compile_obstacle
from amscale.cluster.gpus import GpuSearch, find_gpus
from amscale.cluster.limits import granted_cpus, granted_memory
from amscale.config import LaunchSettings
from amscale.errors import InputError
from amscale.trials.records import Placement

# Training FLOP/s: a first guess for the plan's time column, replaced by what the sweep's own trials reach.
_GPU_FLOPS = 1.2e14
"""Of a GPU that is not in the table of cards, or in fp32."""
_CPU_CORE_FLOPS = 2.5e10
_ALIKE = 1.1
"""Memories that differ by less than this factor count as one size: drivers and kernels keep parts of their own."""


@dataclass(frozen=True)
class Host:
    """One machine."""

    cpus: int
    gpus: int
    memory: int
    """Bytes of main memory."""
    gpu_memory: int = 0
    """Bytes of the memory of one GPU, of the smallest one where they differ."""
    gpu_name: str = ""
    """What its driver calls its GPUs, several names joined by a plus."""
    bf16: bool = True
    """Whether all of its GPUs compute in bf16."""
    gpu_slices: tuple[str, ...] = ()
    """UUIDs of its GPUs where they are slices (MIG), of which processes that see several can use the first only."""
    trouble: str = ""
    """Why it is not known whether it has GPUs."""
    note: str = ""
    """What a user should know of it."""
    node: str = ""
    """Ray's name of it, where it is a node of a running cluster."""
    versions: tuple[tuple[str, str], ...] = ()
    """Package and version of what a trial and its driver must agree in, where it is such a node."""
    compile_obstacle: str = ""
    """Why torch.compile can make no code there; empty where it can, or where that is not known."""

    def slots(self, device: str, cpus_per_process: int, gpu_fraction: float = 1.0) -> int:
        """Return how many processes it can run at a time: each needs its CPU cores, beside its part of a GPU."""
        cpus = self.cpus // cpus_per_process
        if device != "cuda":
            return cpus
        return min(self.gpus * int(1 / gpu_fraction + 1e-9), cpus, 1 if self.gpu_slices else cpus)

    def device_memory(self, device: str) -> int:
        """Return the bytes for one process: a GPU's memory, or an even share of the main memory per core."""
        return self.gpu_memory if device == "cuda" else self.memory // max(self.cpus, 1)

    def suits(self, placement: Placement) -> bool:
        """Return whether its devices are what a trial was planned for: their memory, precision, and parts of them."""
        if self.device_memory(placement.device) < placement.device_memory:
            return False
        if placement.device == "cpu":
            return True
        whole = placement.gpu_fraction == 1 or not self.gpu_slices
        return self.gpus > 0 and whole and (self.bf16 or placement.precision != "bf16")


@dataclass(frozen=True)
class Resources:
    """The machines that a sweep may use."""

    hosts: tuple[Host, ...]
    assumed: bool = False
    """Whether they are what an experiment asks for and not what exists."""

    @property
    def has_gpus(self) -> bool:
        """Whether any machine has a GPU."""
        return any(host.gpus for host in self.hosts)

    @property
    def has_bf16(self) -> bool:
        """Whether every GPU of these machines computes in bf16."""
        return all(host.bf16 for host in self.hosts if host.gpus)

    @property
    def trouble(self) -> str:
        """Why it is not known whether there are GPUs; empty where it is."""
        return next((host.trouble for host in self.hosts if host.trouble), "")

    def processes(self, device: str, cpus_per_process: int, gpu_fraction: float = 1.0) -> list[int]:
        """Return how many processes each machine can run at a time, most first."""
        return sorted((host.slots(device, cpus_per_process, gpu_fraction) for host in self.hosts), reverse=True)

    def device_memory(self, device: str) -> int:
        """Return the bytes that every process has at least, whichever machine runs it."""
        return min((host.device_memory(device) for host in self.hosts), default=0)

    def by_memory(self, device: str) -> list["Resources"]:
        """Return for each size of device memory, the smallest first, the machines that have at least that much."""
        hosts = sorted(self.hosts, key=lambda host: host.device_memory(device))
        found: list[Resources] = []
        least = 0
        for index, host in enumerate(hosts):
            if not found or host.device_memory(device) > _ALIKE * least:
                least = host.device_memory(device)
                found.append(replace(self, hosts=tuple(hosts[index:])))
        return found

    def suited(self, placement: Placement) -> "Resources":
        """Return the machines whose devices are what a trial was planned for."""
        return replace(self, hosts=tuple(host for host in self.hosts if host.suits(placement)))

    def unsuited_nodes(self, placement: Placement) -> tuple[str, ...]:
        """Return Ray's names of the nodes that a trial must not get although they may have room for it."""
        return tuple(
            host.node
            for host in self.hosts
            if host.node and (host.gpus if placement.device == "cuda" else host.cpus) and not host.suits(placement)
        )

    def cards(self) -> list[str]:
        """Return how many GPUs there are of each kind, with name and memory, those of the largest memory first."""
        kinds: dict[tuple[str, int], int] = {}
        for host in self.hosts:
            if host.gpus and host.gpu_name:
                kind = host.gpu_name, host.gpu_memory
                kinds[kind] = kinds.get(kind, 0) + host.gpus
        largest_first = sorted(kinds.items(), key=lambda kind: (-kind[0][1], kind[0][0]))
        return [f"{count} {name} of {memory / 1e9:.0f} GB" for (name, memory), count in largest_first]

    def describe(self) -> str:
        """Return one line for the plan."""
        gpus = sum(h.gpus for h in self.hosts)
        if self.assumed:
            host = self.hosts[0]
            why = f"{host.gpu_name}, assumed" if host.gpu_name else "assumed: no GPU is here"
            return f"machines of {host.gpus} GPUs with {host.gpu_memory / 1e9:.0f} GB each ({why})"
        machines = f"{len(self.hosts)} machine{'s' if len(self.hosts) > 1 else ''}"
        words = f"{machines}, {sum(h.cpus for h in self.hosts)} CPU cores, {gpus} GPUs"
        if cards := self.cards():
            words += f" ({', '.join(cards)})"
        idle = sum(max(0, h.gpus - h.cpus) for h in self.hosts)
        if idle:
            words += f"; {idle} of them cannot be used: each needs a CPU core beside it"
        notes = {host.note for host in self.hosts if host.note and not gpus}
        return "; ".join([words, *sorted(notes)])


def assumed_flops(placement: Placement, resources: Resources) -> float:
    """Return the training FLOP/s of one process that the plan assumes until a trial of the sweep has been measured."""
    if placement.device == "cpu":
        return _CPU_CORE_FLOPS * placement.cpus_per_process
    peaks = [peak_flops(name) for host in resources.hosts if host.gpus for name in host.gpu_name.split(" + ")]
    known = [peak for peak in peaks if peak is not None]
    return USUAL_SHARE * min(known) if placement.precision == "bf16" and known == peaks and peaks else _GPU_FLOPS


def this_machine(device: str = "auto") -> Resources:
    """Return what this process is granted of the machine that it runs on.

    Args:
        device: `launch.device`; for cpu no driver is asked, which may hang.
    """
    return Resources((_granted_here(device),))


def _granted_here(device: str = "auto") -> Host:
    memory = granted_memory()
    found = GpuSearch(note="not asked for GPUs: launch.device=cpu") if device == "cpu" else find_gpus()
    names = dict.fromkeys(gpu.name for gpu in found.gpus)
    return Host(
        cpus=granted_cpus(),
        gpus=len(found.gpus),
        memory=memory,
        gpu_memory=min((gpu.memory or memory // len(found.gpus) for gpu in found.gpus), default=0),
        gpu_name=" + ".join(names),
        bf16=all(gpu.bf16 for gpu in found.gpus),
        gpu_slices=tuple(gpu.uuid for gpu in found.gpus) if any(gpu.is_slice for gpu in found.gpus) else (),
        trouble=found.trouble,
        note=found.note,
        compile_obstacle=compile_obstacle("cuda" if found.gpus else "cpu"),
    )


_NODE_ANSWER_SECONDS = 90.0
"""A node starts a process, which imports amscale: some seconds, more on a machine that is busy."""


def cluster() -> Resources:
    """Return what the Ray cluster gives that this process is connected to, as each of its nodes sees itself.

    Raises:
        InputError: a node does not answer, or has not this version of amscale.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    ask = ray.remote(num_cpus=0, max_retries=0)(_seen_by_node)
    asked = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
        for node in nodes
    ]
    _, late = ray.wait(asked, num_returns=len(asked), timeout=_NODE_ANSWER_SECONDS)
    hosts = []
    for node, answer in zip(nodes, asked, strict=True):
        address = node["NodeManagerAddress"]
        if answer in late:
            raise InputError(
                f"node {address} of the cluster has not said within {_NODE_ANSWER_SECONDS:.0f} s what it has; look at "
                "its Ray (`ray status`), or take it out of the cluster"
            )
        try:
            host = ray.get(answer)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"node {address} of the cluster cannot say what it has ({reason})") from None
        _check_versions(host, address)
        hosts.append(_given_by_ray(host, node))
    return Resources(tuple(hosts))


def _seen_by_node() -> Host:
    """Return what a node of the cluster has; Ray takes CUDA_VISIBLE_DEVICES from processes that reserve no GPU."""
    import os

    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return replace(_granted_here(), versions=_versions())


_SAME = ("torch", "deepspeed", "accelerate")
"""Packages of which, as of amscale, all machines need one version: a trial of several machines is one program."""


def _versions() -> tuple[tuple[str, str], ...]:
    """Return the versions here, without what a build adds to them (2.9.0+cu128 is 2.9.0)."""
    from importlib.metadata import PackageNotFoundError, version

    found = [("amscale", amscale.__version__)]
    for name in _SAME:
        try:
            found.append((name, version(name).partition("+")[0]))
        except PackageNotFoundError:
            found.append((name, "missing"))
    return tuple(found)


def _check_versions(host: Host, address: str) -> None:
    """Check that a node has the versions of this machine.

    Raises:
        InputError: it has others.
    """
    there = dict(host.versions)
    pairs = [(name, there.get(name, "of an earlier version"), here) for name, here in _versions()]
    others = [f"{name} {other} and not {here}" for name, other, here in pairs if other != here]
    if others:
        raise InputError(
            f"node {address} of the cluster has {', '.join(others)}, which this machine has; give all one "
            "environment, or take it out of the cluster (`python -m amscale.doctor` compares them all)"
        )


def _given_by_ray(host: Host, node: dict[str, Any]) -> Host:
    """Return what Ray gives of what a node has: `ray start` may have been told other numbers."""
    given = node["Resources"]
    gpus = int(given.get("GPU", 0))
    reason = host.trouble if gpus else ""
    if gpus > host.gpus and not reason:
        found = f"nvidia-smi finds {host.gpus}" if host.gpus else host.note or "no nvidia-smi is there"
        reason = f"Ray gives {gpus} GPUs, and {found}"
    return replace(
        host,
        cpus=int(given.get("CPU", 0)),
        gpus=gpus,
        memory=int(given.get("memory", 0)) or host.memory,
        trouble=f"node {node['NodeManagerAddress']}: {reason}" if reason else "",
        note="" if gpus else host.note,
        node=node["NodeID"],
    )


_ASSUMED_GPU_MEMORY = 80 * 10**9
_ASSUMED_GPUS = 8
_ASSUMED_MACHINES = 64


@contextmanager
def planned_resources(launch: LaunchSettings, card: str | None = None) -> Iterator[Resources]:
    """Give the machines of a running Ray cluster, or this machine; without a GPU here, what the settings ask for.

    Starts nothing: an experiment for GPUs can be planned on a laptop.

    Args:
        launch: what the settings ask for.
        card: a model of GPU; machines of it are assumed then.
    """
    if card is not None:
        yield _assumed(launch, known_card(card))
        return
    if launch.address is None:
        here = this_machine(launch.device)
        yield _assumed(launch) if launch.device == "cuda" and not here.has_gpus and not here.trouble else here
        return
    from amscale.cluster.ray_cluster import ray_cluster

    with ray_cluster(launch.address, cpus=0):
        yield cluster()


def _assumed(launch: LaunchSettings, card: str = "") -> Resources:
    machines = _ASSUMED_MACHINES if launch.machines == "auto" else launch.machines
    gpus = _ASSUMED_GPUS if launch.processes_per_machine == "auto" else launch.processes_per_machine
    memory = int(MEMORIES[card]) if card else _ASSUMED_GPU_MEMORY
    memory = memory if launch.device_memory == "auto" else launch.device_memory
    cpus = gpus * launch.least_cpus
    host = Host(cpus=cpus, gpus=gpus, memory=gpus * memory, gpu_memory=memory, gpu_name=card)
    return Resources((host,) * machines, assumed=True)
