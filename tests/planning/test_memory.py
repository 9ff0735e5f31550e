"""The memory estimate: moments of a step worked by hand, and what earlier results say of it."""

from dataclasses import replace

import pytest

from amscale.config import TrainSettings
from amscale.models import solve
from amscale.models.families.gpt2 import GPT2Settings
from amscale.planning.memory import compare_memory, estimate_memory, loss_copies
from amscale.trials.records import (
    Placement,
    ResultData,
    ResultEngine,
    ResultFlops,
    ResultLosses,
    ResultMemory,
    ResultParameters,
    ResultShape,
    TrialResult,
)

SHAPE = solve(GPT2Settings(layers=2, width=64, heads=2, dropout=0.0), 100, 8)
P = SHAPE.parameters.total
TRAIN = TrainSettings(steps=1, learning_rate=1e-3)


def placed(stage: int, world: int, precision="fp32", device="cpu", micro_batch: int = 1) -> Placement:
    return Placement(1, world, 1, device, stage, precision, micro_batch, accumulation=2)


@pytest.mark.parametrize(
    ("stage", "world", "precision", "bytes_per_parameter"),
    [
        # Worked by hand at the end of a backward pass, where activations are gone.
        (0, 2, "fp32", 4 + 8 + 4 + 4),  # weights, moments, gradients, what is all-reduced
        (1, 1, "fp32", 4 + 12 + 4 + 4 + 4),  # also the float32 copy of the weights and the bucket
        (1, 2, "fp32", 4 + 6 + 4 + 4 + 4),
        (2, 1, "fp32", 4 + 12 + 4 + 4 + 4),
        (2, 2, "fp32", 4 + 6 + 2 + 4 + 4),
        (3, 1, "fp32", 4 + 12 + 4 + 4 + 4 + 4),  # also the gathered weights
        (3, 2, "fp32", 2 + 6 + 2 + 4 + 4 + 8),  # gathered, and twice ahead
        (1, 1, "bf16", 2 + 12 + 4 + 4 + 2 + 4),  # sums and bucket in float32, new gradients in bf16
    ],
)
def test_what_deepspeed_holds(stage, world, precision, bytes_per_parameter):
    large = replace(SHAPE, parameters=replace(SHAPE.parameters, feed_forward=40_000_000))
    estimate = estimate_memory(large, placed(stage, world, precision), TRAIN)
    assert estimate.tensors / large.parameters.total == pytest.approx(bytes_per_parameter, rel=0.01)


def test_activations_count_while_they_are_held():
    small, large = (estimate_memory(SHAPE, placed(0, 1, micro_batch=m), TRAIN) for m in (512, 1024))
    assert large.states == small.states == 16 * P
    assert large.activations == pytest.approx(2 * small.activations)


def test_copies_of_the_logits():
    """As measured with PyTorch's own functions below 2^24 logits, and in pieces from there on."""
    settings = [(0.0, 0.0), (1e-4, 0.0), (0.0, 0.1), (1e-4, 0.1)]
    for logits, copies in ((2**24 - 1, [3, 5, 4, 6]), (2**24, [2, 4, 4, 5])):
        found = [loss_copies(logits, replaced(z_loss=z, label_smoothing=s)) for z, s in settings]
        assert found == copies


def replaced(**changes: float) -> TrainSettings:
    return TRAIN.model_copy(update=changes)


def result(measured: float | None, world: int = 2) -> TrialResult:
    counts = SHAPE.parameters.as_dict()
    memory = ResultMemory(before_model_bytes=1e8, peak_private_bytes=measured and 1e8 + measured)
    engine = ResultEngine(
        world_size=world, zero_stage=1, precision="fp32", micro_batch=2000, accumulation=2, device="cpu"
    )
    return TrialResult(
        state="finished",
        steps=1,
        shape=ResultShape(),
        parameters=ResultParameters(**counts),
        flops=ResultFlops(total=1),
        data=ResultData(unique_tokens=1),
        losses=ResultLosses(),
        memory=memory,
        engine=engine,
    )


def test_earlier_results_correct_the_estimate():
    estimated = estimate_memory(SHAPE, placed(1, 2, micro_batch=2000), TRAIN).training
    assert estimated > 50e6
    found = [(SHAPE, TRAIN, result(ratio * estimated)) for ratio in (1.1, 1.3)]
    old, tiny = (SHAPE, TRAIN, result(None)), (SHAPE, TRAIN, result(1e6))
    comparison = compare_memory([*found, old, tiny])["cpu"]
    assert comparison.factor == pytest.approx(1.2)
    assert comparison.describe() == (
        "Memory: 2 trials of this sweep took 1.10 to 1.30 times what was estimated (cpu); the estimates are multiplied "
        "by 1.20."
    )
    assert compare_memory([old, tiny]) == {}
