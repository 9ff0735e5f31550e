"""The batch files under a real Slurm of two hosts, and the launcher for a list of hosts."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from helpers import slurm
from helpers.commands import environment, wait_until
from helpers.memory_limit import LARGE, limited

ROOT = Path(__file__).parents[2]
WHY_NOT = slurm.missing()
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT)),
]

PAIR = """
name: pair
grid: {model.size: [1.7k, 6.6k]}
model: {family: vanilla, layers: 2, dropout: 0.0}
data: {corpus: question_formation, documents: 2k, validation: 200, size: 8k}
train: {steps: 30, batch_tokens: 700, learning_rate: 1e-2, validate_every: 10, validation_tokens: 2000}
launch: {machines: 2, checkpoint_every: 25, stalled_after: 400, grace: 20}
probes: {every: 0, sequences: 8}
"""


@pytest.fixture(scope="module")
def bed():
    with slurm.slurm(2, cpus=2, subnet=10) as made:
        yield made


@pytest.fixture
def configuration(tmp_path) -> str:
    path = tmp_path / "pair.yaml"
    path.write_text(PAIR)
    return str(path)


@pytest.fixture
def temporary():
    """A short path, as Ray's sockets need one; Ray and the scripts must leave nothing in it."""
    folder = Path(tempfile.mkdtemp(prefix="t"))
    yield folder
    assert [path for path in folder.iterdir() if path.name.startswith(("ray-", "amscale-ray-", "tmp."))] == []
    shutil.rmtree(folder)


def shell(**more: object) -> dict[str, str]:
    """What a user has who has activated this environment."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**environment(), "PATH": path, **{name: str(value) for name, value in more.items()}}


def ours(hosts) -> list[str]:
    """Command lines of what jobs have started and what is still there."""
    found = []
    for host in hosts:
        for process in host.processes():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "slurm" not in line:
                found.append(line)
    return found


def trial_folder(storage: Path, name: str = "pair") -> Path:
    (folder,) = (storage / name / "trials").iterdir()
    return folder


def engine(folder: Path) -> tuple[str, int]:
    facts = json.loads((folder / "result.json").read_text())["engine"]
    return facts["distributed_type"], facts["world_size"]


def refused(host, address: str) -> bool:
    """Whether a driver with another token is kept out of the Ray cluster at an address."""
    script = f"import ray; ray.init(address={address!r}, logging_level=50, log_to_driver=False); print(ray.nodes())"
    driver = host.run(
        *(sys.executable, "-c", script),
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = driver.communicate(timeout=600)[0].decode()
    return driver.returncode != 0 and "uthenticat" in said


def test_two_sweeps_on_the_same_hosts_one_of_them_requeued(bed, configuration, tmp_path, temporary):
    """Both at once; the time limit's signal comes to one of them after its first checkpoint."""
    options = ["--nodes=2", "--time=60", f"--output={tmp_path}/%x.txt"]
    submit = {"env": shell(TMPDIR=temporary), "cwd": tmp_path}
    script = str(ROOT / "slurm" / "sweep.sbatch")
    early, calm = (
        bed.submit(*options, f"--job-name={name}", script, configuration, f"storage={tmp_path / name}", *cell, **submit)
        for name, cell in (("early", ("model.size=6.6k", "train.steps=1000")), ("calm", ("model.size=1.7k",)))
    )

    def drivers() -> list[str]:
        return [
            line for line in ours(bed.hosts.hosts) if "-m amscale.sweep" in line and str(tmp_path / "early") in line
        ]

    checkpoints = tmp_path / "early" / "pair" / "trials"
    wait_until(lambda: any(checkpoints.glob("*/checkpoints/step_*[0-9]")), 600, "a checkpoint")
    bed.command("scancel", "--batch", "--signal=USR1", str(early))
    wait_until(lambda: bed.facts(early)["JobState"] == "PENDING", 600, "a requeued job")
    trial = trial_folder(tmp_path / "early")
    (*_, newest) = sorted(trial.glob("checkpoints/step_*[0-9]"))
    before = (trial / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in before if json.loads(line)["step"] <= int(newest.name.removeprefix("step_"))]

    wait_until(drivers, 600, "a driver")  # asked here, where no trial runs on to its end in the meantime
    assert refused(bed.hosts.hosts[0], re.findall(r"launch\.address=(\S+)", drivers()[0])[0])
    for job, restarts in ((early, "1"), (calm, "0")):
        facts = bed.wait(job, 600)
        output = "".join(path.read_text() for path in sorted(tmp_path.glob("*.txt")))
        assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", restarts), output
    assert f"job {early} is requeued" in (tmp_path / "early.txt").read_text()
    after = (trial / "metrics.jsonl").read_text().splitlines()
    # Records carry their time: had the trial begun anew, these lines would be others.
    assert after[: len(kept)] == kept
    assert len(kept) > 10
    steps = [record["step"] for record in map(json.loads, after) if record["kind"] == "train"]
    assert steps == list(range(1, 1001))
    assert (trial / "log.txt").read_text().count("=== start ") == 2
    assert not (trial / "failures.jsonl").exists()
    assert engine(trial) == engine(trial_folder(tmp_path / "calm")) == ("DEEPSPEED", 2)
    wait_until(lambda: not ours(bed.hosts.hosts), 600, "an end of every process")


