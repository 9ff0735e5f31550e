"""FLOPs and memory against what PyTorch counts."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from amscale.models import FLOPS_FORMULA, FLOPS_FORMULAS, activation_bytes, build, flops_per_token, solve
from amscale.models.families.gpt2 import GPT2Settings
from amscale.models.families.vanilla import VanillaSettings


@pytest.mark.parametrize("family", [VanillaSettings, GPT2Settings])
def test_matmul_flops_are_those_counted(family):
    """Against PyTorch's counter, which sees the matrix products of the forward and backward pass; attention, which it
    counts without the causal mask if at all, is added by summing keys over the queries."""
    shape = solve(family(layers=2, width=64, heads=4, dropout=0.0), 100, 32)
    model = build(shape)
    tokens = torch.randint(100, (2, 32))
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    counted = sum(n for op, n in counter.get_flop_counts()["Global"].items() if str(op) in ("aten.mm", "aten.addmm"))
    keys = sum(range(1, 33))  # query t meets t keys
    scores = 3 * 2 * (2 * keys * 64) * 2 * 2  # thrice, multiply-add, (QK and AV), layers, sequences
    assert flops_per_token(shape, "matmul") * tokens.numel() == counted + scores
    assert flops_per_token(shape) == flops_per_token(shape, FLOPS_FORMULA)


def test_formulas_are_named():
    shape = solve(GPT2Settings(size="small"), 50257, 1024)
    assert flops_per_token(shape, "6ND") == 6 * shape.parameters.under("non_embedding")
    assert set(FLOPS_FORMULAS) == {"6ND", "matmul"}
    with pytest.raises(ValueError, match="matmul, 6ND"):
        flops_per_token(shape, "12ND")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", [VanillaSettings, GPT2Settings])
@pytest.mark.parametrize(("width", "context", "vocabulary"), [(64, 128, 68), (256, 64, 4000)])
def test_activation_memory_is_near_what_is_saved(kept_bytes, family, dropout, dtype, width, context, vocabulary):
    shape = solve(family(layers=4, width=width, dropout=dropout), vocabulary, context)
    measured = kept_bytes(shape, 2, dtype)
    estimate = activation_bytes(shape, 2, dtype.itemsize, "cpu")
    assert estimate == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    "options",
    [{"positions": "rotary"}, {"positions": "relative"}, {"norm": "rmsnorm"}, {"norm_position": "pre"}],
    ids=str,
)
def test_activation_memory_of_the_variations(kept_bytes, options, dropout):
    shape = solve(VanillaSettings(layers=4, width=128, dropout=dropout, **options), 500, 64)
    assert activation_bytes(shape, 2, 4, "cpu") == pytest.approx(kept_bytes(shape, 2, torch.float32), rel=0.1)
