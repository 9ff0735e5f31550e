"""Each fault of a machine is made, and named with what mends it; a healthy cluster has none."""

import copy
import json
import os
import resource
import signal
import subprocess
import sys

import psutil
import pytest
from helpers.commands import wait_until

from amscale.diagnosis import facts, findings, shared_storage
from amscale.diagnosis.examine import examine
from amscale.trials.attempt import ATTEMPT_VARIABLE

HEALTHY = {
    "host": "a",
    "python": "3.12.1",
    "packages": {"amscale": "0.1.0", "torch": "2.9.0", "deepspeed": "0.19.8", "ray": "2.50.0"},
    "cores": 16,
    "quota": None,
    "granted_cpus": 16,
    "memory": 64 << 30,
    "granted_memory": 64 << 30,
    "open_files": 65536,
    "shared_memory": 8 << 30,
    "temporary": 50 << 30,
    "accelerate_config": None,
    "proxies": {},
    "leftovers": [],
    "gpus": [{"name": "NVIDIA H100", "memory": 81559 << 20, "bf16": True}],
    "gpu_trouble": "",
    "gpu_note": "",
    "driver": "580.95",
    "torch": {"cuda": "12.8", "devices": 1},
    "address": "10.0.0.1",
    "interface": "eth0",
    "port": 20001,
    "storage": {"latency": 0.01, "free": 50 << 30},
}


def wrong(found: list[findings.Finding]) -> list[tuple[str, str]]:
    """Check and host of what is wrong; each has a way to mend it."""
    assert all(bool(finding.mend) != finding.ok for finding in found)
    return [(finding.check, finding.host) for finding in found if not finding.ok]


def cluster(**different) -> list[dict]:
    """Three machines, of which the last differs."""
    machines = [{**copy.deepcopy(HEALTHY), "host": host} for host in "abc"]
    machines[-1] |= different
    return machines


def test_a_healthy_cluster_has_nothing_wrong():
    machines = cluster()
    found = [*(finding for each in machines for finding in findings.of_machine(each)), *findings.of_all(machines)]
    assert wrong(found) == []
    assert {finding.check for finding in found} >= {"GPUs", "storage", "versions", "/dev/shm", "open files"}
    assert found[0].says == "1 NVIDIA H100, 86 GB each, driver 580.95, CUDA 12.8, bf16"


@pytest.mark.parametrize(
    ("fault", "check", "says", "mend"),
    [
        ({"open_files": 1024}, "open files", "1,024", "ulimit -n 65536"),
        ({"shared_memory": 64 << 20}, "/dev/shm", "64 MiB free", "--shm-size"),
        ({"temporary": 1 << 30}, "disk", "temporary folder: 1.0 GiB free", "TMPDIR"),
        ({"storage": {"error": "/x: Permission denied"}}, "storage", "Permission denied", "every machine may write"),
        ({"storage": {**HEALTHY["storage"], "latency": 9.0}}, "storage", "in 9.0 s", "faster disk"),
        ({"quota": 0.5, "granted_cpus": 1}, "CPU and memory", "0.5 of 16 CPU cores", "at least one CPU core"),
        ({"granted_memory": 1 << 30}, "CPU and memory", "1.0 GiB of 64.0 GiB", "at least 2.0 GiB"),
        ({"gpus": [], "gpu_trouble": "nvidia-smi has not answered"}, "GPUs", "has not answered", "reboot"),
        ({"torch": {"cuda": None, "devices": 0}}, "GPUs", "built for CPUs alone, sees 0", "a torch for"),
        ({"torch": {"cuda": None, "devices": 0, "error": "OSError: libcu"}}, "GPUs", "OSError: libcu", "a torch for"),
        ({"proxies": {"http_proxy": "http://p:1"}}, "proxies", "http_proxy", "no_proxy=localhost,127.0.0.1,10.0.0.1"),
        ({"leftovers": [7, 9]}, "left over", "processes 7 9", "kill 7 9"),
        ({"network_error": "c reaches none of a, b"}, "ports", "reaches none", "addresses"),
    ],
)
def test_a_fault_of_one_machine_is_named(fault, check, says, mend):
    found = findings.of_machine(cluster(**fault)[-1])
    assert wrong(found) == [(check, "c")]
    (finding,) = (finding for finding in found if not finding.ok)
    assert says in finding.says
    assert mend in finding.mend


@pytest.mark.parametrize(
    ("fault", "check", "says"),
    [
        ({"python": "3.11.2"}, "versions", "python 3.12.1, but 3.11.2 on c"),
        ({"packages": {**HEALTHY["packages"], "torch": "2.8.0"}}, "versions", "torch 2.9.0, but 2.8.0 on c"),
        ({"packages": {**HEALTHY["packages"], "ray": None}}, "versions", "ray 2.50.0, but missing on c"),
        ({"gpus": []}, "GPUs alike", "a: 1 NVIDIA H100; b: 1 NVIDIA H100; c: none"),
    ],
)
def test_machines_that_differ_are_named(fault, check, says):
    found = findings.of_all(cluster(**fault))
    assert wrong(found) == [(check, "all")]
    assert [finding.says for finding in found if not finding.ok] == [says]


def meeting(**different) -> dict[str, dict]:
    """Three machines that met, of which the last differs."""
    met = {
        host: {"unreached": [], "unseen": [], "ahead": {other: 0.1 for other in "abc" if other != host}}
        for host in "abc"
    }
    met["c"] |= different
    return met


