"""What machines have: processes, memory and devices; of a Ray cluster, of this machine, or assumed."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from amscale.config import LaunchSettings
from amscale.errors import InputError

# Training FLOP/s: a first guess for the plan's time column, replaced by what the sweep's own trials reach.
_GPU_FLOPS = 1.2e14
"""A data-centre GPU at some 40 % of its dense bf16 peak."""
_CPU_CORE_FLOPS = 2.5e10


@dataclass(frozen=True)
class Host:
    """One machine."""

    cpus: int
    gpus: int
    memory: int
    """Bytes of main memory."""
    gpu_memory: int = 0
    """Bytes of one GPU's memory."""
    bf16: bool = True
    """Whether all of its GPUs compute in bf16."""


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

    def processes(self, device: str, cpus_per_process: int) -> list[int]:
        """Return how many processes each machine can run at a time, most first."""
        slots = [h.gpus if device == "cuda" else h.cpus // cpus_per_process for h in self.hosts]
        return sorted(slots, reverse=True)

    def device_memory(self, device: str) -> int:
        """Return the bytes for one process: a GPU's memory, or an even share of a machine's main memory per core."""
        if device == "cuda":
            return min((h.gpu_memory for h in self.hosts if h.gpus), default=0)
        return min(h.memory // max(h.cpus, 1) for h in self.hosts)

    def describe(self) -> str:
        """Return one line for the plan."""
        gpus = sum(h.gpus for h in self.hosts)
        if self.assumed:
            host = self.hosts[0]
            return f"machines of {host.gpus} GPUs with {host.gpu_memory / 1e9:.0f} GB each (assumed: no GPU is here)"
        machines = f"{len(self.hosts)} machine{'s' if len(self.hosts) > 1 else ''}"
        return f"{machines}, {sum(h.cpus for h in self.hosts)} CPU cores, {gpus} GPUs"


def computes_bf16(capability: tuple[int, int]) -> bool:
    """Return whether NVIDIA cards of a compute capability have units for bf16: from 8.0 (Ampere) on.

    torch says so of older ones too (V100 is 7.0, T4 7.5), and emulates it at a fraction of the speed of fp32.
    """
    return capability >= (8, 0)


def assumed_flops(device: str, cpus_per_process: int) -> float:
    """Return the training FLOP/s of one process that the plan assumes until a trial of the sweep has been measured."""
    return _GPU_FLOPS if device == "cuda" else _CPU_CORE_FLOPS * cpus_per_process


def this_machine() -> Resources:
    """Return what the machine has that this process runs on."""
    gpus, memory = _nvidia()
    affinity = len(psutil.Process().cpu_affinity() or [0])
    return Resources((Host(cpus=affinity, gpus=gpus, memory=psutil.virtual_memory().total, gpu_memory=memory),))


def cluster() -> Resources:
    """Return what the Ray cluster has that this process is connected to."""
    import ray

    _, gpu_memory = _nvidia()
    hosts = [
        Host(
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            memory=int(node["Resources"].get("memory", 0)),
            gpu_memory=gpu_memory,
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return Resources(tuple(hosts))


_MOST_DIGITS = 12


def _nvidia() -> tuple[int, int]:
    """Return the number of NVIDIA GPUs here and the least memory of one in bytes, without importing torch."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0, 0
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"no answer in {error.timeout:g} s" if isinstance(error, subprocess.TimeoutExpired) else error.strerror
        raise InputError(f"{program} cannot say which GPUs are here: {reason}; mend it or take it off PATH") from None
    lines = answer.stdout.decode("utf-8", "replace").split()
    sizes = [int(line) for line in lines if line.isascii() and line.isdigit() and len(line) < _MOST_DIGITS]
    return len(sizes), min(sizes, default=0) * 2**20


_ASSUMED_GPU_MEMORY = 80 * 10**9
_ASSUMED_GPUS = 8
_ASSUMED_MACHINES = 64


@contextmanager
def planned_resources(launch: LaunchSettings) -> Iterator[Resources]:
    """Give the machines of a running Ray cluster, or this machine; without a GPU here, what the settings ask for.

    Starts nothing: an experiment for GPUs can be planned on a laptop.
    """
    if launch.address is None:
        here = this_machine()
        yield _assumed(launch) if launch.device == "cuda" and not here.has_gpus else here
        return
    from amscale.cluster import tune

    with tune.ray_cluster(launch.address, cpus=0):
        yield cluster()


def _assumed(launch: LaunchSettings) -> Resources:
    machines = _ASSUMED_MACHINES if launch.machines == "auto" else launch.machines
    gpus = _ASSUMED_GPUS if launch.processes_per_machine == "auto" else launch.processes_per_machine
    memory = _ASSUMED_GPU_MEMORY if launch.device_memory == "auto" else launch.device_memory
    host = Host(cpus=gpus * launch.cpus_per_process, gpus=gpus, memory=gpus * memory, gpu_memory=memory)
    return Resources((host,) * machines, assumed=True)
