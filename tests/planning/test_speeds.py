"""The time of a step: between what was measured, kept for a machine, and measured by a calibration."""

import json
import subprocess
import sys

import pytest

from amscale import config
from amscale.cluster.resources import Resources, this_machine
from amscale.planning import speeds
from amscale.planning.calibrate import calibrate
from amscale.planning.plan import plan_sweep
from amscale.planning.sharing import STEP_SECONDS
from amscale.planning.speeds import Speeds, StepTime, keep, load
from amscale.trials.records import Placement

PLACEMENT = Placement(
    machines=1, processes_per_machine=1, cpus_per_process=1, device="cpu", zero_stage=0, precision="fp32",
    micro_batch=1, accumulation=1,
)  # fmt: skip
HERE = Resources(())


def step(flops, seconds, **changed):
    usual = {"family": "vanilla", "device": "cpu", "precision": "fp32", "cpus": 1}
    return StepTime(**usual | changed, flops=flops, seconds=seconds)


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AMSCALE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("flops", "seconds"),
    [(1e8, 0.01), (2e9, 0.11), (3e9, 0.21), (6e9, 0.42), (5e7, 0.0095)],
    ids=["measured", "between", "largest", "beyond", "below: a tenth of the least step, at least, is arithmetic"],
)
def test_a_step_takes_what_steps_like_it_took(flops, seconds):
    points = (step(1e8, 0.01), step(1e9, 0.01), step(3e9, 0.21), step(3e9, 9.0, calibrated=True))
    others = (step(2e9, 77.0, family="gpt2"), step(2e9, 77.0, cpus=4), step(2e9, 77.0, precision="bf16"))
    found = Speeds(points + others).step_seconds("vanilla", flops, PLACEMENT, HERE)
    assert found == pytest.approx(seconds)


ALONE = (step(1e8, 0.005), step(3e8, 0.009))
PACKED = (step(1e8, 0.0026, members=5), step(3e8, 0.0066, members=5))
"""What ALONE are in packs of five, whose members share the 3 ms that a step costs beside its arithmetic."""
MEMBER = speeds._MEMBER_SECONDS


@pytest.mark.parametrize(
    ("measured", "members", "seconds"),
    [
        (ALONE, 1, 0.007),
        (ALONE, 5, 0.007 - 0.003 * 4 / 5 + MEMBER),
        (PACKED, 5, 0.0046),
        (ALONE + PACKED, 5, 0.0046),
        (ALONE + PACKED, 1, 0.007),
        (PACKED, 1, 0.0046 + STEP_SECONDS * 4 / 5 - MEMBER),
    ],
)
def test_what_packs_took_says_what_packs_take_and_not_trials_alone(measured, members, seconds):
    found = Speeds(measured).step_seconds("vanilla", 2e8, PLACEMENT, HERE, members)
    assert found == pytest.approx(seconds)


def test_what_was_measured_is_kept_for_this_machine_and_torch_alone(cache, monkeypatch):
    keep([step(1e9, 0.1)])
    keep([step(2e9, 0.2)])
    assert load() == [step(1e9, 0.1), step(2e9, 0.2)]
    monkeypatch.setattr(speeds, "version", lambda _: "0.0")
    assert load() == []
    monkeypatch.undo()
    monkeypatch.setenv("AMSCALE_CACHE", str(cache))
    (file,) = cache.iterdir()
    file.write_text(file.read_text()[:-9])
    assert load() == []


@pytest.mark.slow
def test_a_calibration_is_kept_and_not_repeated(cache, tmp_path):
    few = [f"storage={tmp_path}", "grid.model.size=[1.68k, 9.96k]", "grid.data.size=[512]"]
    experiment = config.load("quick.yaml", few)

    def plan():
        return plan_sweep(experiment, tmp_path, this_machine("cpu"), build=False)

    before = plan()
    measured = calibrate(before, None)
    assert [point.flops for point in measured] == [trial.flops / trial.steps for trial in before.trials]
    assert all(point.seconds > 0 and point.calibrated and point.family == "vanilla" for point in measured)
    after = plan()
    assert (before.time_basis[:10], after.time_basis) == ("an assumed", "speed measured on this machine")
    assert [trial.identity for trial in after.trials] == [trial.identity for trial in before.trials]
    assert calibrate(after, None) == []
    larger = config.load("quick.yaml", [*few, "train.batch_tokens=64k"])
    told = plan_sweep(larger, tmp_path, this_machine("cpu"), build=False).time_basis
    assert told == "speed measured on this machine, but in steps of other sizes than those of 2 trials"


def _plan(tmp_path, *arguments):
    command = [sys.executable, "-m", "amscale.plan", "quick.yaml", f"storage={tmp_path}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_a_plan_for_a_named_card_rests_on_its_figures_alone(cache, tmp_path):
    keep([step(1e9, 1e6, device="cuda", precision="bf16")])
    ran = _plan(tmp_path, "--on", "h100", "--price", "2.5", "--json")
    found = json.loads(ran.stdout)
    assert found["resources"] == "machines of 8 GPUs with 80 GB each (H100, assumed)"
    assert found["cost"] == pytest.approx(2.5 * found["device_hours"])
    assert found["seconds"] < 1e5, "nothing that was measured on this machine counts"
    assert {trial["device"] for trial in found["trials"]} == {"cuda"}
    assert found["storage_bytes"] > 0 < found["checkpoint_bytes"]
    ran = _plan(tmp_path, "--on", "h1000")
    assert ran.returncode == 2
    assert "on='h1000' is not a card with known figures; give one of GB200, B200," in ran.stderr
