"""Measure an all-reduce within and across machines, over the interface that trials use.

    python -m amscale.diagnosis.collectives MACHINE MACHINES HEAD PORT ADDRESS SECONDS      one a machine, at a time

Prints a line of JSON on machine 0. Each machine has a rank for each GPU (NCCL), or two on CPUs (gloo).
"""

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

from amscale.cluster.network import interface_of

_BYTES = 16 << 20
_REPEATS = 5
_RANK = "AMSCALE_COLLECTIVE_RANK"


def measure(machine: int, machines: int, head: str, port: int, interface: str, seconds: float, local: int) -> None:
    """Take part with one rank; print the result on rank 0."""
    import torch
    import torch.distributed as dist

    here, cuda = ranks_here(), torch.cuda.is_available()
    rank, world = machine * here + local, machines * here
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    limit = timedelta(seconds=seconds)
    store = dist.TCPStore(head, port, world, is_master=rank == 0, timeout=limit)
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
    within = [dist.new_group(list(range(m * here, (m + 1) * here)), timeout=limit) for m in range(machines)][machine]
    found: dict[str, Any] = {"backend": backend, "interface": interface, "ranks": world, "machines": machines}
    for name, group, size in (("within", within, here), ("across", dist.group.WORLD, world)):
        if size < 2 or (name == "across" and machines < 2):
            continue
        tensor = torch.ones(_BYTES // 4, device=device)
        dist.all_reduce(tensor, group=group)
        right = bool((tensor == size).all())
        dist.barrier()
        began = time.perf_counter()
        for _ in range(_REPEATS):
            dist.all_reduce(tensor, group=group)
        if cuda:
            torch.cuda.synchronize()
        elapsed = (time.perf_counter() - began) / _REPEATS
        found[name] = {"right": right, "bytes_per_second": 2 * (size - 1) / size * _BYTES / elapsed}
    if rank == 0:
        print(json.dumps(found), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def ranks_here() -> int:
    """Return how many ranks a machine has in the measurement."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 2


def main(words: list[str]) -> int:
    """Start this machine's ranks, or be one of them."""
    machine, machines, head, port, address, seconds = words
    # What the site has set is respected, as in a trial.
    interface = os.environ.get("NCCL_SOCKET_IFNAME") or os.environ.get("GLOO_SOCKET_IFNAME") or interface_of(address)
    if _RANK in os.environ:
        local = int(os.environ[_RANK])
        measure(int(machine), int(machines), head, int(port), interface, float(seconds), local)
        return 0
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
    environment = {**dict.fromkeys(names, interface), **os.environ}
    command = [sys.executable, "-m", "amscale.diagnosis.collectives", *words]
    ranks = [subprocess.Popen(command, env={**environment, _RANK: str(local)}) for local in range(ranks_here())]
    try:
        return max(abs(rank.wait(timeout=2 * float(seconds) + 60)) for rank in ranks)
    finally:
        for rank in ranks:
            rank.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
