"""The engine's first update is AdamW's under every precision and stage that may be asked for; the check sees others.

One process makes one engine after the other: a start costs many times what the updates do.
"""

import json
import os
import subprocess
import sys

import pytest
from helpers.commands import environment
from helpers.ranks import only_rank

from amscale.files import packaged
from amscale.training.self_check import check_placement
from amscale.trials.records import Placement

pytestmark = pytest.mark.slow

SCRIPT = """
import json, os, sys
import torch
from accelerate.state import AcceleratorState
from amscale.errors import InputError
from amscale.training import engine
from amscale.training.self_check import check_engine
from amscale.trials.records import Placement

found = []
for precision, stage, file in json.loads(sys.argv[1]):
    AcceleratorState._reset_state()
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if precision == "bf16" else "no"
    os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = file
    try:
        found.append(check_engine(Placement(1, 1, 1, "cpu", stage, precision, 4, 3)))
    except InputError as error:
        found.append(str(error))

def prepare(*arguments):
    # What DeepSpeed does while it makes the optimiser of bf16 without sharding: a step on gradients of zero.
    prepared, optimizer = original(*arguments)
    for parameter in prepared.module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    prepared.optimizer.param_groups[0]["lr"] = 0.0
    prepared.optimizer.step()
    prepared.optimizer.param_groups[0]["lr"] = 1e-2
    prepared.optimizer.zero_grad()
    return prepared, optimizer

original, engine.prepare = engine.prepare, prepare
AcceleratorState._reset_state()
os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
os.environ["ACCELERATE_DEEPSPEED_CONFIG_FILE"] = json.loads(sys.argv[1])[0][2]
try:
    check_engine(Placement(1, 1, 1, "cpu", 0, "fp32", 4, 3))
except InputError as error:
    found.append(str(error))
print(json.dumps(found), file=open(sys.argv[2], "w"))
os._exit(0)
"""


def test_every_engine_makes_the_first_update_of_adamw_but_bf16_without_sharding(tmp_path):
    settings = json.loads((packaged("launch") / "zero0.json").read_text())
    del settings["data_types"]  # DeepSpeed refuses float32 sums there, and trains wrongly without them
    unsharded = tmp_path / "bf16.json"
    unsharded.write_text(json.dumps(settings))
    asked = [("fp32", 0), ("fp32", 1), ("fp32", 2), ("fp32", 3), ("bf16", 1), ("bf16", 2), ("bf16", 3)]
    engines = [(precision, stage, str(packaged("launch") / f"zero{stage}.json")) for precision, stage in asked]
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([*engines, ("bf16", 0, str(unsharded))]), str(tmp_path / "found")],
        env=environment() | only_rank(),
        cwd=os.getcwd(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads((tmp_path / "found").read_text())
    assert len(found) == len(engines) + 2
    assert all(0 < difference < 1e-3 for difference in found[: len(engines)]), found
    assert "gradients is 'torch.bfloat16', asked for 'torch.float32'" in found[-2]
    assert "first update differs from AdamW's by 26.5% of" in found[-1]


def test_a_run_whose_only_update_has_a_rate_of_0_leaves_the_weights_as_they_are(tmp_path):
    """A cosine of one step ends where it begins: so untrained models are probed."""
    settings = "train.steps=1 train.schedule=cosine train.warmup=0 train.final_learning_rate=0 probes.every=1"
    model = "grid={} model.family=vanilla model.layers=2 model.width=8 data.size=2k data.corpus=random_tokens"
    command = [sys.executable, "-m", "amscale.sweep", *settings.split(), *model.split(), f"storage={tmp_path}", "--yes"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_placement_is_checked_by_its_launcher_on_two_processes():
    assert check_placement(Placement(1, 2, 1, "cpu", 3, "bf16", 4, 2)) is None


def test_a_placement_that_is_refused_is_not_started():
    assert "launch.zero_stage=0 with bf16" in check_placement(Placement(1, 1, 1, "cpu", 0, "bf16", 4, 1))
