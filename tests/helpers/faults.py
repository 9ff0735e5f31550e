"""Faults of a sweep on several hosts: how each is done, and how its being noticed is seen from outside."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helpers.commands import environment, processes_naming, wait_until
from helpers.hosts import Host, Hosts

NOTICE_SECONDS = 400.0
"""More than any bound in docs/faults.md with the campaign's settings; waiting longer is a finding. The greatest is that
of a rank that hangs before its attempt's first record."""


@dataclass(frozen=True)
class Member:
    """One process of a trial."""

    process: psutil.Process
    trial: str
    role: str
    """`supervisor`, `launcher` or `rank`."""
    port: int
    """Of the trial's rendezvous."""


@dataclass
class Sweep:
    """A sweep whose driver runs on the first host and is started again after faults that end it."""

    cluster: Hosts
    storage: Path
    arguments: list[str]
    driver: subprocess.Popen = field(init=False)
    read_until: int = 0
    """Characters of the driver's output that have been looked at."""

    def __post_init__(self) -> None:
        self.storage.mkdir(parents=True, exist_ok=True)
        self.output = self.storage / "output.txt"
        self.start()

    def start(self) -> None:
        """Give the command."""
        self.driver = self.cluster.hosts[0].run(
            sys.executable,
            "-m",
            "amscale.sweep",
            *self.arguments,
            f"storage={self.storage}",
            f"launch.address={self.cluster.address}",
            env={**environment(), **self.cluster.environment},
            stdout=self.output.open("a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def trial(self, label: str) -> Path:
        """A trial's folder."""
        return next(self.storage.glob(f"*/trials/{label}"))

    def done(self, label: str) -> bool:
        """Whether a trial has its result."""
        return (self.trial(label) / "result.json").exists()

    def members(self) -> list[Member]:
        """Living processes of the sweep's trials."""
        found = []
        for process in processes_naming(self.storage):
            line = " ".join(process.info["cmdline"])
            named = re.search(r"/trials/([^/ ]+)/.*--main_process_port (\d+)|/trials/([^/ ]+)/spec", line)
            if named:
                roles = {"supervisor.py": "supervisor", "accelerate.commands": "launcher"}
                role = next((role for words, role in roles.items() if words in line), "rank")
                found.append(Member(process, named[1] or named[3], role, int(named[2] or 0)))
        return found

    def warm_servers(self) -> list[psutil.Process]:
        """Living servers that the sweep's trials are forked from."""
        named = processes_naming(self.storage)
        return [process for process in named if any("warm_server" in word for word in process.info["cmdline"])]

    def training(self) -> list[str]:
        """Trials that have written a record within the last seconds and have a rank that lives."""
        fresh = time.time() - 4
        labels = {member.trial for member in self.members() if member.role == "rank"}
        paths = {label: self.trial(label) / "metrics.jsonl" for label in labels if not self.done(label)}
        states = {label: path.stat() for label, path in paths.items() if path.is_file()}
        return sorted(label for label, state in states.items() if state.st_size and state.st_mtime > fresh)

    def failures_said(self) -> dict[str, str]:
        """Failures that the driver has printed since the last look: first line of the reason, by trial."""
        text = self.output.read_text(errors="replace")[self.read_until :]
        return {m[1]: m[2] for m in re.finditer(r"^(\S+): failed, starting again: (.*)$", text, re.MULTILINE)}

    def listen(self) -> None:
        """What the driver has printed so far is old."""
        self.read_until = len(self.output.read_text(errors="replace")) if self.output.exists() else 0


@dataclass
class Fault:
    """One fault: what was done to whom, and what was seen."""

    kind: str
    victims: list[str]
    before: list[Member]
    """Processes of the whole sweep just before."""
    noticed: float = float("nan")
    """Seconds until the driver said so, went on, or ended."""
    gone: float = float("nan")
    """Seconds until every process of the victims, on hosts that can be reached, was gone."""
    reason: str = ""
    outcome: str = ""
    wrong: list[str] = field(default_factory=list)


def alive(member: Member) -> bool:
    """Whether a process has not ended."""
    with contextlib.suppress(psutil.Error):
        return member.process.is_running() and member.process.status() != psutil.STATUS_ZOMBIE
    return False


def of(members: list[Member], role: str, trial: str) -> list[Member]:
    """A trial's processes of one role."""
    return [member for member in members if member.trial == trial and member.role == role]


def inject(sweep: Sweep, kind: str, chance: random.Random) -> Fault:
    """Do it, wait until it has been noticed, and put hosts and driver back."""
    sweep.listen()
    return KINDS[kind](sweep, kind, chance)


def _process_fault(sweep: Sweep, kind: str, chance: random.Random) -> Fault:
    """A signal to one process of one trial, and what some of these kinds do to its files."""
    training = sweep.training()
    if not training:  # on a busy machine none may have recorded a step lately
        return Fault(kind, [], [])
    trial = chance.choice(training)
    fault = Fault(kind, [trial], sweep.members())
    role = {"launcher killed": "launcher", "actor killed": "supervisor"}.get(kind, "rank")
    # Of a warm start the supervisor is the launcher too.
    target = chance.choice(of(fault.before, role, trial) or of(fault.before, "supervisor", trial)).process
    number = {"rank stopped": signal.SIGSTOP, "rank sent SIGTERM": signal.SIGTERM}.get(kind, signal.SIGKILL)
    number = signal.SIGUSR1 if kind == "rank sent SIGUSR1" else number
    starts = _starts(sweep, trial)
    began = time.monotonic()
    (_owner(target) if kind == "actor killed" else target).send_signal(number)
    if kind == "checkpoint cut short":
        _cut_short(sweep.trial(trial) / "checkpoints")
    if kind == "line torn":
        with (sweep.trial(trial) / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "train", "step": 1')
    graceful = "sent" in kind
    wait_until(
        lambda: sweep.done(trial) or (_starts(sweep, trial) > starts if graceful else trial in sweep.failures_said()),
        NOTICE_SECONDS,
        f"{kind}: notice of {trial}",
    )
    fault.noticed = time.monotonic() - began
    fault.reason = sweep.failures_said().get(trial, "")
    _wait_gone(sweep, fault, began, fault.victims)
    if graceful and fault.reason:
        fault.wrong.append("a request to end counted as a failure")
    others = [m for m in fault.before if m.trial != trial and not alive(m) and not sweep.done(m.trial)]
    if others:
        fault.wrong.append(f"touched {others[0].trial}")
    fault.outcome = _how_it_goes_on(sweep, trial)
    return fault


def _owner(supervisor: psutil.Process) -> psutil.Process:
    """The actor that a supervisor belongs to: it says so where the warm server is its parent."""
    named = re.search(r"owner=(\d+)", " ".join(supervisor.cmdline()))
    return psutil.Process(int(named[1])) if named else supervisor.parent()


def _cut_short(checkpoints: Path) -> None:
    for newest in sorted(checkpoints.glob("step_*[0-9]"))[-1:]:
        file = next(newest.rglob("*model_states.pt"))
        os.truncate(file, file.stat().st_size // 2)


def _starts(sweep: Sweep, trial: str) -> int:
    return (sweep.trial(trial) / "log.txt").read_text(errors="replace").count("=== start ")


def _how_it_goes_on(sweep: Sweep, trial: str) -> str:
    if sweep.done(trial):
        return "had its result"
    steps = sorted((sweep.trial(trial) / "checkpoints").glob("step_*[0-9]"))
    return f"goes on from step {int(steps[-1].name[5:])}" if steps else "begins again"


def _wait_gone(sweep: Sweep, fault: Fault, began: float, trials: list[str], hosts: list[Host] | None = None) -> None:
    """Wait for the end of every process that the trials had, and look at their ports."""
    on = {p.pid for host in hosts for p in host.processes()} if hosts is not None else None
    old = [m for m in fault.before if m.trial in trials and (on is None or m.process.pid in on)]
    wait_until(lambda: not any(alive(m) for m in old), 600, f"{fault.kind}: an end of {old}")
    fault.gone = time.monotonic() - began
    current = {m.port for m in sweep.members()}
    ports = {m.port for m in old if m.port} - current
    listening = set().union(*(host.listening() for host in sweep.cluster.hosts))
    if ports & listening:
        fault.wrong.append(f"ports {sorted(ports & listening)} are still taken")


def _host_fault(sweep: Sweep, kind: str, chance: random.Random) -> Fault:
    """A host other than the head's loses its Ray node or its network, and is put back once that was noticed."""

    def crowded() -> dict[int, list[str]]:
        members = sweep.members()
        found = {}
        for host in sweep.cluster.hosts[1:]:
            here = {p.pid for p in host.processes()}
            trials = sorted({m.trial for m in members if m.process.pid in here and not sweep.done(m.trial)})
            if trials:
                found[host.index] = trials
        return found

    choice = crowded()
    if not choice:
        return Fault(kind, [], [], outcome="no trial was on those hosts")
    host = sweep.cluster.hosts[chance.choice(sorted(choice)) - 1]
    victims = choice[host.index]
    fault = Fault(kind, victims, sweep.members())
    others = [other for other in sweep.cluster.hosts if other is not host]
    began = time.monotonic()
    if kind == "raylet killed":
        for process in host.ray_processes("raylet"):
            process.kill()
    else:
        host.cut_off()
    try:
        wait_until(
            lambda: all(sweep.done(trial) or trial in sweep.failures_said() for trial in victims),
            NOTICE_SECONDS,
            f"{kind}: notice of {victims}",
        )
        fault.noticed = time.monotonic() - began
        fault.reason = next((r for t, r in sweep.failures_said().items() if t in victims), "")
        _wait_gone(sweep, fault, began, victims, others if kind == "host cut off" else None)
        if not fault.reason:
            # All had their results before the cluster missed the host: back at once, its node would simply go on.
            sweep.cluster.wait_for_nodes(len(others))
    finally:
        host.reconnect()
    here = {p.pid for p in host.processes()}
    old = [m for m in fault.before if m.trial in victims and m.process.pid in here]
    wait_until(lambda: host.node.poll() is not None, 600, "an end of the host's Ray node")
    wait_until(lambda: not any(alive(m) for m in old), 600, "an end of the processes on that host")
    sweep.cluster.start_ray(host)
    fault.outcome = "; ".join(_how_it_goes_on(sweep, trial) for trial in victims)
    return fault


def _driver_fault(sweep: Sweep, kind: str, chance: random.Random) -> Fault:
    """The driver ends, or its cluster does; then the same command is given again."""
    members = sweep.members()
    fault = Fault(kind, sorted({member.trial for member in members}), members)
    began = time.monotonic()
    head = sweep.cluster.hosts[0]
    if kind == "head killed":
        for process in head.ray_processes("gcs_server", "raylet", "ray.scripts"):
            process.kill()
    else:
        sweep.driver.send_signal(signal.SIGKILL if kind == "driver killed" else signal.SIGINT)
    status = sweep.driver.wait(timeout=NOTICE_SECONDS)
    fault.noticed = time.monotonic() - began
    expected = {"driver killed": -signal.SIGKILL, "driver interrupted": 128 + signal.SIGINT, "head killed": 1}[kind]
    if status != expected:
        fault.wrong.append(f"driver's exit status {status}, not {expected}")
    fault.reason = sweep.output.read_text(errors="replace")[sweep.read_until :].strip().rpartition("\n")[2]
    wait_until(lambda: not sweep.members(), NOTICE_SECONDS, f"{kind}: an end of every process")
    _wait_gone(sweep, fault, began, fault.victims)
    if kind == "head killed":
        for host in sweep.cluster.hosts:
            wait_until(lambda host=host: host.node.poll() is not None, 600, "an end of every Ray node")
        sweep.cluster.start_all()
    fault.outcome = "same command again"
    sweep.start()
    return fault


KINDS: dict[str, Callable[[Sweep, str, random.Random], Fault]] = {
    "rank killed": _process_fault,
    "launcher killed": _process_fault,
    "actor killed": _process_fault,
    "rank stopped": _process_fault,
    "rank sent SIGTERM": _process_fault,
    "rank sent SIGUSR1": _process_fault,
    "checkpoint cut short": _process_fault,
    "line torn": _process_fault,
    "raylet killed": _host_fault,
    "host cut off": _host_fault,
    "driver killed": _driver_fault,
    "driver interrupted": _driver_fault,
    "head killed": _driver_fault,
}
