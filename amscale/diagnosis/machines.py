"""Reach the machines of a cluster: this one, a list of hosts, Slurm's allocation, a Ray cluster."""

import os
import re
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
    """Their names: those by which they reach each other, where `addresses` has no others."""
    run: Callable[[str, list[str], float], Answer]
    """Runs `python -m` with some words on a peer, for some seconds at most."""
    without_trials: frozenset[str] = frozenset()
    """Peers on which no trial runs: a head of Ray's without CPU cores."""
    addresses: tuple[str, ...] = ()
    """By which they reach each other."""

    def on(self, words: dict[str, list[str]], seconds: float) -> dict[str, Answer]:
        """Run `python -m` on some peers at the same time, each with words of its own; return their answers."""
        with ThreadPoolExecutor(len(words)) as threads:
            asked = {peer: threads.submit(self.run, peer, own, seconds) for peer, own in words.items()}
            return {peer: one.result() for peer, one in asked.items()}


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
    status, output, errors = _run(["scontrol", "show", "node", "--oneliner", listed], 60)
    addresses = dict(re.findall(r"NodeName=(\S+).*? NodeAddr=(\S+)", output))
    if status or not addresses:
        raise InputError(f"--slurm: scontrol names no node ({errors.strip()}); run it where Slurm's commands are")
    # A step gets one core otherwise, whatever the job was given.
    cpus = min(map(int, re.findall(r"(?:^|,)(\d+)", os.environ.get("SLURM_JOB_CPUS_PER_NODE", "1"))))
    srun = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--cpus-per-task={cpus}", "--quiet"]

    def run(peer: str, words: list[str], seconds: float) -> Answer:
        return _run([*srun, f"--nodelist={peer}", sys.executable, "-m", *words], seconds)

    return Machines(list(addresses), run, addresses=tuple(addresses.values()))


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

        alive = [node for node in ray.nodes() if node["Alive"]]
        nodes = {node["NodeManagerAddress"]: node["NodeID"] for node in alive}
        idle = frozenset(node["NodeManagerAddress"] for node in alive if not node["Resources"].get("CPU"))
        remote = ray.remote(num_cpus=0, max_retries=0)(_run_on_node)

        def run(peer: str, words: list[str], seconds: float) -> Answer:
            strategy = NodeAffinitySchedulingStrategy(node_id=nodes[peer], soft=False)
            try:
                asked = remote.options(scheduling_strategy=strategy).remote(words, seconds)
                answer: Answer = ray.get(asked, timeout=seconds + 60)
            except ray.exceptions.RayError as error:
                return 1, "", str(error).strip().splitlines()[-1]
            return answer

        yield Machines(list(nodes), run, idle)


def run_here(words: list[str], seconds: float) -> Answer:
    """Run `python -m` with some words on this machine."""
    return _run([sys.executable, "-m", *words], seconds)


def _run_on_node(words: list[str], seconds: float) -> Answer:
    """Run on a node of a Ray cluster; Ray takes CUDA_VISIBLE_DEVICES from processes that reserve no GPU."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    return run_here(words, seconds)


def _run(command: list[str], seconds: float) -> Answer:
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer for {seconds:.0f} s"
    except OSError as error:
        return 127, "", f"{error.filename}: {error.strerror}"
    return ran.returncode, ran.stdout, ran.stderr
