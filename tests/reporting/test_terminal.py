"""What `status` and `plan` say of trials that have begun, ended, or been asked to end."""

import io
from dataclasses import replace

from helpers.made_sweep import write_trial
from rich.console import Console

from amscale import config
from amscale.cluster.resources import Host, Resources
from amscale.planning.plan import plan_sweep
from amscale.reporting.plan_table import print_plan
from amscale.reporting.terminal import print_results, trial_status
from amscale.trials.trial_store import TrialStore

MACHINE = Resources((Host(cpus=2, gpus=0, memory=8 * 10**9),))


def printed(show, *arguments):
    console = Console(file=io.StringIO(), width=200)
    show(*arguments, console)
    return console.file.getvalue()


def test_a_trial_that_was_preempted_does_not_run(tmp_path):
    write_trial(tmp_path, "x", 6000, 8000, layers=0)
    trial = TrialStore(tmp_path / "trials" / "x")
    (trial.path / "result.json").unlink()
    assert trial_status(trial).state == "running", "its records are new"
    trial.preempted.touch()
    assert trial_status(trial).state == "stopped"
    assert printed(print_results, [trial]).startswith("1 trial ")
    assert printed(print_results, []).startswith("no trial yet")


def test_a_plan_says_what_is_left_and_what_else_the_folder_holds(tmp_path):
    settings = ["grid.model.size=[25k]", "grid.data.size=[8k, 20k, 50k]", f"storage={tmp_path}", "name=s"]
    plan = plan_sweep(config.load("grammar.yaml", settings), tmp_path, MACHINE, build=False)
    assert "have results" not in printed(print_plan, plan)
    done = replace(plan, waiting=frozenset([plan.trials[2].label]), foreign=1)
    said = printed(print_plan, done)
    assert "2 of 3 trials have results; 1 left: " in said
    assert "The folder holds 1 result of another corpus too" in said
    assert done.wall_seconds(plan.trials[2:]) < done.seconds