def test_one_trial_without_ray_requeued_beside_a_sweep_that_is_refused(bed, configuration, tmp_path, temporary):
    options = ["--time=60", f"--output={tmp_path}/%x.txt"]
    submit = {"env": shell(TMPDIR=temporary), "cwd": tmp_path}
    arguments = [configuration, f"storage={tmp_path}", "model.size=1.7k", "train.steps=1000"]
    trial = bed.submit(*options, "--nodes=2", str(ROOT / "slurm" / "trial.sbatch"), *arguments, **submit)
    sweep = str(ROOT / "slurm" / "sweep.sbatch")
    bad = bed.submit(*options, "--nodes=1", "--job-name=bad", sweep, *arguments, "train.steps=-3", **submit)
    wait_until(lambda: any(tmp_path.glob("pair/trials/*/checkpoints/step_*[0-9]")), 600, "a checkpoint")
    bed.command("scancel", "--batch", "--signal=USR1", str(trial))
    facts = bed.wait(bad, 600)
    output = (tmp_path / "bad.txt").read_text()
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "2:0", "0"), output
    assert "train.steps" in output.splitlines()[-1]
    facts = bed.wait(trial, 600)
    output = (tmp_path / "amscale-trial.txt").read_text()
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("COMPLETED", "0:0", "1"), output
    assert engine(trial_folder(tmp_path)) == ("DEEPSPEED", 2)
    records = map(json.loads, (trial_folder(tmp_path) / "metrics.jsonl").read_text().splitlines())
    assert [record["step"] for record in records if record["kind"] == "train"] == list(range(1, 1001))
    wait_until(lambda: not ours(bed.hosts.hosts), 600, "an end of every process")


def test_the_doctor_examines_the_nodes_of_an_allocation(bed, tmp_path):
    storage = tmp_path / "storage"
    doctor = f"python -m amscale.doctor --slurm --json launch.device=cpu storage={storage}"
    options = ["--nodes=2", "--cpus-per-task=2", "--time=60", f"--output={tmp_path}/found", f"--error={tmp_path}/log"]
    bed.wait(bed.submit(*options, "--wrap", doctor, env=shell(), cwd=tmp_path), 600)
    findings = json.loads((tmp_path / "found").read_text())["findings"]
    found = {(finding["check"], finding["host"]): finding for finding in findings}
    for host in bed.hosts.hosts:
        assert found["ports", host.namespace]["says"] == "free ones on e0"
        assert found["CPU and memory", host.namespace]["says"].startswith("2 ")
        assert found["first update", host.namespace]["ok"]
    for check in ("network", "shared storage", "clocks", "all-reduce within", "all-reduce across"):
        assert found[check, "all"]["ok"], findings
    assert list(storage.iterdir()) == []


