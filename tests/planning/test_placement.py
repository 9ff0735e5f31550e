"""The choice of processes, ZeRO stage and micro-batch by the memory that they need."""

import pytest

from amscale import config, models
from amscale.cluster.gpus import computes_bf16
from amscale.cluster.resources import Host, Resources
from amscale.errors import InputError
from amscale.planning.memory import model_states
from amscale.planning.placement import choose_placement


def placed(*overrides: str, resources: Resources, size: str = "1B"):
    """Return the placement of one trial, and its memory."""
    cell = config.expand(
        config.load("quick.yaml", [f"model.size={size}", "model.layers=22", "data.size=8k", *overrides])
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
    ],
)
def test_a_trial_that_can_never_be_placed_gives_one_line(override, words):
    with pytest.raises(InputError, match=words):
        placed(override, resources=GPUS)


def test_a_gpu_that_is_not_there_gives_one_line():
    laptop = Resources((Host(cpus=2, gpus=0, memory=16 * 10**9),))
    with pytest.raises(InputError, match=r"launch\.device=cuda: the machines have no GPU"):
        placed("launch.device=cuda", resources=laptop, size="100M")


def test_bf16_is_never_placed_without_sharding():
    """DeepSpeed's updates are not AdamW's there."""
    for override in ("launch.precision=bf16", "launch.device=cuda"):
        with pytest.raises(InputError, match=r"launch\.zero_stage=0 with bf16: .* give 1"):
            placed(override, "launch.zero_stage=0", resources=GPUS, size="100M")
    fp32 = placed("launch.precision=fp32", resources=GPUS, size="100M").placement
    assert (fp32.zero_stage, fp32.precision) == (0, "fp32")


def test_cards_without_bf16_train_in_fp32():
    assert [computes_bf16(card) for card in ((7, 0), (7, 5), (8, 0), (9, 0))] == [False, False, True, True]
    old = Resources((*GPUS.hosts[:1], Host(cpus=64, gpus=8, memory=10**12, gpu_memory=16 * 10**9, bf16=False)))
    placement = placed(resources=old, size="10M").placement
    assert (placement.device, placement.precision) == ("cuda", "fp32")
    with pytest.raises(InputError, match=r"launch\.precision=bf16: a GPU here has no bf16"):
        placed("launch.precision=bf16", resources=old, size="10M")


def test_model_states_follow_the_published_table():
    """Rajbhandari et al. 2020, figure 1: 7.5 B parameters on 64 devices: 120, 31.4, 16.6 and 1.9 GB."""
    published = {0: 120.0, 1: 31.4, 2: 16.6, 3: 1.9}
    for stage, gigabytes in published.items():
        assert model_states(7_500_000_000, stage, 64, "bf16") / 1e9 == pytest.approx(gigabytes, rel=0.02)
