"""Threads of a process: 1 by default; with auto the cores that would be idle, and as before after a checkpoint."""

from dataclasses import replace

import pytest

from amscale import config
from amscale.cluster.resources import Host, Resources
from amscale.planning.plan import plan_sweep
from amscale.planning.threads import choose_threads
from amscale.trials.records import Placement
from amscale.trials.sweep_store import SweepStore

PLACEMENT = Placement(
    machines=1, processes_per_machine=1, cpus_per_process=1, device="cpu", zero_stage=0, precision="fp32",
    micro_batch=64, accumulation=1,
)  # fmt: skip


def machines(*cpus):
    return Resources(tuple(Host(cpus=count, gpus=0, memory=2**34, gpu_memory=0) for count in cpus))


@pytest.mark.parametrize(
    ("cpus", "trials", "step_flops", "changes", "threads"),
    [
        ((8,), 1, 1e10, {}, 8),
        ((8,), 3, 1e10, {}, 2),
        ((8,), 9, 1e10, {}, 1),  # more trials than cores
        ((8,), 1, 1e9, {}, 3),  # no more than the step keeps busy
        ((8,), 1, 1e8, {}, 1),
        ((8, 4), 3, 1e10, {}, 4),  # two on the first machine, one on the second
        ((8, 4), 1, 1e10, {"processes_per_machine": 2}, 4),
        ((8, 4), 1, 1e10, {"machines": 2}, 4),
        ((8,), 1, 1e10, {"device": "cuda"}, 1),
    ],
)
def test_idle_cores_are_shared_out(cpus, trials, step_flops, changes, threads):
    placement = replace(PLACEMENT, **changes)
    assert choose_threads(placement, step_flops * placement.world_size, machines(*cpus), trials) == threads


def plan(tmp_path, resources, *overrides):
    few = ["data.documents=1k", "data.validation=100", "train.batch_tokens=8k", f"storage={tmp_path}", "name=threads"]
    grid = ["grid.model.size=[100k]", "grid.data.size=[4k, 8k]"]
    experiment = config.load("grammar.yaml", [*few, *grid, *overrides])
    return plan_sweep(experiment, tmp_path, resources, build=True).trials


def test_a_trial_with_a_checkpoint_keeps_its_threads(tmp_path):
    assert {trial.placement.cpus_per_process for trial in plan(tmp_path, machines(8))} == {1}
    auto = "launch.cpus_per_process=auto"
    first, second = plan(tmp_path, machines(8), auto)
    assert (first.placement.cpus_per_process, second.placement.cpus_per_process) == (4, 4)
    store = SweepStore(tmp_path / "threads").trial(first.label)
    store.write_spec(first.cell, replace(first.placement, cpus_per_process=3), first.store.folder, first.identity, "a")
    assert plan(tmp_path, machines(8), auto)[0].placement.cpus_per_process == 4  # nothing of it was trained
    (store.checkpoints / "step_000000010").mkdir(parents=True)
    assert [trial.placement.cpus_per_process for trial in plan(tmp_path, machines(8), auto)] == [3, 4]
    assert [trial.placement.cpus_per_process for trial in plan(tmp_path, machines(2), auto)] == [1, 1]
