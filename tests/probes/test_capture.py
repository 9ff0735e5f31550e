"""Capture of named modules, and the context that leaves training untouched."""

import pytest
import torch
from torch import nn

from amscale.errors import InputError
from amscale.probes.capture import capture, preserved


class Pair(nn.Module):
    """A layer that returns a tuple whose first member is the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x), "cache"


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), Pair()
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)

    def forward(self, x):
        return self.norm(self.dropout(self.second(torch.relu(self.first(x)))[0]))


class Wrapper(nn.Module):
    def __init__(self, module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("wrap", [lambda m: m, Wrapper, lambda m: Wrapper(Wrapper(m))])
def test_capture_equals_the_hidden_states_by_hand(wrap):
    network, x = Network(), torch.randn(3, 4)
    model = wrap(network)
    with capture(model, ["second", "first"]) as records:
        model(x)
        model(2 * x)
    assert list(records) == ["second", "first"]
    hidden = network.first(2 * x)
    torch.testing.assert_close(records["first"][1], hidden, rtol=0, atol=0)
    torch.testing.assert_close(records["second"][1], network.second.linear(hidden.relu()), rtol=0, atol=0)
    assert not records["first"][0].requires_grad
    assert hooks(model) == 0
    model(x)
    assert len(records["first"]) == 2


def test_hooks_go_when_the_forward_pass_fails():
    model = Network()

    def fail():
        with capture(model, ["first", "second"]):
            assert hooks(model) == 2
            model(torch.randn(3, 5))

    with pytest.raises(RuntimeError, match="shapes"):
        fail()
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("names", "message"), [(["first", "third"], "no module 'third'"), ([], "at least one"), (["module.first"], "first")]
)
def test_unknown_names_are_errors_and_leave_no_hook(names, message):
    model = Network()
    with pytest.raises(InputError, match=message), capture(model, names):
        pass
    assert hooks(model) == 0


def test_an_output_without_a_tensor_is_an_error():
    class Words(nn.Module):
        def forward(self, x):
            return {"x": x}

    model = nn.Sequential(Words())
    with pytest.raises(InputError, match="returns dict"), capture(model, ["0"]):
        model(torch.zeros(1))


@pytest.mark.parametrize("fails", [False, True])
def test_preserved_restores_flags_random_state_and_gradients(fails):
    model, x = Network(), torch.randn(3, 4)
    model(x).sum().backward()
    model.second.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()

    def inside():
        with preserved(model):
            assert not any(module.training for module in model.modules())
            torch.rand(7)
            assert not model(x).requires_grad
            if fails:
                raise KeyError("inside")

    if fails:
        with pytest.raises(KeyError):
            inside()
    else:
        inside()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert [name for name, module in model.named_modules() if not module.training] == ["second", "second.linear"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
