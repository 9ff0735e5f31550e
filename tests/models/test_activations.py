"""Activations that are exchanged for one kernel are the same function."""

import torch
from transformers.activations import ACT2FN

from amscale.models import build, solve
from amscale.models.hub_settings import HubSettings
from amscale.models.networks.activations import fuse_activations


def test_the_kernel_is_the_formula_with_tanh():
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    for name in ("gelu_new", "gelu_fast"):
        holder = torch.nn.Sequential(ACT2FN[name])
        expected = holder(x)
        fuse_activations(holder)
        assert type(holder[0]) is torch.nn.GELU
        torch.testing.assert_close(holder(x), expected, atol=1e-13, rtol=1e-13 if name == "gelu_new" else 1e-7)
        single = x.float()
        torch.testing.assert_close(holder(single), expected.float(), atol=1e-6, rtol=1e-6)


def test_hub_architectures_have_it():
    network = build(solve(HubSettings(architecture="gpt_neo", layers=2, width=64), 50, 16))
    kinds = {type(module).__name__ for module in network.modules()}
    assert "GELU" in kinds
    assert "NewGELUActivation" not in kinds