@pytest.fixture
def remote(bed, tmp_path) -> Path:
    """A remote shell that reaches the hosts, in the place of ssh."""
    path = tmp_path / "remote"
    cases = "\n".join(f"{h.address}) name={h.namespace};;" for h in bed.hosts.hosts)
    path.write_text(f'#!/bin/sh\ncase $1 in\n{cases}\nesac\nexec nsenter --net=/run/netns/$name sh -c "$2"\n')
    path.chmod(0o755)
    return path


def start_on_hosts(bed, remote: Path, temporary: Path, configuration: str, *settings: str) -> subprocess.Popen[bytes]:
    """Start one trial over all hosts by `launch/trial.sh`."""
    hosts = ",".join(host.address for host in bed.hosts.hosts)
    return subprocess.Popen(
        [ROOT / "launch" / "trial.sh", hosts, configuration, f"storage={remote.parent}", *settings],
        env=shell(REMOTE_SHELL=remote, TMPDIR=temporary),
        cwd=remote.parent,
        stdout=(remote.parent / "output.txt").open("w"),
        stderr=subprocess.STDOUT,
    )


def test_a_rank_of_a_host_list_is_killed(bed, configuration, tmp_path, temporary, remote):
    """The launcher ends with a failure that names the reason, and leaves nothing on either host."""
    launcher = start_on_hosts(bed, remote, temporary, configuration, "model.size=6.6k", "train.steps=1000")
    wait_until(lambda: any(tmp_path.glob("pair/trials/*/metrics.jsonl")), 600, "a step")
    assert len(ranks(bed.hosts.hosts[0])) == len(ranks(bed.hosts.hosts[1])) == 1
    ranks(bed.hosts.hosts[1])[0].send_signal(signal.SIGKILL)
    assert launcher.wait(timeout=600) == 1, (tmp_path / "output.txt").read_text()
    # Either host may notice first; the script then asks the other one to end.
    assert re.search("machine 1: (exit status 1|asked to end)", (tmp_path / "output.txt").read_text())
    wait_until(lambda: not ours(bed.hosts.hosts), 600, "an end of every process")


def test_the_hosts_of_a_list_halve_the_micro_batch_together(bed, tmp_path, temporary, remote):
    """Machine 0 begins another attempt, and the other host follows it through the shared folder."""
    large = tmp_path / "large.yaml"
    large.write_text(LARGE.replace("{checkpoint_every: 3", "{machines: 2, checkpoint_every: 3"))
    with limited(tmp_path / "large", 600):
        launcher = start_on_hosts(bed, remote, temporary, str(large), "train.steps=3", "train.batch_tokens=64k")
        assert launcher.wait(timeout=500) == 0, (tmp_path / "output.txt").read_text()
    trial = trial_folder(tmp_path, "large")
    facts = json.loads((trial / "result.json").read_text())["engine"]
    assert facts["world_size"] == 2
    assert facts["out_of_memory_at"], "the limit is too generous for this machine"
    assert facts["accumulation"] == 2 ** len(facts["out_of_memory_at"])
    attempts = 1 + len(facts["out_of_memory_at"])
    for log in ("log.txt", "log.machine1.txt"):
        assert (trial / log).read_text().count("=== start ") == attempts
    assert not (trial / "failures.jsonl").exists()
    wait_until(lambda: not ours(bed.hosts.hosts), 600, "an end of every process")


def ranks(host) -> list[psutil.Process]:
    found = []
    for process in host.processes():
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if "-m amscale.train" in line and "accelerate" not in line:
                found.append(process)
    return found


def test_the_address_is_the_one_that_others_reach():
    """Names that resolve to loopback, as a host's own often does, are skipped."""
    from amscale.cluster.network import own_address

    assert own_address(["anything"]) == "127.0.0.1"
    with pytest.raises(RuntimeError, match="reaches none"):
        own_address(["localhost", "no-such-host.invalid"])
