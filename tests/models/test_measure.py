"""What a family gets without formulas: its costs, measured on its network."""

import itertools

import pytest
import torch

from amscale.errors import InputError
from amscale.models import Dimensions, Family, activation_bytes, find_family, registry, solve
from amscale.models.families.openelm import OpenELMSettings
from amscale.models.families.vanilla import Vanilla, VanillaSettings

SETTINGS = [
    VanillaSettings(layers=4, width=64, norm_position=place, norm=norm, positions=positions, dropout=dropout)
    for place, norm, positions, dropout in itertools.product(
        ("post", "pre"), ("layernorm", "rmsnorm"), ("sinusoidal", "rotary", "relative"), (0.0, 0.1)
    )
] + [OpenELMSettings(layers=4, width=64, head_dimension=8, feed_forward_divisor=8, dropout=d) for d in (0.0, 0.1)]
METHODS = ("counts", "matmul_weights", "activations_per_token", "cpu_scores")


def without_formulas(family):
    """The family with the defaults of the interface for all that it writes as formulas."""
    defaults = {name: getattr(Family, name) for name in METHODS}
    return type("Measured", (type(family),), defaults)()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda s: "-".join(map(str, s.model_dump(exclude_unset=True).values()))
)
def test_measured_memory_is_near_what_is_saved(kept_bytes, monkeypatch, settings, dtype):
    shape = solve(settings, 500, 64)
    family = without_formulas(find_family(shape.family))
    assert family.matmul_weights(shape) == find_family(shape.family).matmul_weights(shape)
    monkeypatch.setattr(registry, "find_family", lambda name: family)
    estimate = activation_bytes(shape, 2, dtype.itemsize, "cpu")
    assert estimate == pytest.approx(kept_bytes(shape, 2, dtype), rel=0.1)


def test_measuring_leaves_the_random_state():
    shape = solve(VanillaSettings(layers=1, width=16, dropout=0.1), 20, 8)
    before = torch.random.get_rng_state()
    family = without_formulas(find_family("vanilla"))
    assert family.counts(shape).total == shape.parameters.total
    assert family.activations_per_token(shape, 4, 1) > 0
    assert torch.equal(torch.random.get_rng_state(), before)


class Reader(Vanilla):
    """A family whose network cannot be built without values."""

    counts = Family.counts

    def build(self, shape: Dimensions) -> torch.nn.Module:
        assert torch.ones(1).item() == 1
        return super().build(shape)


def test_a_network_that_reads_values_is_one_line():
    shape = solve(VanillaSettings(layers=1, width=16), 20, 8)
    with pytest.raises(
        InputError, match=r"meta device.*write the methods counts and matmul_weights of Reader"
    ) as error:
        Reader().counts(shape)
    assert "\n" not in str(error.value)
