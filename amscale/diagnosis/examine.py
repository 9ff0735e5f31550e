"""Examine a cluster: facts from every machine at the same time, an all-reduce among them, and what is wrong."""

import json
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from amscale.config import load
from amscale.diagnosis import findings, shared_storage
from amscale.diagnosis.facts import gather
from amscale.diagnosis.findings import Facts, Finding
from amscale.diagnosis.machines import Machines, hosts, ray_nodes, slurm, this_machine
from amscale.errors import InputError
from amscale.trials.objects import is_uri

_FACTS_SECONDS = 180.0
_MEETING_SECONDS = 60.0
_COLLECTIVE_SECONDS = 60.0
_UPDATE_SECONDS = 660.0
_RANKS_ON_CPUS = 2
_DEVICE_CPU = "launch.device=cpu"
_OF_CLUSTERS = ("launch.address", "launch.machines")


def diagnose(names: str | None = None, overrides: Sequence[str] = (), *, slurm_nodes: bool = False) -> list[Finding]:
    """Return the findings on a cluster: of a list of hosts, of Slurm's allocation, of a Ray cluster, or this machine.

    Args:
        names: hosts, `host1,host2`, reached as `launch/trial.sh` reaches them.
        overrides: settings, of which `storage` and those of `launch` count; `launch.address` is a Ray cluster, which
            this process then joins.
        slurm_nodes: take the nodes of the allocation that this process runs in.

    Raises:
        InputError: bad settings, more than one cluster, no allocation, or no Ray cluster at the address.
    """
    config = load("quick.yaml", overrides)
    address, storage, seconds = config.launch.address, config.storage, config.launch.visible_after
    launch = [words for words in overrides if words.startswith("launch.") and not words.startswith(_OF_CLUSTERS)]
    if sum((names is not None, slurm_nodes, address is not None)) > 1:
        raise InputError("give one of HOSTS, --slurm and launch.address: each names the machines")
    if address is not None:
        with ray_nodes(address) as nodes:
            return examine(nodes, storage, seconds, launch)
    machines = hosts(names) if names is not None else slurm() if slurm_nodes else this_machine()
    if not machines.peers:
        raise InputError(f"{names!r}: no hosts; write host1,host2")
    return examine(machines, storage, seconds, launch)


def examine(machines: Machines, storage: str, visible_seconds: float, launch: Sequence[str] = ()) -> list[Finding]:
    """Return the findings on a cluster.

    Args:
        machines: of the cluster.
        storage: of sweeps; a folder is taken as each machine sees it.
        visible_seconds: how long a machine waits for the others' files.
        launch: settings of trials, `launch.precision=bf16`.
    """
    storage, token = _absolute(storage), _token()
    common = {
        "storage": storage,
        "peers": machines.addresses or machines.peers,
        "token": token,
        "gpus": _DEVICE_CPU not in launch,
    }
    answers = _ask(machines, "facts", {peer: common | {"own": peer} for peer in machines.peers}, _FACTS_SECONDS)
    found = [answer for answer in answers.values() if isinstance(answer, Finding)]
    known = {peer: facts for peer, facts in answers.items() if not isinstance(facts, Finding)}
    if not known:
        return found
    for facts in known.values():
        found += findings.of_machine(facts | {"peers": machines.addresses or machines.peers})
    found += findings.of_all(list(known.values()))
    met = _meet(machines, known, storage, token, visible_seconds)
    problems = [answer for answer in met.values() if isinstance(answer, Finding)]
    reports = {peer: answer for peer, answer in met.items() if not isinstance(answer, Finding)}
    found += problems
    found += findings.of_meeting(reports)
    if any(report["unseen"] for report in reports.values()) or problems:
        request = {"forget": True, "storage": storage, "token": token}
        machines.on({peer: ["amscale.diagnosis.meeting", json.dumps(request)] for peer in known}, _MEETING_SECONDS)
    shared_storage.forget(storage, token)
    able = {peer: facts for peer, facts in known.items() if peer not in machines.without_trials}
    if any(facts["gpus"] for facts in able.values()):
        able = {peer: facts for peer, facts in able.items() if facts["gpus"]}
    if problems or any(report["unreached"] for report in reports.values()):
        found.append(_not_tried("all-reduce", "all", "the machines do not reach each other", "mend the network first"))
    elif reports:
        found += _collectives(machines, {peer: able[peer] for peer in reports if peer in able})
    # Where GPUs cannot be used it would fail too, and not by a fault of the engine.
    usable = [peer for peer, facts in known.items() if peer in able and _usable(facts)]
    left = [peer for peer, facts in known.items() if peer not in machines.without_trials and not _usable(facts)]
    found += [_not_tried("first update", p, "the GPUs cannot be used", "mend the GPUs first") for p in left]
    return found + _first_update(machines, usable, launch)


def _not_tried(check: str, host: str, reason: str, mend: str) -> Finding:
    return Finding(check, host, False, f"not tried: {reason}", mend)


