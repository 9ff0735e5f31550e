"""Machines that share no disk, objects as the record, and disks that fail: real hosts, a real server, real mounts."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers import hosts as fleet
from helpers.commands import environment, wait_until
from helpers.object_store import CREDENTIALS, missing, object_store

from amscale.trials.object_trial_store import ObjectTrialStore
from amscale.trials.objects import ObjectStore

WHY_NOT = fleet.missing() or missing()
pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

SUBNET = 20
STORED = """
name: stored
model: {family: vanilla, size: 1.7k, layers: 2, dropout: 0.1}
data: {corpus: question_formation, documents: 2k, validation: 200, size: 8k}
train: {steps: 240, batch_tokens: 200, learning_rate: 1e-2, validate_every: 80, validation_tokens: 500}
launch: {checkpoint_every: 40, stalled_after: 60}
probes: {sequences: 0}
"""


class Cluster:
    """Two hosts in one Ray cluster, each with a scratch folder of its own, and an object store beside them.

    `plain` is a folder that both hosts have and do not share; `small` is a small disk that both see.
    """

    def __init__(self, hosts: fleet.Hosts, uri: str) -> None:
        self.hosts, self.uri = hosts, uri
        self.scratch = [hosts.folder / f"scratch{host.index}" for host in hosts.hosts]
        self.plain, self.small = hosts.folder / "plain", hosts.folder / "small"

    def command(self, name: str, log: Path, *arguments: str) -> subprocess.Popen[str]:
        """Start `python -m amscale.<name>` on the first host, as on a machine with a scratch folder of its own."""
        return self.hosts.hosts[0].run(
            *(sys.executable, "-m", f"amscale.{name}", *arguments),
            env={**environment(), **self.hosts.environment, "HOST_SCRATCH": str(self.hosts.folder / "driver")},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            text=True,
        )

    def sweep(self, log: Path, *overrides: str) -> subprocess.Popen[str]:
        configuration = self.hosts.folder / "stored.yaml"
        configuration.write_text(STORED)
        return self.command("sweep", log, str(configuration), f"launch.address={self.hosts.address}", *overrides)

    def ranks(self) -> list[int]:
        found = []
        for process in (p for host in self.hosts.hosts for p in host.processes()):
            with contextlib.suppress(psutil.Error):  # it may end while it is being looked at
                found += [process.pid] if "amscale.train" in process.cmdline() else []
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, fleet.hosts(2, SUBNET) as made:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        log = tmp_path_factory.mktemp("server") / "log.txt"
        with object_store(f"{fleet.NETWORK.format(SUBNET)}.254", 5090, log) as uri:
            cluster = Cluster(made, uri)
            for folder in (cluster.plain, cluster.small):
                folder.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(cluster.small)], check=True)
            try:
                _start(made, cluster)
                yield cluster
            finally:
                subprocess.run(["umount", "--lazy", str(cluster.small)], check=True)


def _start(made: fleet.Hosts, cluster: Cluster) -> None:
    first, second = made.hosts
    run = second.run
    # `ip netns exec` gives a process mounts of its own: what the second host sees there is another folder.
    other = f'mount -t tmpfs tmpfs {cluster.plain} && exec "$@"'
    second.run = lambda *command, **options: run("sh", "-c", other, "sh", *command, **options)
    for host, scratch in ((first, cluster.scratch[0]), (second, cluster.scratch[1])):
        made.environment["HOST_SCRATCH"] = str(scratch)
        made.start_ray(host)
    made.wait_for_nodes(2)
    second.run = run


def losses(lines: list[str]) -> dict[int, float]:
    return {r["step"]: r["loss"] for r in map(json.loads, lines) if r["kind"] == "train"}


def whole_lines(metrics: Path) -> list[str]:
    return [line for line in metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]


def test_two_machines_without_a_shared_disk_resume_from_the_object_store(cluster, tmp_path):
    """Killed, their disks lost, and started again: the same losses, to the last bit."""
    settings = [f"storage={cluster.uri}", "launch.scratch=$HOST_SCRATCH", "launch.machines=2", "launch.zero_stage=1"]
    driver = cluster.sweep(tmp_path / "first.txt", *settings)
    sweep = ObjectStore(cluster.uri).at("stored")
    wait_until(lambda: driver.poll() is not None or list(sweep.entries("trials")), 600, "a spec in the store")
    assert driver.poll() is None, (tmp_path / "first.txt").read_text()
    label = next(iter(sweep.entries("trials"))).split("/")[1]
    trial = sweep.at("trials", label)
    whole = ObjectTrialStore(trial, tmp_path, machines=2).checkpoint_names
    wait_until(lambda: driver.poll() is not None or whole(), 600, "a whole checkpoint in the store")
    (metrics,) = (found for s in cluster.scratch for found in s.rglob(".work/stored/*/machine0/metrics.jsonl"))
    wait_until(lambda: len(losses(whole_lines(metrics))) > int(whole()[0][5:]) + 5, 600, "steps after it")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_until(lambda: not cluster.ranks(), 600, "no rank")
    checkpoint, before = whole()[0], whole_lines(metrics)
    files = {Path(key).name for key in trial.entries(f"checkpoints/{checkpoint}")}
    assert {"checksums.json", "checksums.machine1.json", "progress.json"} <= files
    for scratch in cluster.scratch:
        shutil.rmtree(scratch)

    driver = cluster.sweep(tmp_path / "second.txt", *settings)
    assert driver.wait(timeout=600) == 0, (tmp_path / "second.txt").read_text()
    result = json.loads(trial.read("result.json"))
    assert (result["steps"], result["engine"]["world_size"], result["engine"]["zero_stage"]) == (240, 2, 1)
    after = trial.read("metrics.jsonl").decode().splitlines(keepends=True)
    step = int(checkpoint[5:])
    assert [line for line in before if json.loads(line)["step"] <= step] == after[
        : sum(json.loads(line)["step"] <= step for line in before)
    ]
    again, once = losses(after), losses(before)
    assert sorted(again) == list(range(1, 241))
    assert max(once) > step
    assert {s: again[s] for s in once} == once
    assert not trial.entries("checkpoints")
    assert trial.read("log.txt").count(b"=== start") == trial.read("log.machine1.txt").count(b"=== start") == 2
    assert not [left for scratch in cluster.scratch for left in scratch.rglob("machine*")]

    assert {"sweep.yaml", "report.html"} <= {key for key in sweep.entries() if "/" not in key}
    sweep.remove(["fit.json", "report.html"])
    for name, words in (("status", "finished"), ("fit", "1 point"), ("report", "report.html")):
        ran = cluster.command(name, tmp_path / f"{name}.txt", sweep.uri)
        assert ran.wait(timeout=600) == 0, (tmp_path / f"{name}.txt").read_text()
        assert words in (tmp_path / f"{name}.txt").read_text()
    assert {"fit.json", "report.html"} <= {key for key in sweep.entries() if "/" not in key}


def test_a_folder_that_is_not_shared_is_named(cluster, tmp_path):
    driver = cluster.sweep(
        tmp_path / "out.txt",
        f"storage={cluster.plain}",
        "launch.machines=2",
        "launch.retries=1",
        "launch.visible_after=5",
    )
    assert driver.wait(timeout=600) == 1
    said = (tmp_path / "out.txt").read_text()
    (machine,) = {host.address for host in cluster.hosts.hosts if f"({host.address}) does not see what" in said}
    assert machine.endswith(".2")
    (trial,) = (cluster.plain / "stored" / "trials").iterdir()
    assert f"wrote to {trial}, after 5 s; give storage a folder that all machines share, or a URI such as" in said
    assert said.count("starting again") == 1  # a server may have been away
    assert not cluster.ranks()


def test_a_disk_that_fills_up_ends_the_trial_in_one_line_and_it_goes_on_when_there_is_space(cluster, tmp_path):
    driver = cluster.sweep(tmp_path / "full.txt", f"storage={cluster.small}", "train.steps=100k")
    trials = cluster.small / "stored" / "trials"
    wait_until(lambda: driver.poll() is not None or any(trials.glob("*/checkpoints/step_*[0-9]")), 600, "a checkpoint")
    fill = subprocess.run(["dd", "if=/dev/zero", f"of={cluster.small}/filler"], capture_output=True, check=False)
    assert b"No space left" in fill.stderr
    assert driver.wait(timeout=600) == 1
    said = (tmp_path / "full.txt").read_text()
    (trial,) = trials.iterdir()
    line = "No space left on device; free space and run the same command again"
    assert f"{trial.name}: failed: storage full: {trial}" in said
    assert said.splitlines()[-1].endswith(line)
    assert "starting again" not in said
    assert "Traceback" not in said
    assert not cluster.ranks()

    (cluster.small / "filler").unlink()
    step = max(int(path.name[5:]) for path in trial.glob("checkpoints/step_*[0-9]"))
    driver = cluster.sweep(tmp_path / "again.txt", f"storage={cluster.small}", "train.steps=100k")
    metrics = trial / "metrics.jsonl"
    wait_until(lambda: driver.poll() is not None or len(losses(whole_lines(metrics))) > step + 40, 600, "later steps")
    assert driver.poll() is None, (tmp_path / "again.txt").read_text()
    driver.send_signal(signal.SIGINT)
    driver.wait(timeout=600)
    assert sorted(losses(whole_lines(metrics))) == list(range(1, len(losses(whole_lines(metrics))) + 1))


@pytest.mark.parametrize("options", ["size=64k", "ro"])
def test_a_driver_on_a_disk_that_is_full_or_read_only_ends_with_one_line(options, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    try:
        command = [sys.executable, "-m", "amscale.sweep", "grammar.yaml", f"storage={disk}"]
        ran = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=600, check=False)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
    assert ran.returncode == 2
    (said,) = ran.stderr.splitlines()
    assert str(disk) in said
    assert ("storage full: " if "size" in options else "cannot be written") in said
