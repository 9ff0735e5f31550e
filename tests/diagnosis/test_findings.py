"""Each fault of a machine is made, and named with what mends it; a healthy cluster has none."""

import copy
import json
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

from amscale.diagnosis import facts, findings
from amscale.trials.attempt import ATTEMPT_VARIABLE

HEALTHY = {
    "host": "a",
    "time": 0.0,
    "python": "3.12.1",
    "packages": {"amscale": "0.1.0", "torch": "2.9.0", "ray": "2.50.0"},
    "cpus": 16,
    "cpu_quota": None,
    "memory": 64 << 30,
    "memory_limit": None,
    "open_files": 65536,
    "shared_memory": 8 << 30,
    "temporary": 50 << 30,
    "accelerate_config": None,
    "proxies": {},
    "leftovers": [],
    "gpus": [{"name": "NVIDIA H100", "memory.total": "81559 MiB", "driver_version": "580.1"}],
    "torch": {"cuda": "12.8", "devices": 1, "bf16": True},
    "address": "10.0.0.1",
    "port": 20001,
    "storage": {"latency": 0.01, "seen": 3, "machines": 3, "free": 50 << 30},
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
    found = [*(finding for each in machines for finding in findings.of_machine(each)), *findings.of_all(machines, {})]
    assert wrong(found) == []
    assert {finding.check for finding in found} >= {"GPUs", "storage", "versions", "clocks", "/dev/shm", "open files"}


@pytest.mark.parametrize(
    ("fault", "check", "says", "mend"),
    [
        ({"open_files": 1024}, "open files", "1,024", "ulimit -n 65536"),
        ({"shared_memory": 64 << 20}, "/dev/shm", "0.1 GiB free", "--shm-size"),
        ({"temporary": 1 << 30}, "disk", "temporary folder 1.0 GiB free", "TMPDIR"),
        ({"storage": {"error": "/x: Permission denied"}}, "storage", "Permission denied", "every machine may write"),
        ({"storage": {**HEALTHY["storage"], "seen": 1}}, "storage", "1 of 3 machines seen", "all machines share"),
        ({"storage": {**HEALTHY["storage"], "latency": 9.0}}, "storage", "in 9000 ms", "faster disk"),
        ({"cpu_quota": 2.0}, "CPU and memory", "a quota of 2 cores", "16 cores, or pin it to 2"),
        ({"gpus": "nvidia-smi has not answered for 20 s"}, "GPUs", "has not answered", "reboot"),
        (
            {"torch": {"cuda": None, "devices": 0, "bf16": True}},
            "GPUs",
            "built for CPUs alone, sees none",
            "a torch for",
        ),
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
    ("fault", "skews", "check", "says"),
    [
        ({"python": "3.11.2"}, {}, "versions", "python 3.12.1, but 3.11.2 on c"),
        ({"packages": {**HEALTHY["packages"], "torch": "2.8.0"}}, {}, "versions", "torch 2.9.0, but 2.8.0 on c"),
        ({"packages": {**HEALTHY["packages"], "ray": None}}, {}, "versions", "ray 2.50.0, but missing on c"),
        ({"gpus": []}, {}, "GPUs alike", "a: NVIDIA H100; b: NVIDIA H100; c: none"),
        ({}, {"c": -90.0}, "clocks", "c is off by -90 s"),
    ],
)
def test_machines_that_differ_are_named(fault, skews, check, says):
    found = findings.of_all(cluster(**fault), skews)
    assert wrong(found) == [(check, "all")]
    assert [finding.says for finding in found if not finding.ok] == [says]


def test_proxies_that_spare_the_machines_are_no_fault():
    for spared in ("*", "localhost,127.0.0.1,10.0.0.0/8"):
        assert wrong(findings.of_machine(cluster(proxies={"http_proxy": "p", "no_proxy": spared})[-1])) == []


def gathered(tmp_path, **request) -> dict:
    return facts.gather(
        **{"storage": str(tmp_path / "s"), "peers": ["localhost"], "token": "t", "seconds": 0.0} | request
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
        found = findings.of_machine(gathered(tmp_path, full=False))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {"open files", "proxies"} <= {check for check, _ in wrong(found)}
    assert any("default_config.yaml: passed over" in finding.says for finding in found)


def test_a_small_disk_an_unwritable_storage_and_unseen_machines_are_found(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    assert "error" in gathered(tmp_path, storage=str(tmp_path / "file" / "below"), full=False)["storage"]
    found = facts.storage_facts(str(tmp_path / "s"), "t", machines=2, seconds=0.0)
    assert (found["seen"], found["machines"]) == (1, 2)
    if os.geteuid() != 0:
        return
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path / "small")]
    subprocess.run(mount, check=True)
    try:
        assert facts.free_bytes(tmp_path / "small") <= 64 << 20
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


def test_limits_of_containers_of_both_versions(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert (facts.cpu_quota(tmp_path), facts.memory_limit(tmp_path)) == (1.5, 1 << 30)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (facts.cpu_quota(tmp_path), facts.memory_limit(tmp_path)) == (None, None)
    old = tmp_path / "old"
    (old / "cpu").mkdir(parents=True)
    (old / "memory").mkdir()
    (old / "cpu" / "cpu.cfs_quota_us").write_text("200000")
    (old / "cpu" / "cpu.cfs_period_us").write_text("100000")
    (old / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert (facts.cpu_quota(old), facts.memory_limit(old)) == (2.0, None)


@pytest.mark.parametrize("supervised", [True, False])
def test_a_rank_whose_supervisor_has_gone_is_left_over(supervised):
    """As after a supervisor and its launcher were both killed where no parent-death signal reaches."""
    script = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', "
    script += "'amscale.train'], start_new_session=True, stdout=subprocess.DEVNULL).pid)"
    environment = os.environ | ({ATTEMPT_VARIABLE: "a.0"} if supervised else {})
    orphan = int(
        subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, check=True).stdout
    )
    try:
        # Where another process than the first adopts orphans, they have an owner.
        assert (orphan in facts.leftovers()) == (supervised and psutil.Process(orphan).ppid() == 1)
    finally:
        os.kill(orphan, signal.SIGKILL)
    deadline = time.monotonic() + 600
    while orphan in facts.leftovers():
        assert time.monotonic() < deadline


def test_what_nvidia_smi_answers(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB, 580.95'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    row = {"name": "NVIDIA H100 80GB HBM3", "memory.total": "81559 MiB", "driver_version": "580.95"}
    assert facts.nvidia() == [row]
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not reach the driver.'; exit 9\n")
    assert facts.nvidia() == "NVIDIA-SMI has failed because it could not reach the driver."
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    monkeypatch.setattr("amscale.diagnosis.facts._NVIDIA_SECONDS", 0.5)
    assert facts.nvidia().startswith("nvidia-smi has not answered for")
    assert json.dumps(facts.nvidia())
