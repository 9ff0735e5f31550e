"""The interval of probes: what is given counts, and what is left open follows from the run."""

from dataclasses import replace

import pytest

from amscale import config, models
from amscale.cluster.resources import this_machine
from amscale.errors import InputError
from amscale.planning.plan import plan_sweep
from amscale.planning.probing import probe_interval
from amscale.trials.records import Placement

PLACEMENT = Placement(
    machines=1, processes_per_machine=1, cpus_per_process=1, device="cpu", zero_stage=0, precision="fp32",
    micro_batch=64, accumulation=1,
)  # fmt: skip


def cell(size="100k", **more):
    settings = {
        "name": "a",
        "model": {"family": "vanilla", "size": size, "layers": 2},
        "data": {"corpus": "question_formation"},
        "train": {"steps": 1000},
    }
    return config.parse(settings | more)


def interval(cell, steps, tokens, placement=PLACEMENT):
    shape = models.solve(cell.model, 69, 36)
    return probe_interval(cell, shape, steps, tokens * models.flops_per_token(shape), placement)


@pytest.mark.parametrize(
    ("size", "steps", "tokens", "probes"),
    [
        ("1.7k", 600, 700, 0),  # a probe is worth 15 of these steps, of which 600 pay for none
        ("1.7k", 20_000, 700, 14),
        ("100k", 1000, 1500, 3),
        ("10M", 1000, 16384, 47),  # here it is a fifth of a step
        ("10M", 100_000, 16384, 50),
    ],
)
def test_probes_before_the_last_take_a_hundredth_of_the_time(size, steps, tokens, probes):
    every = interval(cell(size), steps, tokens)
    assert (steps - 1) // every == probes


def test_every_rank_runs_the_whole_probe_and_only_its_part_of_a_step():
    one = interval(cell("10M"), 1000, 16384)
    assert interval(cell("10M"), 1000, 16384, replace(PLACEMENT, processes_per_machine=4)) > 2 * one


@pytest.mark.parametrize("every", [0, 7, 10**6])
def test_what_is_given_counts(every):
    assert interval(cell(probes={"every": every}), 1000, 1500) == every


def test_a_negative_interval_is_refused():
    with pytest.raises(InputError, match=r"probes\.every=-1: -1 must be auto or at least 0"):
        cell(probes={"every": -1})


def test_trials_that_share_a_beginning_are_probed_alike():
    train = {"epochs": 1, "schedule": "wsd", "warmup": 10}
    assert {interval(cell(train=train), steps, 1500) for steps in (1000, 9000)} == {250}


def test_a_plan_says_the_number(tmp_path):
    overrides = ["data.documents=1k", "data.validation=100", "probes.every=auto", "model.size=25k", "data.size=8k"]
    experiment = config.load("grammar.yaml", [*overrides, f"storage={tmp_path}"])
    (trial,) = plan_sweep(experiment, tmp_path, this_machine(), build=False).trials
    assert trial.cell.probes.planned_every == pytest.approx(trial.steps / 3, rel=0.4)