@pytest.mark.parametrize(
    ("met", "expected"),
    [
        (meeting(), []),
        (meeting(unreached=["a", "b"], ahead={}), [("network", "c", "does not reach a, b")]),
        (meeting(unseen=["a", "b"]), [("shared storage", "c", "does not see what a, b wrote")]),
        ({"a": {**meeting()["a"], "ahead": {"b": 0.1, "c": -90.0}}}, [("clocks", "c", "90 s behind")]),
        ({"a": {**meeting()["a"], "ahead": {"b": 7200.0, "c": 7200.1}}}, [("clocks", "a", "7,200 s behind")]),
    ],
)
def test_how_machines_met(met, expected):
    found = findings.of_meeting(met)
    assert [(finding.check, finding.host, finding.says) for finding in found if not finding.ok] == expected
    assert wrong(found) == [(check, host) for check, host, _ in expected]


def test_proxies_that_spare_the_machines_are_no_fault():
    for spared in ("*", "localhost,127.0.0.1,10.0.0.0/8"):
        assert wrong(findings.of_machine(cluster(proxies={"http_proxy": "p", "no_proxy": spared})[-1])) == []


def gathered(tmp_path, **request) -> dict:
    return facts.gather(
        **{"storage": str(tmp_path / "s"), "peers": ["localhost"], "own": "localhost", "token": "t"} | request
    )


def test_faults_that_are_made_on_this_machine_are_found(tmp_path, monkeypatch):
    (tmp_path / "home" / "accelerate").mkdir(parents=True)
    (tmp_path / "home" / "accelerate" / "default_config.yaml").write_text("distributed_type: DEEPSPEED\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        found = findings.of_machine(gathered(tmp_path, gpus=False))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {"open files", "proxies"} <= {check for check, _ in wrong(found)}
    assert any("default_config.yaml: not read" in finding.says for finding in found)


def test_a_small_disk_an_unwritable_storage_and_unseen_machines_are_found(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert "error" in gathered(tmp_path, storage=str(tmp_path / "file" / "below"), gpus=False)["storage"]
    shared_storage.write(str(tmp_path / "s"), "t", "a")
    assert shared_storage.unseen(str(tmp_path / "s"), "t", ["a", "b"], 0.0) == ["b"]
    if os.geteuid() != 0:
        return
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path / "small")]
    subprocess.run(mount, check=True)
    try:
        assert facts.free_bytes(tmp_path / "small") <= 64 << 20
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


@pytest.mark.parametrize(
    ("supervised", "launcher", "left"),
    [(True, "accelerate.commands.launch", True), (False, "", True), (False, "accelerate.commands.launch", False)],
)
def test_a_rank_whose_supervisor_has_gone_is_left_over(supervised, launcher, left):
    """As after a supervisor and its launcher were both killed where no parent-death signal reaches.

    A rank that was forked shows no variable of its own; a launcher without any was started by hand.
    """
    script = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', "
    script += f"{launcher!r}, 'amscale.train'], start_new_session=True, stdout=subprocess.DEVNULL).pid)"
    environment = os.environ | ({ATTEMPT_VARIABLE: "a.0"} if supervised else {})
    orphan = int(
        subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, check=True).stdout
    )
    try:
        # Where another process than the first adopts orphans, they have an owner.
        assert (orphan in facts.leftovers()) == (left and psutil.Process(orphan).ppid() == 1)
    finally:
        os.kill(orphan, signal.SIGKILL)
    wait_until(lambda: orphan not in facts.leftovers(), 600, "an end of the orphan")


class Pretended:
    """Machines that answer what they are told, by the module that is asked."""

    without_trials = frozenset()
    addresses = ()

    def __init__(self, answers: dict[str, dict[str, dict]]) -> None:
        self.answers = answers
        self.peers = list(answers["amscale.diagnosis.facts"])
        self.asked = []

    def on(self, words, seconds):
        self.asked += [(own[0], peer) for peer, own in words.items()]
        return {peer: (0, json.dumps(self.answers.get(own[0], {}).get(peer, {})), "") for peer, own in words.items()}


def test_what_is_not_tried_is_said(tmp_path):
    """GPUs that cannot be used, and machines that do not reach each other, leave no check out without a word."""
    a, b, c = cluster(gpu_trouble="nvidia-smi has not answered", gpus=[])
    hosts = {facts["host"]: facts for facts in (a, b, c)}
    answers = {
        "amscale.diagnosis.facts": hosts,
        "amscale.diagnosis.meeting": meeting(unreached=["a", "b"], ahead={}),
        "amscale.training.self_check": {host: {"engine": "", "wrong": None} for host in "abc"},
    }
    machines = Pretended(answers)
    found = examine(machines, str(tmp_path), 1.0)
    said = {(one.check, one.host): one.says for one in found if one.says.startswith("not tried")}
    assert said == {
        ("all-reduce", "all"): "not tried: the machines do not reach each other",
        ("first update", "c"): "not tried: the GPUs cannot be used",
    }
    assert {one.host for one in found if one.check == "first update" and one.ok} == {"a", "b"}
    assert ("amscale.training.self_check", "c") not in machines.asked
    assert set(wrong(found)) >= set(said)
