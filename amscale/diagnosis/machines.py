"""Reach the machines of a cluster: this one, a list of hosts, Slurm's allocation, a Ray cluster."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from amscale.errors import InputError

_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=15"

Answer = tuple[int, str, str]
"""Exit status, output and errors of a command."""


@dataclass(frozen=True)
class Machines:
    """The machines of a cluster, and how a module is run on one of them."""

    peers: list[str]
    """Names or addresses by which they reach each other."""
    run: Callable[[str, list[str], float], Answer]
    """Runs `python -m` with some words on a peer, for some seconds at most."""

    def on_all(self, words: list[list[str]], seconds: float) -> list[Answer]:
        """Run `python -m` on every machine at the same time, each with words of its own."""
        with ThreadPoolExecutor(len(self.peers)) as threads:
            asked = [threads.submit(self.run, peer, own, seconds) for peer, own in zip(self.peers, words, strict=True)]
            return [one.result() for one in asked]


def this_machine() -> Machines:
    """Return this machine alone."""
    return Machines(["localhost"], lambda peer, words, seconds: run_here(words, seconds))


def hosts(names: str) -> Machines:
    """Return the hosts of a list `host1,host2`, reached by $REMOTE_SHELL as `launch/trial.sh` does."""
    shell = shlex.split(os.environ.get("REMOTE_SHELL", _SSH))
    python = os.environ.get("PYTHON", sys.executable)
    listed = {name.partition("@")[2] or name: name for name in names.split(",") if name}

    def run(peer: str, words: list[str], seconds: float) -> Answer:
        text = f"cd {shlex.quote(os.getcwd())} && exec {shlex.join([python, '-m', *words])}"
        return _run([*shell, listed[peer], text], seconds)

    return Machines(list(listed), run)


def slurm() -> Machines:
    """Return the nodes of the allocation that this process runs in.

    Raises:
        InputError: it runs in none.
    """
    listed = os.environ.get("SLURM_JOB_NODELIST")
    if not listed:
        raise InputError("--slurm: no allocation here; run it in a job, or after `salloc --nodes=2`")
    status, output, errors = _run(["scontrol", "show", "hostnames", listed], 60)
    if status:
        raise InputError(f"--slurm: scontrol does not answer ({errors.strip()}); run it where Slurm's commands are")
    srun = ["srun", "--overlap", "--nodes=1", "--ntasks=1", "--quiet"]
    return Machines(
        output.split(),
        lambda peer, words, seconds: _run([*srun, f"--nodelist={peer}", sys.executable, "-m", *words], seconds),
    )


@contextmanager
def ray_nodes(address: str) -> Iterator[Machines]:
    """Give the nodes of a Ray cluster, which this process joins while the block runs; no resources are reserved.

    Raises:
        InputError: no cluster answers at the address.
    """
    from amscale.cluster.ray_cluster import ray_cluster

    with ray_cluster(address, cpus=0):
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}
        remote = ray.remote(num_cpus=0, max_retries=0)(run_here)

        def run(peer: str, words: list[str], seconds: float) -> Answer:
            strategy = NodeAffinitySchedulingStrategy(node_id=nodes[peer], soft=False)
            try:
                asked = remote.options(scheduling_strategy=strategy).remote(words, seconds)
                answer: Answer = ray.get(asked, timeout=seconds + 60)
            except ray.exceptions.RayError as error:
                return 1, "", str(error).strip().splitlines()[-1]
            return answer

        yield Machines(list(nodes), run)


def run_here(words: list[str], seconds: float) -> Answer:
    """Run `python -m` with some words on this machine."""
    return _run([sys.executable, "-m", *words], seconds)


def _run(command: list[str], seconds: float) -> Answer:
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer for {seconds:.0f} s"
    except OSError as error:
        return 127, "", f"{error.filename}: {error.strerror}"
    return ran.returncode, ran.stdout, ran.stderr
