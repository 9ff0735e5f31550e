"""Examine a cluster: facts from every machine at the same time, an all-reduce among them, and what is wrong."""

import json
import shutil
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from amscale.config import load
from amscale.diagnosis import findings
from amscale.diagnosis.facts import gather
from amscale.diagnosis.findings import Facts, Finding
from amscale.diagnosis.machines import Machines, hosts, ray_nodes, slurm, this_machine
from amscale.errors import InputError
from amscale.trials.objects import ObjectStore, is_uri

_FACTS_SECONDS = 180.0
_COLLECTIVE_SECONDS = 60.0


def diagnose(names: str | None = None, overrides: Sequence[str] = (), *, slurm_nodes: bool = False) -> list[Finding]:
    """Return the findings on a cluster: of a list of hosts, of Slurm's allocation, of a Ray cluster, or this machine.

    Args:
        names: hosts, `host1,host2`, reached as `launch/trial.sh` reaches them.
        overrides: settings, of which `launch.address` (a Ray cluster, which this process then joins), `storage` and
            `launch.visible_after` count.
        slurm_nodes: take the nodes of the allocation that this process runs in.

    Raises:
        InputError: bad settings, more than one cluster, no allocation, or no Ray cluster at the address.
    """
    config = load("quick.yaml", overrides)
    address, storage, seconds = config.launch.address, config.storage, config.launch.visible_after
    if sum((names is not None, slurm_nodes, address is not None)) > 1:
        raise InputError("give one of HOSTS, --slurm and launch.address: each names the machines")
    if address is not None:
        with ray_nodes(address) as nodes:
            return examine(nodes, storage, seconds)
    machines = hosts(names) if names is not None else slurm() if slurm_nodes else this_machine()
    if not machines.peers:
        raise InputError(f"{names!r}: no hosts; write host1,host2")
    return examine(machines, storage, seconds)


def examine(machines: Machines, storage: str, visible_seconds: float) -> list[Finding]:
    """Return the findings on a cluster.

    Args:
        machines: of the cluster.
        storage: of sweeps; a folder is taken as each machine sees it.
        visible_seconds: how long a machine waits for the others' files.
    """
    if not is_uri(storage):
        storage = str(Path(storage).expanduser().absolute())
    token = f".doctor-{uuid.uuid4().hex[:8]}"
    request = {"storage": storage, "peers": machines.peers, "token": token, "seconds": visible_seconds, "full": True}
    words = ["amscale.diagnosis.facts", json.dumps(request)]
    began = time.time()
    answers = machines.on_all([words] * len(machines.peers), _FACTS_SECONDS + visible_seconds)
    ended = time.time()
    _forget(storage, token)
    found, known = [], []
    for peer, (status, output, errors) in zip(machines.peers, answers, strict=True):
        facts = _last_json(output)
        if status or facts is None:
            said = (errors.strip().splitlines() or [f"exit status {status}"])[-1]
            mend = "make it answer, with the same Python and folder as here (docs/clusters.md)"
            found.append(Finding("reached", peer, False, said, mend))
        else:
            known.append(facts)
    for facts in known:
        found += findings.of_machine(facts)
    if known:
        skews = {facts["host"]: min(0.0, facts["time"] - began) + max(0.0, facts["time"] - ended) for facts in known}
        found += findings.of_all(known, skews)
    if len(known) == len(machines.peers):
        found += _collectives(machines, known)
    return found


def glance(storage: str) -> list[Finding]:
    """Return what is wrong with this machine, as far as a second tells: before a sweep spends anything."""
    token = f".doctor-{uuid.uuid4().hex[:8]}"
    facts = gather(storage, ["localhost"], token, seconds=0.0, full=False)
    _forget(storage, token)
    return [finding for finding in findings.of_machine(facts) if not finding.ok]


def _collectives(machines: Machines, known: list[Facts]) -> list[Finding]:
    if any("network_error" in facts for facts in known):
        return []
    head, port, count = known[0]["address"], known[0]["port"], len(known)
    words = [
        ["amscale.diagnosis.collectives", *map(str, (index, count, head, port, facts["address"], _COLLECTIVE_SECONDS))]
        for index, facts in enumerate(known)
    ]
    answers = machines.on_all(words, 3 * _COLLECTIVE_SECONDS + 60)
    measured = _last_json(answers[0][1])
    if measured is None or any(status for status, _, _ in answers):
        lines = [line for _, _, errors in answers for line in errors.strip().splitlines() if "Error" in line]
        said = lines[-1].strip() if lines else "no answer"
        mend = "open all ports between the machines, or name their interface in NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME"
        return [Finding("all-reduce", "all", False, said, mend)]
    found = []
    for name in ("within", "across"):
        if name in measured:
            speed = f"{measured[name]['bytes_per_second'] / 1e9:.2f} GB/s by {measured['backend']}"
            right = measured[name]["right"]
            said = f"{speed} over {measured['interface']}" if name == "across" else speed
            mend = "" if right else "the sum is wrong: test the memory and the network of the machines"
            found.append(Finding(f"all-reduce {name} machines", "all", right, said, mend))
    return found


def _last_json(output: str) -> dict[str, Any] | None:
    for line in reversed(output.strip().splitlines()):
        with suppress(ValueError):
            found = json.loads(line)
            return found if isinstance(found, dict) else None
    return None


def _forget(storage: str, token: str) -> None:
    """Remove what the machines wrote; what cannot be removed is small, and was reported as what cannot be written."""
    with suppress(Exception):
        if is_uri(storage):
            objects = ObjectStore(storage).at(token)
            objects.remove(objects.entries())
        else:
            shutil.rmtree(Path(storage).expanduser() / token, ignore_errors=True)