def _usable(facts: Facts) -> bool:
    return not facts["gpu_trouble"] and (not facts["gpus"] or facts["torch"]["devices"] >= len(facts["gpus"]))


def glance(storage: str) -> list[Finding]:
    """Return what is wrong with this machine, as far as a second tells: before a sweep spends anything."""
    storage, token = _absolute(storage), _token()
    facts = gather(storage, ["localhost"], "localhost", token, gpus=False)
    shared_storage.forget(storage, token)
    return [finding for finding in findings.of_machine(facts) if not finding.ok]


def _absolute(storage: str) -> str:
    return storage if is_uri(storage) else str(Path(storage).expanduser().absolute())


def _token() -> str:
    return f".doctor-{uuid.uuid4().hex[:8]}"


def _ask(
    machines: Machines, module: str, requests: dict[str, dict[str, Any]], seconds: float
) -> dict[str, Facts | Finding]:
    """Return what a module of this package answers on some peers, or the finding that one does not answer."""
    words = {peer: [f"amscale.diagnosis.{module}", json.dumps(request)] for peer, request in requests.items()}
    answers: dict[str, Facts | Finding] = {}
    for peer, (status, output, errors) in machines.on(words, seconds).items():
        answer = _last_json(output)
        if status or answer is None:
            said = (errors.strip().splitlines() or [f"exit status {status}"])[-1]
            mend = "make it answer, with the same Python and folder as here (docs/clusters.md)"
            answers[peer] = Finding("reached", peer, False, said, mend)
        else:
            answers[peer] = answer
    return answers


def _meet(
    machines: Machines, known: dict[str, Facts], storage: str, token: str, visible_seconds: float
) -> dict[str, Facts | Finding]:
    """Let the machines meet that know their address; return what each says of the others."""
    places = {peer: (facts["address"], facts["port"]) for peer, facts in known.items() if "port" in facts}
    common = {
        "machines": places,
        "seconds": _MEETING_SECONDS,
        "storage": storage,
        "token": token,
        "writers": [peer for peer, facts in known.items() if "error" not in facts["storage"]],
        "visible_seconds": visible_seconds,
    }
    if len(places) < 2:
        return {peer: {"unreached": [], "unseen": [], "ahead": {}} for peer in places}
    requests = {peer: common | {"own": peer} for peer in places}
    return _ask(machines, "meeting", requests, 3 * _MEETING_SECONDS + visible_seconds)


def _collectives(machines: Machines, able: dict[str, Facts]) -> list[Finding]:
    if not able:
        return []
    first = next(iter(able.values()))
    cuda = all(facts.get("torch", {}).get("devices") for facts in able.values())
    ranks = min(facts["torch"]["devices"] for facts in able.values()) if cuda else _RANKS_ON_CPUS
    common = {"machines": len(able), "ranks": ranks, "head": first["address"], "port": first["port"], "cuda": cuda}
    common["seconds"] = _COLLECTIVE_SECONDS
    words = {}
    for index, (peer, facts) in enumerate(able.items()):
        request = common | {"machine": index, "address": facts["address"]}
        words[peer] = ["amscale.diagnosis.collectives", json.dumps(request)]
    answers = machines.on(words, 3 * _COLLECTIVE_SECONDS + 60)
    measured = {peer: _last_json(output) for peer, (_, output, _) in answers.items()}
    failed = {peer: errors for peer, (status, _, errors) in answers.items() if status or measured[peer] is None}
    if failed:
        lines = [line for errors in failed.values() for line in errors.strip().splitlines() if "Error" in line]
        said = lines[-1].strip() if lines else "no answer"
        mend = "open all ports between the machines, or name their interface in NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME"
        return [Finding("all-reduce", "all", False, said, mend)]
    return findings.of_collectives({peer: answer for peer, answer in measured.items() if answer})


def _first_update(machines: Machines, peers: list[str], launch: Sequence[str]) -> list[Finding]:
    """Let each machine train one step as plans place trials on it."""
    found: list[Finding] = []
    if not peers:
        return found
    words = ["amscale.training.self_check", "machine", *launch]
    for peer, (status, output, errors) in machines.on(dict.fromkeys(peers, words), _UPDATE_SECONDS).items():
        answer = _last_json(output)
        if answer is None:
            said = (errors.strip().splitlines() or [f"exit status {status}"])[-1]
            answer = {"engine": "", "wrong": said}
        said = f"{answer['wrong'] or 'as plain AdamW makes it'}{answer['engine']}"
        mend = "install what constraints.txt names, or choose launch.precision, zero_stage" if answer["wrong"] else ""
        found.append(Finding("first update", peer, not answer["wrong"], said, mend))
    return found


def _last_json(output: str) -> dict[str, Any] | None:
    for line in reversed(output.strip().splitlines()):
        with suppress(ValueError):
            found = json.loads(line)
            return found if isinstance(found, dict) else None
    return None
