"""The machines that a sweep would run on, asked without starting anything, or assumed."""

from collections.abc import Iterator
from contextlib import contextmanager

from amscale.cluster.resources import Host, Resources, this_machine
from amscale.config import LaunchSettings

_ASSUMED_GPU_MEMORY = 80 * 10**9
_ASSUMED_GPUS = 8
_ASSUMED_MACHINES = 64


@contextmanager
def planned_resources(launch: LaunchSettings) -> Iterator[Resources]:
    """The machines of a running Ray cluster, or this machine; without a GPU here, a cluster that the settings ask for.

    Nothing is started. An experiment for GPUs can so be planned on a laptop.
    """
    if launch.address is None:
        here = this_machine()
        yield _assumed(launch) if launch.device == "cuda" and not here.has_gpus else here
        return
    from amscale.cluster import grid, resources

    with grid.ray_cluster(launch.address, cpus=0):
        yield resources.cluster()


def _assumed(launch: LaunchSettings) -> Resources:
    machines = _ASSUMED_MACHINES if launch.machines == "auto" else launch.machines
    gpus = _ASSUMED_GPUS if launch.processes_per_machine == "auto" else launch.processes_per_machine
    memory = _ASSUMED_GPU_MEMORY if launch.device_memory == "auto" else launch.device_memory
    host = Host(cpus=gpus * launch.cpus_per_process, gpus=gpus, memory=gpus * memory, gpu_memory=memory)
    return Resources((host,) * machines, assumed=True)
