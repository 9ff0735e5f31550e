"""The machines that a sweep would run on, asked without starting anything."""

from collections.abc import Iterator
from contextlib import contextmanager

from amscale.cluster.resources import Resources, this_machine


@contextmanager
def sweep_resources(address: str | None) -> Iterator[Resources]:
    """The machines of a running Ray cluster, or this machine.

    Args:
        address: of a running cluster; None stands for this machine alone, and starts nothing.
    """
    if address is None:
        yield this_machine()
        return
    from amscale.cluster import grid, resources

    with grid.ray_cluster(address, cpus=0):
        yield resources.cluster()
