"""Trials across hosts with addresses of their own, and what happens when one of them fails."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import hosts as fleet
from helpers.commands import TINY, command, environment, is_loopback, wait_until

WHY_NOT = fleet.missing()
pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]

# Sizes and device memory such that the estimate asks for one, two and three machines.
MACHINES = """
name: machines
grid: {model.size: [100k, 223k, 304k]}
model: {family: vanilla, layers: 2, heads: 2, dropout: 0.0}
data: {corpus: question_formation, documents: 2k, validation: 200, size: 8k}
train: {steps: 30, batch_tokens: 200, learning_rate: 1e-3, validate_every: 10, validation_tokens: 500}
launch: {machines: auto, zero_stage: 1, device_memory: 655230k, retries: 2, checkpoint_every: 10, stalled_after: 60}
probes: {every: 0, sequences: 8}
"""


@pytest.fixture(scope="module")
def cluster():
    with fleet.ray_hosts(3) as made:
        yield made


def sweep(cluster, folder: Path, *overrides: str) -> subprocess.Popen[str]:
    """Start a sweep on the first host."""
    configuration = folder / "machines.yaml"
    configuration.write_text(MACHINES)
    arguments = [str(configuration), f"storage={folder}", f"launch.address={cluster.address}", *overrides]
    return cluster.hosts[0].run(
        sys.executable,
        "-m",
        "amscale.sweep",
        *arguments,
        env={**environment(), **cluster.environment},
        stdout=(folder / "output.txt").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
    )


def results(folder: Path) -> dict[int, dict]:
    """Results by number of machines."""
    found = [json.loads(path.read_text()) for path in folder.glob("machines/trials/*/result.json")]
    return {result["engine"]["world_size"]: result for result in found}


def ranks(host) -> list:
    found = []
    for process in host.processes():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:  # it ended while it was being looked at
            continue
        if "amscale.train" in line and "accelerate" not in line:
            found.append(process)
    return found


def losses(folder: Path, label: str) -> list[tuple[str, int, float]]:
    lines = (folder / "machines" / "trials" / label / "metrics.jsonl").read_text().splitlines()
    return [(r["kind"], r["step"], r["loss"]) for r in map(json.loads, lines) if r["kind"] != "probe"]


@pytest.fixture(scope="module")
def watched(cluster, tmp_path_factory) -> tuple[Path, dict[str, set[tuple[str, str]]]]:
    """The sweep with nothing going wrong, and what of its trials listened on each host meanwhile."""
    folder = tmp_path_factory.mktemp("calm")
    driver = sweep(cluster, folder)
    seen = {host.address: set() for host in cluster.hosts}
    deadline = time.monotonic() + 600
    while driver.poll() is None:
        assert time.monotonic() < deadline, (folder / "output.txt").read_text()
        for host in cluster.hosts:
            seen[host.address] |= {found for found in host.listeners() if "amscale.train" in found[1]}
        time.sleep(1)  # looking costs what the trials need too
    assert driver.returncode == 0, (folder / "output.txt").read_text()
    return folder, seen


@pytest.fixture(scope="module")
def calm(watched) -> Path:
    """The sweep with nothing going wrong."""
    return watched[0]


def test_trials_of_one_two_and_three_machines(cluster, calm):
    found = results(calm)
    assert sorted(found) == [1, 2, 3]
    for machines, result in found.items():
        engine = result["engine"]
        assert engine["distributed_type"] == "DEEPSPEED"
        assert engine["zero_stage"] == 1
        assert len(engine["optimizer_elements"]) == machines
    assert not any(ranks(host) for host in cluster.hosts)


def test_a_trial_listens_on_loopback_and_on_the_address_by_which_its_machines_meet(watched):
    _, seen = watched
    beyond = {host: {entry for entry in found if not is_loopback(entry[0])} for host, found in seen.items()}
    assert any("accelerate.commands.launch" in words for found in beyond.values() for _, words in found)
    for host, found in beyond.items():
        assert {address for address, _ in found} <= {host}, found


def test_a_rank_of_another_machine_hangs(cluster, calm, tmp_path):
    """It is noticed after `stalled_after`, and the trial is started again."""
    driver = sweep(cluster, tmp_path, "model.size=223k", "train.steps=60", "launch.stalled_after=15")
    trials = tmp_path / "machines" / "trials"
    wait_until(lambda: any(trials.glob("*/checkpoints/step_*[0-9]")), 600, "a checkpoint")
    (victim,) = (p for host in cluster.hosts for p in ranks(host)[:1] if host is not first_host(cluster))
    victim.send_signal(signal.SIGSTOP)
    assert driver.wait(timeout=600) == 0, (tmp_path / "output.txt").read_text()
    (path,) = trials.glob("*/failures.jsonl")
    (failure,) = map(json.loads, path.read_text().splitlines())
    assert "no record for 1" in failure["reason"].splitlines()[0]
    assert not any(ranks(host) for host in cluster.hosts)


def first_host(cluster):
    """The host on which the trial's machine 0 runs: the one whose rank has the rendezvous."""
    return next(host for host in cluster.hosts if ranks(host))


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_a_driver_without_the_clusters_token_is_told_what_to_set(cluster, tmp_path, token):
    variables = {name: value for name, value in environment().items() if not name.startswith("RAY_")}
    variables |= {"HOME": str(tmp_path)} | ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {})
    driver = cluster.hosts[1].run(
        *(sys.executable, "-m", "amscale.sweep", "grammar.yaml", f"launch.address={cluster.address}", "storage=."),
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = driver.communicate(timeout=600)[0]
    assert driver.returncode == 2, said
    assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's" in said.splitlines()[-1]
    assert "Traceback" not in said


SHELL = """#!/bin/sh
case $1 in
{cases}
esac
exec nsenter --net=/run/netns/$name unshare --mount sh -c "$sick; $2"
"""


def test_the_doctor_names_what_is_wrong_with_two_of_three_hosts(cluster, tmp_path, monkeypatch):
    """One may open few files, another has a disk of its own where the storage is; the rest is as it should be."""
    first, second, third = (host.address for host in cluster.hosts)
    storage = tmp_path / "storage"
    storage.mkdir()
    sick = {second: "ulimit -n 64", third: f"mount -t tmpfs tmpfs {storage}"}
    cases = (f"{h.address}) name={h.namespace} sick='{sick.get(h.address, ':')}';;" for h in cluster.hosts)
    remote = tmp_path / "remote"
    remote.write_text(SHELL.replace("{cases}", "\n".join(cases)))
    remote.chmod(0o755)
    monkeypatch.setenv("REMOTE_SHELL", str(remote))
    hosts = f"{first},{second},{third}"
    ran = command("doctor", hosts, f"storage={storage}", "launch.visible_after=2", "launch.device=cpu", "--json")
    found = json.loads(ran.stdout)["findings"]
    assert ran.returncode == 1, ran.stderr
    # What else this machine may lack, it lacks on all of its hosts.
    wrong = {(f["check"], f["host"], f["says"]) for f in found if not f["ok"]}
    lacking = {(check, says) for check, host, says in wrong if host == first and check != "shared storage"}
    assert {(check, host, says) for check, host, says in wrong if (check, says) not in lacking} == {
        ("open files", second, "64 at a time"),
        ("shared storage", first, f"does not see what {third} wrote"),
        ("shared storage", second, f"does not see what {third} wrote"),
        # Each look at this host has a new disk.
        ("shared storage", third, f"does not see what {hosts.replace(',', ', ')} wrote"),
    }
    right = {f["check"]: f["says"] for f in found if f["ok"]}
    assert right["network"] == "each machine reaches the others"
    assert right["all-reduce across"].endswith("GB/s by gloo over e0")
    assert right["first update"] == "as plain AdamW makes it (cpu, fp32, ZeRO stage 0)"
    assert list(storage.iterdir()) == []


def test_hosts_with_ipv6_alone_meet(tmp_path, monkeypatch):
    """By names of several addresses IPv4 comes first; these hosts have none."""
    with fleet.hosts(2, subnet=62, ipv6=True) as made:
        cases = (f"{h.address}) name={h.namespace} sick=:;;" for h in made.hosts)
        remote = tmp_path / "remote"
        remote.write_text(SHELL.replace("{cases}", "\n".join(cases)))
        remote.chmod(0o755)
        monkeypatch.setenv("REMOTE_SHELL", str(remote))
        hosts = ",".join(host.address for host in made.hosts)
        ran = command("doctor", hosts, f"storage={tmp_path / 'storage'}", "launch.device=cpu", "--json")
    found = {f["check"]: f for f in json.loads(ran.stdout)["findings"]}
    assert all(found[check]["ok"] for check in ("ports", "network", "clocks", "first update")), ran.stdout
    assert found["all-reduce across"]["says"].endswith("GB/s by gloo over e0"), ran.stdout


NOTEBOOK = """
import sys
import amscale

one_trial = {"model.size": "1.7k", "data.size": "4k", "train.steps": 3000, "storage": "."}
sweep = amscale.Sweep("tiny.yaml", one_trial, launch__address=sys.argv[1])
try:
    sweep.run()
except amscale.ClusterLost as lost:
    print("caught:", lost)
print("goes on")
"""


def test_a_notebook_is_told_that_its_cluster_is_gone(cluster, tmp_path):
    """The last test of this file: it kills the cluster's head."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    output = tmp_path / "output.txt"
    notebook = cluster.hosts[1].run(
        *(sys.executable, "-c", NOTEBOOK, cluster.address),
        cwd=tmp_path,
        env={**environment(), **cluster.environment},
        stdout=output.open("w"),
        stderr=subprocess.STDOUT,
    )
    wait_until(lambda: any(tmp_path.glob("tiny/trials/*/metrics.jsonl")), 600, "a step")
    (head,) = cluster.hosts[0].ray_processes("gcs_server")
    head.kill()
    assert notebook.wait(timeout=600) == 0, output.read_text()
    caught, last = output.read_text().splitlines()[-2:]
    assert caught.startswith(f"caught: the Ray cluster is gone: its head at {cluster.address} does not answer.")
    assert last == "goes on"
