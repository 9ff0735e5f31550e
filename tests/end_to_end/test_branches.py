"""Trials of several D that share a stable phase: a branch is bit for bit the run that trained alone."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.commands import command, ranks_of, wait_until

pytestmark = [pytest.mark.slow]

PATIENCE = 600
SETTINGS = (
    "model.size=6.6k",
    "data.size=[16k,20k]",
    "train={epochs: 1, schedule: wsd, decay: 0.5, warmup: 5, batch_tokens: 100, learning_rate: 1e-2, "
    "validate_every: 20, validation_tokens: 2000}",
    "launch.checkpoint_every=10",
    "launch.concurrent_trials=1",
    "launch.share_trunk=true",
)


def run_of(trial: Path) -> tuple:
    """Return all that a run measured, but for its times and what it has of the other's D; and its weights."""
    records = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        for key in ("time", "mfu", "seconds", "reasons"):
            record.pop(key, None)
        for tag in ("memorisation/bits", "memorisation/bits_per_parameter"):
            record.get("values", {}).pop(tag, None)
    result = json.loads((trial / "result.json").read_text())
    return records, result["losses"], result["data"], result["flops"], (trial / "model.safetensors").read_bytes()


def test_a_branch_is_the_run_that_trained_alone_with_a_kill_in_the_trunk_and_one_in_the_branch(
    tiny, tmp_path, start_sweep
):
    alone = command("sweep", str(tiny), f"storage={tmp_path}/alone", *SETTINGS, "data.size=16k")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    (calm,) = (tmp_path / "alone" / "tiny" / "trials").iterdir()

    driver = start_sweep(tmp_path / "tiny", str(tiny), f"storage={tmp_path}", *SETTINGS)
    trials = driver.folder / "trials"
    wait_until(lambda: any(trials.glob("*/checkpoints/step_*0")), PATIENCE, "a checkpoint of the trunk")
    branch = trials / calm.name
    (trunk,) = (path for path in trials.iterdir() if path != branch)
    assert not (branch / "start").exists()  # it waits, and holds no machine
    ranks_of(trunk)[0].kill()
    wait_until(lambda: (branch / "start").exists(), PATIENCE, "the branch begins")
    wait_until(lambda: len(list(branch.glob("checkpoints/step_*0"))) == 2, PATIENCE, "a checkpoint of its own")
    ranks_of(branch)[0].kill()
    assert driver.process.wait(timeout=PATIENCE) == 0
    for path in (trunk, branch):
        (failure,) = (json.loads(line)["reason"] for line in (path / "failures.jsonl").read_text().splitlines())
        assert "signal 9" in failure or "status 137" in failure
    assert run_of(branch) == run_of(calm)

    result = json.loads((branch / "result.json").read_text())
    origin, kept = result["branch"], yaml.safe_load((trunk / "spec.yaml").read_text())["branches"]
    assert kept == [{"label": branch.name, "step": origin["step"]}]
    assert origin["label"] == trunk.name
    assert result["steps"] / 2 - 2 < origin["step"] <= result["steps"] / 2
    assert 0 < origin["tokens"] < result["data"]["tokens_seen"]
    assert "branch" not in json.loads((trunk / "result.json").read_text())
