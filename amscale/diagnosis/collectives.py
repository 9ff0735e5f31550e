"""Measure an all-reduce within and across machines, over the interface that trials use.

    python -m amscale.diagnosis.collectives REQUEST        one a machine, at a time

REQUEST is JSON, with the arguments of `measure`. Prints a line of JSON, with the speed within the
machine and across all.
"""

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

from amscale.cluster.network import interface_variables
from amscale.streams import end_rank

_BYTES = 16 << 20
_REPEATS = 5
_RANK = "AMSCALE_COLLECTIVE_RANK"


def measure(
    local: int, machine: int, machines: int, ranks: int, head: str, port: int, address: str, cuda: bool, seconds: float
) -> None:
    """Take part with one rank; print the result on the first of each machine.

    Args:
        local: this rank's number on this machine.
        machine: this machine's number.
        machines: how many take part.
        ranks: how many each of them runs: one for each GPU (NCCL), or some on CPUs (gloo).
        head: address of machine 0.
        port: a free port there.
        address: of this machine.
        cuda: whether to measure between GPUs.
        seconds: how long one collective may take.
    """
    import torch
    import torch.distributed as dist

    interface = os.environ["NCCL_SOCKET_IFNAME" if cuda else "GLOO_SOCKET_IFNAME"]
    rank, world = machine * ranks + local, machines * ranks
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    limit = timedelta(seconds=seconds)
    store = dist.TCPStore(head, port, world, is_master=rank == 0, timeout=limit)
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit)
    within = [dist.new_group(list(range(m * ranks, (m + 1) * ranks)), timeout=limit) for m in range(machines)][machine]
    found: dict[str, Any] = {"backend": backend, "interface": interface}
    for name, group, size in (("within", within, ranks), ("across", dist.group.WORLD, world)):
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
    if local == 0:
        print(json.dumps(found), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main(request: str) -> int:
    """Start this machine's ranks, or be one of them."""
    asked = json.loads(request)
    if _RANK in os.environ:
        measure(int(os.environ[_RANK]), **asked)
        end_rank(0)
    # What the site says of interfaces is respected, as in a trial.
    environment = os.environ | interface_variables(asked["address"], os.environ)
    command = [sys.executable, "-m", "amscale.diagnosis.collectives", request]
    ranks = [subprocess.Popen(command, env={**environment, _RANK: str(local)}) for local in range(asked["ranks"])]
    try:
        return max(abs(rank.wait(timeout=2 * asked["seconds"] + 60)) for rank in ranks)
    finally:
        for rank in ranks:
            rank.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
