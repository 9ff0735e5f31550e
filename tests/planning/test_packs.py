"""Packs of a plan: which trials one process trains, and why others are trained alone."""

import pytest

from amscale import config
from amscale.cluster.resources import Host, Resources
from amscale.planning.packs import why_alone
from amscale.planning.plan import plan_sweep

MACHINE = Resources((Host(cpus=2, gpus=0, memory=8 * 10**9),))
CONFIG = """
name: p
grid: {model.size: [6.6k, 25k], data.size: [8k, 20k, 50k], seed: [0, 1]}
model: {family: vanilla, layers: 2, dropout: 0.0}
data: {corpus: question_formation, documents: 3k, validation: 100}
train: {steps: 200, batch_tokens: 500}
launch: {device: cpu}
"""


def plan(tmp_path, *overrides):
    path = tmp_path / "p.yaml"
    path.write_text(CONFIG)
    experiment = config.load(str(path), [f"storage={tmp_path}", *overrides])
    return plan_sweep(experiment, tmp_path, MACHINE, build=False)


def test_rows_of_one_shape_are_packed_for_every_core(tmp_path):
    found = plan(tmp_path)
    by_label = {trial.label: trial for trial in found.trials}
    packed = [[by_label[label] for label in pack] for pack in found.packs]
    assert len(packed) >= 2
    assert sum(map(len, packed)) == len({label for pack in found.packs for label in pack}) == 12
    for members in packed:
        assert len({trial.shape for trial in members}) == 1
    assert found.pack_notes[0].startswith("12 trials of equal shapes are trained by ")
    assert found.seconds < plan(tmp_path, "launch.pack=off").seconds
    assert plan(tmp_path, "launch.pack=off").packs == ()
    assert found.wall_seconds(found.trials) == found.seconds
    assert 0 < found.wall_seconds(found.trials[:6]) < found.seconds, "of what is missing, packed as planned"


def test_a_number_is_the_most(tmp_path):
    assert {len(pack) for pack in plan(tmp_path, "launch.pack=3").packs} == {3}


def test_few_trials_and_large_steps_are_left_alone(tmp_path):
    assert plan(tmp_path, "train.batch_tokens=3000").packs == ()
    assert plan(tmp_path, "grid.model.size=[25k]", "grid.data.size=[8k, 20k]").packs == ()


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("model.dropout=0.1", "with dropout a pack would draw other masks than the trial alone"),
        ("model.positions=relative", "relative positions cannot be stacked"),
        ("launch.processes_per_machine=2", "packs are trained by one process on CPUs"),
        ("launch.micro_batch=4", "packs are trained in fp32 under ZeRO 0 with one forward pass a step"),
        ("launch.zero_stage=1", "packs are trained in fp32 under ZeRO 0 with one forward pass a step"),
    ],
)
def test_a_trial_that_cannot_be_packed_says_why(tmp_path, override, reason):
    found = plan(tmp_path, override, "launch.pack=4")
    assert found.packs == ()
    assert found.pack_notes == (f"launch.pack: trials are trained alone, since {reason}.",)
    assert why_alone(found.trials[0], found.trials) == reason


def test_what_a_step_is_made_of_is_shared(tmp_path):
    """Another batch is another pack; other steps, rates, decays and seeds are not."""
    grid = ["grid.model.size=[6.6k]", "grid.seed=[0]", "grid.data.size=[8k]", "launch.pack=8"]
    free = plan(tmp_path, *grid, "grid.train.steps=[10, 20]", "grid.train.learning_rate=[1e-3, 2e-3]")
    assert [len(pack) for pack in free.packs] == [4]
    assert plan(tmp_path, *grid, "grid.train.batch_tokens=[500, 1000]").packs == ()
    assert plan(tmp_path, *grid, "grid.train.epsilon=[1e-8, 1e-6]").packs == ()
