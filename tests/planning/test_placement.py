"""The choice of processes, ZeRO stage and micro-batch by the memory that they need."""

from dataclasses import replace

import pytest

from amscale import config, models
from amscale.cluster.gpus import computes_bf16
from amscale.cluster.resources import Host, Resources
from amscale.errors import InputError
from amscale.planning.memory import model_states
from amscale.planning.placement import check_compiles, choose_placement


def placed(*overrides: str, resources: Resources, size: str = "1B"):
    """Return the placement of one trial, and its memory."""
    cell = config.expand(
        config.load("grammar.yaml", [f"model.size={size}", "model.layers=22", "data.size=8k", *overrides])
    )
    shape = models.solve(cell[0].model, 50304, 1024)
    return choose_placement(cell[0], shape, 64, resources)


GPUS = Resources(tuple(Host(cpus=64, gpus=8, memory=10**12, gpu_memory=80 * 10**9) for _ in range(4)))


def test_the_smallest_stage_and_fewest_processes_that_fit():
    small = placed(resources=GPUS, size="100M").placement
    assert (small.processes_per_machine, small.zero_stage, small.device, small.precision) == (1, 1, "cuda", "bf16")
    tight = placed("launch.device_memory=12G", resources=GPUS)
    assert tight.placement.zero_stage >= 2
    assert tight.placement.processes_per_machine > 1
    assert tight.memory.total < 12e9
    assert tight.placement.micro_batch * tight.placement.world_size * tight.placement.accumulation >= 64


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("launch.machines=5", "launch.machines=5: the cluster has 4"),
        ("launch.processes_per_machine=9", "launch.processes_per_machine=9"),
        ("launch.device_memory=1G", "GB a process at best"),
        (
            ("launch.machines=2", "launch.gpu_fraction=0.5"),
            r"gpu_fraction=0\.5: only a trial of one process shares a GPU",
        ),
        (
            "launch.gpu_fraction=0.1",
            r"and launch\.gpu_fraction=0\.1 of one has 8\.0 GB, of which 85% may be filled; give a larger part",
        ),
    ],
)
def test_a_trial_that_can_never_be_placed_gives_one_line(override, words):
    with pytest.raises(InputError, match=words):
        placed(*([override] if isinstance(override, str) else override), resources=GPUS)


def test_a_gpu_that_is_not_there_gives_one_line():
    laptop = Resources((Host(cpus=2, gpus=0, memory=16 * 10**9),))
    with pytest.raises(InputError, match=r"launch\.device=cuda: the machines have no GPU"):
        placed("launch.device=cuda", resources=laptop, size="100M")


@pytest.mark.parametrize(
    ("setting", "stage", "obstacle", "words"),
    [
        ("true", 3, "", "ZeRO-3"),
        ("true", 1, "there is no C++ compiler here (g++)", r"no C\+\+ compiler here \(g\+\+\) \(node second"),
        ("true", 1, "", None),
        ("auto", 3, "there is no C++ compiler here (g++)", None),
    ],
)
def test_compiling_is_refused_before_anything_starts(setting, stage, obstacle, words):
    first, second = replace(GPUS.hosts[0], node="first"), replace(GPUS.hosts[0], node="second")
    resources = Resources((first, replace(second, compile_obstacle=obstacle)))
    overrides = [f"train.compile={setting}", f"launch.zero_stage={stage}"]
    cell = config.expand(config.load("grammar.yaml", ["model.size=100M", "data.size=8k", *overrides]))[0]
    placement = placed(*overrides, resources=resources, size="100M").placement
    if words is None:
        check_compiles(cell, placement, resources)
    else:
        with pytest.raises(InputError, match=rf"train\.compile=true: .*{words}"):
            check_compiles(cell, placement, resources)


def test_bf16_is_never_placed_without_sharding():
    """DeepSpeed's updates are not AdamW's there."""
    for override in ("launch.precision=bf16", "launch.device=cuda"):
        with pytest.raises(InputError, match=r"launch\.zero_stage=0 with bf16: .* give 1"):
            placed(override, "launch.zero_stage=0", resources=GPUS, size="100M")
    fp32 = placed("launch.precision=fp32", resources=GPUS, size="100M").placement
    assert (fp32.zero_stage, fp32.precision) == (0, "fp32")


def card(gigabytes: int, **options) -> Host:
    """Return a machine with 8 GPUs of that memory."""
    return Host(**{"cpus": 64, "gpus": 8, "memory": 10**12, "gpu_memory": gigabytes * 10**9, **options})


def test_cards_without_bf16_train_in_fp32():
    assert [computes_bf16(card) for card in ((7, 0), (7, 5), (8, 0), (9, 0))] == [False, False, True, True]
    old = Resources((card(16, bf16=False),))
    placement = placed(resources=old, size="10M").placement
    assert (placement.device, placement.precision) == ("cuda", "fp32")
    with pytest.raises(InputError, match=r"launch\.precision=bf16: no GPU here has bf16"):
        placed("launch.precision=bf16", resources=old, size="10M")


