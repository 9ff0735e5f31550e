"""Updates that DeepSpeed skips, since their gradients are not finite, are recorded, and too many in a row end a run."""

import json
import subprocess
import sys

import pytest
from helpers.commands import TINY, environment
from helpers.ranks import only_rank

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
import torch
from amscale import models
from amscale.trials.records import Placement
from amscale.training.run import run_trial
from amscale.planning.single_trial import plan_single_trial

class Poison(torch.autograd.Function):
    calls = 0
    @staticmethod
    def forward(context, logits):
        return logits.clone()
    @staticmethod
    def backward(context, gradient):
        Poison.calls += 1
        # Step 2, and all from step 5 on: the losses stay finite.
        return gradient * float("inf") if Poison.calls == 2 or Poison.calls > 4 else gradient

build = models.build
def poisoned(shape):
    model = build(shape)
    model.register_forward_hook(lambda module, inputs, logits: Poison.apply(logits))
    return model
models.build = poisoned

trial = plan_single_trial(sys.argv[1], sys.argv[2:])
store = trial.sweep.location(trial.plan.label).store(0)
trial.write(store)
sys.exit(run_trial(store, trial.plan.cell, trial.plan.placement, trial.tokens))
"""


@pytest.mark.parametrize(("precision", "stage"), [("bf16", 1), ("fp32", 0)])  # DeepSpeed skips; amscale does
def test_a_run_whose_updates_are_all_skipped_diverges(precision, stage, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    cell = ["model.size=1.7k", "data.size=4k", f"storage={tmp_path}", "launch.device=cpu"]
    cell += [f"launch.precision={precision}", f"launch.zero_stage={stage}"]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "tiny.yaml"), *cell],
        env=environment() | only_rank(precision, stage),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    (path,) = tmp_path.glob("tiny/trials/*/result.json")
    result = json.loads(path.read_text())
    assert result["state"] == "diverged"
    assert result["reason"] == "the gradients of 10 steps in a row, up to step 14, were not finite"
    assert (result["steps"], result["engine"]["skipped_updates"]) == (14, 11)
    records = [json.loads(line) for line in path.with_name("metrics.jsonl").read_text().splitlines()]
    train = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in train if record.get("skipped")] == [2, *range(5, 15)]
    assert all(record["gradient_norm"] is None for record in train if record.get("skipped"))
