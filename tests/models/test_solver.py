"""From a wanted size to a shape."""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amscale.errors import InputError
from amscale.models import solve
from amscale.models.families.gpt2 import GPT2Settings
from amscale.models.families.vanilla import VanillaSettings
from amscale.models.sizing import _candidates

sizes = st.floats(math.log(2.2e5), math.log(1e10)).map(lambda x: int(math.exp(x)))


@pytest.mark.parametrize("family", [VanillaSettings, GPT2Settings])
@given(size=sizes, count=st.sampled_from(["non_embedding", "non_embedding_with_norms"]))
@settings(max_examples=60, deadline=None)
def test_every_size_is_reached_within_three_percent(family, size, count):
    shape = solve(family(size=size, count=count), 1000, 256)
    assert abs(shape.parameters.under(count) / size - 1) <= 0.03
    assert shape.wanted == size
    assert shape.width % shape.heads == 0
    assert shape.feed_forward == 4 * shape.width
    assert 8 <= shape.width / shape.heads <= 128


@pytest.mark.parametrize(
    "size", ["10k", "12.5k", "20k", "25k", "30k", "40k", "50k", "60k", "80k", "90k", "100k", "128k", "150k", "200k"]
)
def test_round_tiny_sizes_are_reached_with_sensible_shapes(size):
    shape = solve(VanillaSettings(size=size), 68, 64)
    assert abs(shape.reached / shape.wanted - 1) <= 0.03
    assert 1 <= shape.layers <= 6
    assert 16 <= shape.width <= 96


@given(pair=st.tuples(sizes, st.floats(1.0001, 1.2)))
@settings(max_examples=80, deadline=None)
def test_a_larger_size_never_gives_a_smaller_model(pair):
    size, ratio = pair
    small, large = (solve(VanillaSettings(size=int(n)), 68, 64) for n in (size, size * ratio))
    assert large.reached >= small.reached


@pytest.mark.parametrize(("size", "low", "high"), [("100k", 8, 30), ("10M", 30, 60), ("1B", 64, 128), ("10B", 96, 160)])
def test_shapes_look_like_those_of_the_field(size, low, high):
    shape = solve(VanillaSettings(size=size), 50257, 1024)
    assert low <= shape.width / shape.layers <= high
    if shape.wanted >= 10**9:
        assert shape.width / shape.heads == 64


def test_published_sizes_of_gpt2():
    totals = {"small": 124_439_808, "medium": 354_823_168, "large": 774_030_080, "xl": 1_557_611_200}
    for name, total in totals.items():
        shape = solve(GPT2Settings(size=name), 50257, 1024)
        assert shape.parameters.total == total
        assert shape.wanted is None
    assert shape.describe() == "48 x 1600, 25 heads"


def test_the_papers_vanilla_sizes():
    for layers, published in ((6, 18.9e6), (10, 31.5e6)):
        shape = solve(VanillaSettings(layers=layers, width=512), 68, 64)
        assert shape.heads == 8
        assert shape.parameters.under("non_embedding") == pytest.approx(published, rel=0.003)


def test_given_dimensions_stay():
    assert solve(VanillaSettings(size="1M", layers=4), 68, 64).layers == 4
    assert solve(VanillaSettings(size="1M", width=128), 68, 64).width == 128
    shape = solve(VanillaSettings(size="1M", heads=6), 68, 64)
    assert shape.heads == 6
    assert abs(shape.reached / 1e6 - 1) <= 0.03


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (VanillaSettings(), ["model.size", "model.layers"]),
        (VanillaSettings(size="10"), ["model.size = 10", "below: none", "above: "]),
        (VanillaSettings(size="1M", width=960), ["model.size = 1M", "model.width = 960", "nearest below"]),
        (VanillaSettings(size="1M", layers=2, width=64), ["model.size", "model.layers = 2", "drop"]),
        (VanillaSettings(layers=2, width=64, heads=5), ["model.heads = 5", "model.width = 64"]),
        (VanillaSettings(layers=2, width=33, heads=3), ["model.width = 33", "even"]),
        (VanillaSettings(layers=2, width=66, heads=6, positions="rotary"), ["rotary", "model.heads"]),
        (GPT2Settings(size="small", layers=3), ["model.size = small", "drop model.layers"]),
    ],
)
def test_errors_name_what_was_given_and_what_to_do(model, words):
    with pytest.raises(InputError) as error:
        solve(model, 68, 64)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_the_nearest_sizes_of_an_error_are_reachable():
    with pytest.raises(InputError) as error:
        solve(VanillaSettings(size="9k"), 68, 64)
    below, above = str(error.value).split("nearest below: ")[1].split(";")[0].split(", above: ")
    assert solve(VanillaSettings(size=below), 68, 64).reached < 9000
    assert solve(VanillaSettings(size=above), 68, 64).reached > 9000


def test_ten_thousand_plans_list_their_shapes_once():
    """The shapes that the rules allow are listed and counted once for each vocabulary, whatever the sizes."""
    _candidates.cache_clear()
    for index in range(10_000):
        solve(VanillaSettings(size=300_001 + 1009 * index), 68 + index % 5, 64)
    assert _candidates.cache_info().misses == 5


def test_importing_is_light():
    code = (
        "import sys, amscale.models, amscale.config; "
        "print({'torch', 'transformers', 'scipy', 'pandas'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"