def test_a_trial_may_run_on_every_card_that_holds_it():
    """Of small and large cards, and a head without any; before, all trials were planned for the smallest."""
    small, large, head = card(24, node="small"), card(80, node="large"), Host(cpus=1, gpus=0, memory=10**9, node="head")
    mixed = Resources((large, small, head))
    one = "launch.processes_per_machine=1"
    anywhere = placed(resources=mixed, size="100M").placement
    assert (anywhere.device_memory, mixed.suited(anywhere).hosts) == (0, (large, small))
    assert mixed.unsuited_nodes(anywhere) == ()
    with pytest.raises(InputError, match=r"a device has 24\.0 GB"):
        placed(one, resources=Resources((small,)))
    chosen = placed(one, resources=mixed)
    assert (chosen.placement.device_memory, mixed.suited(chosen.placement).hosts) == (large.gpu_memory, (large,))
    assert mixed.unsuited_nodes(chosen.placement) == ("small",)
    assert chosen == replace(
        placed(one, resources=Resources((large,))),
        placement=replace(chosen.placement, device_memory=large.gpu_memory),
    )
    # One process on a large card comes before two on small ones.
    assert placed(resources=mixed) == chosen
    with pytest.raises(InputError, match=r"a device has 80\.0 GB"):
        placed(one, resources=mixed, size="20B")
    forced = ("launch.micro_batch=8", "launch.zero_stage=1")
    assert placed(*forced, resources=mixed, size="100M").placement.device_memory == 0
    assert placed(*forced, resources=mixed, size="20B").placement.device_memory == large.gpu_memory
    assert placed(one, "launch.device_memory=80G", resources=mixed).placement.device_memory == 0
    with pytest.raises(InputError, match=r"launch\.machines=3: the cluster has 2"):
        placed("launch.machines=3", resources=mixed)


def test_all_trials_have_one_precision_on_unlike_cards():
    old, new = card(16, bf16=False, node="old"), card(80, node="new")
    mixed = Resources((old, new))
    assert placed(resources=mixed, size="10M").placement.precision == "fp32"
    asked = placed("launch.precision=bf16", resources=mixed, size="10M").placement
    assert (asked.precision, mixed.suited(asked).hosts, mixed.unsuited_nodes(asked)) == ("bf16", (new,), ("old",))
    only = ("launch.processes_per_machine=1", "launch.micro_batch=8")
    with pytest.raises(InputError, match=r"; launch\.precision=bf16 leaves out the GPUs without bf16"):
        placed(*only, resources=mixed, size="4B")
    assert placed(*only, "launch.precision=bf16", resources=Resources((old, card(120))), size="3B")


def test_a_model_that_needs_much_main_memory_runs_where_it_is():
    little, much = Host(cpus=2, gpus=0, memory=4 * 10**9, node="a"), Host(cpus=2, gpus=0, memory=200 * 10**9, node="b")
    mixed = Resources((little, much))
    placement = placed("launch.processes_per_machine=1", resources=mixed).placement
    assert (placement.device, mixed.unsuited_nodes(placement)) == ("cpu", ("a",))


def test_processes_for_gpus_make_whole_models_in_main_memory():
    """Four processes of 40 GB each: two machines with two processes hold what one does not."""
    asked = ("launch.zero_stage=3", "launch.machines=auto")
    wide = placed(*asked, resources=Resources((card(80, memory=10**12),) * 4), size="10B").placement
    assert (wide.machines, wide.processes_per_machine) == (1, 4)
    narrow = placed(*asked, resources=Resources((card(80, memory=10**11),) * 4), size="10B").placement
    assert (narrow.machines, narrow.processes_per_machine) == (2, 2)
    with pytest.raises(InputError, match=r"take 4\d\.\d GB of main memory in each process while a model is made"):
        placed(*asked, resources=Resources((card(80, memory=3 * 10**10),) * 4), size="10B")


def test_slices_are_not_shared():
    with pytest.raises(InputError, match=r"launch\.gpu_fraction=0\.5: the GPUs here are slices \(MIG\)"):
        placed("launch.gpu_fraction=0.5", resources=Resources((card(20, gpu_slices=("MIG-a",)),)), size="10M")


def test_model_states_follow_the_published_table():
    """Rajbhandari et al. 2020, figure 1: 7.5 B parameters on 64 devices: 120, 31.4, 16.6 and 1.9 GB."""
    published = {0: 120.0, 1: 31.4, 2: 16.6, 3: 1.9}
    for stage, gigabytes in published.items():
        assert model_states(7_500_000_000, stage, 64, "bf16") / 1e9 == pytest.approx(gigabytes, rel=0.02)
