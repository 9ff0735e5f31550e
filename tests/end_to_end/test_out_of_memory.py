"""Ranks that run out of memory: the kernel refuses them more, and torch's own allocator fails."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import command, environment, processes_naming, recorded_losses
from helpers.devices import DEVICES, occupied
from helpers.memory_limit import LARGE, limited

from amscale.planning.single_trial import plan_single_trial

pytestmark = [pytest.mark.slow]


@pytest.fixture
def large(tmp_path) -> Path:
    path = tmp_path / "large.yaml"
    path.write_text(LARGE)
    return path


ON_GPU = ("train.batch_tokens=2M", "launch.zero_stage=1")
"""A batch whose activations are several times what a process on a GPU needs besides."""


def too_little(configuration: Path, *settings: str) -> float:
    """Return bytes of memory in which a trial fits once its micro-batch is halved, by the plan's estimate."""
    memory = plan_single_trial(str(configuration), list(settings)).plan.memory
    return memory.total - 0.4 * memory.activations


@pytest.mark.parametrize("device", DEVICES)
def test_half_the_micro_batch_and_the_same_global_batch_from_the_newest_checkpoint(device, large, tmp_path):
    """The memory shrinks, on a CPU after a checkpoint: the trial goes on from there, and its losses are those of a calm
    run. A process on a GPU keeps what it once had, so that the memory is small there from the start."""
    calm, tight = tmp_path / "calm", tmp_path / "tight"
    settings = [f"launch.device={device}", *(ON_GPU if device == "cuda" else ())]
    assert command("sweep", str(large), f"storage={calm}", *settings).returncode == 0
    (undisturbed,) = calm.glob("large/trials/*")
    trial = tight / "large" / "trials" / undisturbed.name

    def has_checkpoint() -> bool:
        return any((trial / "checkpoints").glob("step_*[0-9]"))

    on_cpu = device == "cpu"
    little = (
        limited(tight / "large", 600, once=has_checkpoint)
        if on_cpu
        else occupied(too_little(large, f"storage={calm}", *settings))
    )
    with little:
        ran = command("sweep", str(large), f"storage={tight}", *settings)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result, peaceful = (json.loads((folder / "result.json").read_text()) for folder in (trial, undisturbed))
    full = peaceful["engine"]["micro_batch"]
    half = math.ceil(full / 2)
    tried = result["engine"]["out_of_memory_at"]
    assert tried == [full, half][: len(tried)]
    assert tried, "the limit is too generous for this machine"
    assert result["engine"]["micro_batch"] == math.ceil(tried[-1] / 2)
    assert result["engine"]["accumulation"] == 2 ** len(tried)
    assert f"out of memory with a micro-batch of {full}: goes on with {half} and 2 forward passes" in ran.stdout
    for line in (trial / "out_of_memory.jsonl").read_text().splitlines():
        assert ("can't allocate memory" if on_cpu else "CUDA out of memory") in json.loads(line)["reason"]
    assert not (trial / "failures.jsonl").exists()
    assert not processes_naming(tight)
    if on_cpu:  # nothing before the checkpoint was repeated
        assert recorded_losses(trial)[:3] == recorded_losses(undisturbed)[:3]
    assert [record[:2] for record in recorded_losses(trial)] == [record[:2] for record in recorded_losses(undisturbed)]
    expected = [loss for *_, loss in recorded_losses(undisturbed)]
    assert [loss for *_, loss in recorded_losses(trial)] == pytest.approx(expected, rel=1e-5 if on_cpu else 0.002)
    assert result["data"]["tokens_seen"] == peaceful["data"]["tokens_seen"]


def test_a_micro_batch_of_one_that_does_not_fit_is_reported_and_not_retried(large, tmp_path):
    long = ("data.packing=stream", "data.context=16384", "data.documents=4k", "data.validation=1k", "train.steps=2")
    with limited(tmp_path / "large", 480):
        ran = command("sweep", str(large), f"storage={tmp_path}", *long, "launch.micro_batch=2", "launch.retries=5")
    assert ran.returncode == 1
    assert ran.stdout.count(": starting") == 1
    assert "out of memory with a micro-batch of 1: give it more machines or processes" in ran.stdout
    (path,) = tmp_path.glob("large/trials/*/out_of_memory.jsonl")
    assert [json.loads(line)["micro_batch"] for line in path.read_text().splitlines()] == [2, 1]
    assert not processes_naming(tmp_path)


def test_without_ray_the_micro_batch_is_halved_too(large, tmp_path):
    """Over a list of one host, reached by a shell in the place of ssh."""
    remote = tmp_path / "remote"
    remote.write_text('#!/bin/sh\nexec sh -c "$2"\n')
    remote.chmod(0o755)
    script = Path(__file__).parents[2] / "launch" / "trial.sh"
    with limited(tmp_path / "large", 540):
        ran = subprocess.run(
            [script, "here", large, f"storage={tmp_path}", "train.steps=3"],
            env={**environment(), "REMOTE_SHELL": str(remote), "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (trial,) = (tmp_path / "large" / "trials").iterdir()
    engine = json.loads((trial / "result.json").read_text())["engine"]
    tried = engine["out_of_memory_at"]
    assert tried, "the limit is too generous for this machine"
    assert engine["micro_batch"] == math.ceil(tried[-1] / 2)
    assert engine["accumulation"] == 2 ** len(tried)
    assert f"out of memory with a micro-batch of {tried[0]}: goes on with {math.ceil(tried[0] / 2)}" in ran.stderr
    assert [step for kind, step, _ in recorded_losses(trial) if kind == "train"] == [1, 2, 3]
    assert not (trial / "failures.jsonl").exists()
    assert not processes_naming(tmp_path)
