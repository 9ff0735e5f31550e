"""Activations that are exchanged for one kernel are the same function."""

import torch
from transformers.activations import ACT2FN

from amscale.models import build, solve
from amscale.models.hub_settings import HubSettings
from amscale.models.networks.activations import TanhGELU, fuse_activations


def test_the_kernel_is_the_formula_with_tanh():
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    for name in ("gelu_new", "gelu_fast"):
        holder = torch.nn.Sequential(ACT2FN[name])
        expected = holder(x)
        fuse_activations(holder)
        assert isinstance(holder[0], torch.nn.GELU)
        torch.testing.assert_close(holder(x), expected, atol=1e-13, rtol=1e-13 if name == "gelu_new" else 1e-7)
        single = x.float()
        torch.testing.assert_close(holder(single), expected.float(), atol=1e-6, rtol=1e-6)


def test_in_compiled_code_it_is_the_same_function(monkeypatch):
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    expected = TanhGELU()(x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(TanhGELU()(x), expected, atol=1e-13, rtol=1e-13)


def test_hub_architectures_have_it():
    network = build(solve(HubSettings(architecture="gpt_neo", layers=2, width=64), 50, 16))
    kinds = {type(module).__name__ for module in network.modules()}
    assert "TanhGELU" in kinds
    assert "NewGELUActivation" not in kinds
