"""Trials that share a GPU: what each reserves, and may allocate."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from amscale import config
from amscale.cluster.resources import Host, Resources
from amscale.planning.memory import Memory
from amscale.planning.plan import plan_sweep
from amscale.planning.sharing import allocator_share, share_of_gpu
from amscale.reporting.plan_table import print_plan
from amscale.trials.records import Placement

ALONE = Placement(1, 1, 1, "cuda", 1, "bf16", 8, 1)
HOST = Host(cpus=64, gpus=2, memory=10**12, gpu_memory=80 * 10**9)


@pytest.mark.parametrize(
    ("gigabytes", "busy", "trials", "host", "placement", "part"),
    [
        (2, 0.01, 100, {}, {}, 0.1),  # never less than a tenth
        (10, 0.01, 100, {}, {}, 0.1666),  # six times 10 GB and the margin
        (40, 0.01, 100, {}, {}, 1.0),
        (2, 0.3, 100, {}, {}, 0.3333),  # three together keep it busy for 0.9 of the time
        (2, 0.6, 100, {}, {}, 1.0),
        (2, 0.01, 6, {}, {}, 0.3333),  # six trials on two GPUs
        (2, 0.01, 2, {}, {}, 1.0),
        (2, 0.01, 100, {"cpus": 9}, {}, 0.25),  # four cores beside each GPU
        (2, 0.01, 100, {"cpus": 1}, {}, 1.0),
        (2, 0.01, 100, {"gpu_slices": ("MIG-a",)}, {}, 1.0),
        (2, 0.01, 100, {}, {"processes_per_machine": 2}, 1.0),
        (2, 0.01, 100, {}, {"machines": 2}, 1.0),
        (2, 0.01, 100, {}, {"device": "cpu"}, 1.0),
    ],
)
def test_a_trial_reserves_what_it_needs(gigabytes, busy, trials, host, placement, part):
    machines = Resources((replace(HOST, **host),))
    memory = Memory(states=gigabytes * 1e9, activations=0, buffers=0, unused=0, process=0)
    placed = replace(ALONE, **placement)
    assert share_of_gpu(placed, memory, busy, machines, HOST.gpu_memory, trials) == part
    slots = machines.processes("cuda", 1, part)[0]
    assert slots == min(int(1 / part) * HOST.gpus, machines.hosts[0].cpus, 1 if machines.hosts[0].gpu_slices else 999)


def test_a_process_may_allocate_its_part_less_what_is_not_torchs():
    assert allocator_share(0.1, 80 * 10**9) == pytest.approx(0.1 - 1.5 / 80)
    assert allocator_share(0.05, 16 * 10**9) == 0


def test_a_sweep_of_small_and_large_trials(tmp_path):
    """Four GPUs: small trials share them, large ones do not, and only as many as there are trials without a result."""
    machines = Resources((replace(HOST, gpus=4),))

    def parts(*overrides: str) -> list[float]:
        sizes = "grid.model.size=[25k, 1B]"
        settings = config.load("grammar.yaml", [sizes, "grid.data.size=[8k]", "grid.seed=[0,1,2,3,4]", *overrides])
        plan = plan_sweep(settings, tmp_path, machines, build=False)
        return [trial.placement.gpu_fraction for trial in plan.trials]

    assert parts() == [0.3333] * 5 + [1.0] * 5
    assert parts("launch.concurrent_trials=4") == [1.0] * 10
    assert parts("launch.gpu_fraction=1") == [1.0] * 10
    assert parts("launch.gpu_fraction=0.5") == [0.5] * 10


def test_the_plan_says_which_cards_trials_get_and_what_they_share(tmp_path):
    kinds = (replace(HOST, gpu_name="Large"), replace(HOST, gpu_name="Small", gpu_memory=16 * 10**9))
    sizes = ["grid.model.size=[25k, 1B]", "grid.data.size=[8k]", "grid.seed=[0,1,2,3,4]"]
    plan = plan_sweep(config.load("grammar.yaml", sizes), tmp_path, Resources(kinds), build=False)
    console = Console(file=io.StringIO(), width=160)
    print_plan(plan, console)
    printed = console.file.getvalue()
    assert "on 2 machines, 128 CPU cores, 4 GPUs (2 Large of 80 GB, 2 Small of 16 GB)" in printed
    assert "5 trials run on 2 Large of 80 GB only: the other machines have not the memory or the precision." in printed
    assert "The other 5 trials may run on any of the GPUs." in printed
    assert "5 of the trials share GPUs" in printed
    assert printed.count("1 x 0.33 cuda") == printed.count("1 x 1 cuda") == 5
    assert set(plan.to_frame()["cards"]) == {"2 Large of 80 GB", "2 Large of 80 GB or 2 Small of 16 GB"}


def test_of_many_trials_the_plan_has_a_row_for_each_shape(tmp_path):
    widths = ["grid.model.size=[6.6k, 25k]", "grid.data.size=[8k, 20k, 50k]", "grid.seed=[0,1,2,3,4,5,6]"]
    plan = plan_sweep(config.load("grammar.yaml", widths), tmp_path, Resources((HOST,)), build=False)

    def rows(**options: bool) -> list[str]:
        console = Console(file=io.StringIO(), width=200)
        print_plan(plan, console, **options)
        return [line for line in console.file.getvalue().splitlines() if line.startswith("│")]

    folded = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows()]
    assert [(row[1], row[3], row[4]) for row in folded] == [("21", "8k–50k", "0–6")] * 2
    assert float(folded[0][6]) == float(f"{sum(trial.flops for trial in plan.trials[:21]):.2g}")
    assert len(rows(every_trial=True)) == len(plan.trials) == 42


def test_a_plan_that_is_wider_than_the_terminal_is_not_cut_off(tmp_path):
    plan = plan_sweep(config.load("grammar.yaml"), tmp_path, Resources((HOST,)), build=False)
    console = Console(file=io.StringIO(), width=60)
    print_plan(plan, console)
    assert "…" not in console.file.getvalue()
    assert "processes" in console.file.getvalue()
