"""Which trials share a stable phase, where they branch off, and what a plan says of it."""

import pytest

from amscale import config
from amscale.cluster.resources import this_machine
from amscale.planning.branches import branches_of, describe_branches
from amscale.planning.plan import plan_sweep
from amscale.reporting.terminal import trial_status
from amscale.trials.sweep_store import SweepStore

ONE_PASS = (
    "model.size=25k",
    "model.layers=2",
    "grid.data.size=[4k, 5k, 6k]",
    "train={epochs: 1, schedule: wsd, warmup: 4, batch_tokens: 200}",
    "data.documents=1k",
    "data.validation=100",
    "probes.sequences=16",
)


def plan(tmp_path, *overrides, build=False):
    experiment = config.load("grammar.yaml", [*ONE_PASS, f"storage={tmp_path}", *overrides])
    return plan_sweep(experiment, tmp_path, this_machine(), build=build)


@pytest.mark.parametrize("build", [False, True])
@pytest.mark.parametrize("least", [0, 15])
def test_trials_of_less_data_branch_off_that_of_the_most_before_their_decay(tmp_path, build, least):
    made = plan(tmp_path, f"train.least_decay={least}", build=build)
    *branched, trunk = made.trials
    assert trunk.branch is None
    for trial in branched:
        assert trial.branch.trunk == trunk.label
        start = min(0.8 * trial.steps, trial.steps - least)
        assert start - 2 < trial.branch.step <= start
        assert trial.flops_saved / trial.flops == pytest.approx(trial.branch.step / trial.steps)
    assert [(b.label, b.step) for b in branches_of(trunk.label, made.trials)] == [
        (t.label, t.branch.step) for t in branched
    ]
    saved = sum(t.flops_saved for t in branched) / sum(t.flops for t in made.trials)
    (line,) = describe_branches(made.trials)
    assert line.startswith("2 of the trials branch off the one of the most D of their N before their decay")
    assert f": that saves {saved:.0%} of " in line


def test_ratio_of_a_fifth_saves_about_three_fifths(tmp_path):
    sizes = [round(2000 * 1.2**i) for i in range(12)]
    made = plan(tmp_path, f"grid.data.size={sizes}", "data.documents=10k", "launch.share_trunk=true")
    assert sum(t.flops_saved for t in made.trials) / sum(t.flops for t in made.trials) == pytest.approx(0.6, abs=0.07)


def test_a_stable_phase_is_not_shared_where_the_sweep_would_end_later(tmp_path):
    sizes = [round(4000 * 1.5**i) for i in range(5)]  # many short trials, which packs train sooner
    many = [f"grid.data.size={sizes}", "grid.seed=[0,1,2,3]", "grid.model.size=[6.6k]"]
    apart, shared = plan(tmp_path, *many), plan(tmp_path, *many, "launch.share_trunk=true")
    assert shared.seconds > apart.seconds
    assert (any(t.branch for t in apart.trials), any(t.branch for t in shared.trials)) == (False, True)
    assert apart.branch_notes[0].startswith("16 of the trials could branch off")
    assert "(launch.share_trunk=true does it)" in apart.branch_notes[0]


@pytest.mark.parametrize(
    "override",
    [
        "launch.share_trunk=false",
        "train.order=shuffled",
        "train.epochs=2",
        "train.schedule=cosine",
        "data.copies=2",
        "train.warmup=0.05",
        "probes.sequences=100k",
    ],
)
def test_no_trial_branches_off_where_the_beginnings_differ_or_it_is_not_wanted(tmp_path, override):
    made = plan(tmp_path, override)
    assert not any(trial.branch for trial in made.trials)
    said = describe_branches(made.trials)
    assert said == [] if "warmup" not in override else "give it in steps, such as train.warmup=1." in said[0]


def test_a_trial_that_began_by_itself_or_was_left_behind_trains_on(tmp_path):
    small, middle, trunk = plan(tmp_path).trials
    folder = SweepStore(tmp_path / "grammar")
    begun = folder.trial(small.label)
    begun.path.mkdir(parents=True)
    begun.attempt_file.write_text("an attempt")
    (folder.trial(trunk.label).checkpoints / f"step_{middle.branch.step + 1:09d}").mkdir(parents=True)
    assert not any(trial.branch for trial in plan(tmp_path).trials)
    left = folder.trial(middle.label)
    (left.checkpoints / f"step_{middle.branch.step:09d}").mkdir(parents=True)
    left.metrics.write_text('{"kind": "train", "step": 1, "loss": 4.0}\n')
    assert trial_status(left).state == "waiting"  # its records are the other's, and it has not begun
    assert [trial.branch and trial.branch.step for trial in plan(tmp_path).trials] == [None, middle.branch.step, None]
