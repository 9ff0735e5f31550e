"""What every family owes: exact counts and costs, a causal network that starts at a uniform guess, named modules."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from amscale.config.schema import ModelSettings
from amscale.errors import InputError
from amscale.models import (
    FAMILIES,
    Family,
    activation_bytes,
    attention_names,
    build,
    final_norm_name,
    find_family,
    flops_per_token,
    output_head_name,
    residual_names,
    solve,
)

OPENELM = {"head_dimension": 8, "feed_forward_divisor": 8}
VARIANTS = {
    "vanilla": [
        {"norm_position": place, "positions": positions, "norm": norm}
        for place in ("post", "pre")
        for positions in ("sinusoidal", "learned", "rotary", "relative")
        for norm in ("layernorm", "rmsnorm")
    ],
    "openelm": [OPENELM, {**OPENELM, "queries_per_key": 4}],
    "hub": [
        {"architecture": "llama", "options": {"num_key_value_heads": 1}},
        {"architecture": "mixtral", "options": {"num_local_experts": 4}},
        {"architecture": "qwen3"},
        {"architecture": "gpt_neox"},
    ],
}
"""Settings of the families that have more than one form, or need some; every other family is tested as it is."""
OF_USERS = {"custom", "script"}
"""Families whose network a user brings (test_custom.py, ../training/test_script.py)."""
OURS = [name for name in FAMILIES if name not in OF_USERS]
EVERY = [(name, variant) for name in OURS for variant in VARIANTS.get(name, [{}])]
FIRST = [(name, VARIANTS.get(name, [{}])[0]) for name in OURS]
MEMORY_TOLERANCE = {"vanilla": 0.1, "gpt2": 0.1}
"""Relative, of the estimated activation memory; 0.25 where not named."""


def label(value):
    """The name of a variant in a test's name."""
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def has_dropout(name):
    return "dropout" in find_family(name).settings.model_fields


every = pytest.mark.parametrize(("name", "variant"), EVERY, ids=label)


def settings_of(name, variant, **dimensions):
    """Two layers of width 64 without dropout, but for what is given."""
    without = {"dropout": 0.0} if has_dropout(name) else {}
    return find_family(name).settings(**{"layers": 2, "width": 64} | without | variant | dimensions)


def made(name, variant, vocabulary=68, context=32, seed=0, **dimensions):
    shape = solve(settings_of(name, variant, **dimensions), vocabulary, context)
    torch.manual_seed(seed)
    return shape, build(shape)


def tokens(vocabulary=68, batch=4, length=32):
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))


def assert_counts_are_exact(shape, model):
    """In total against the parameters, by component and in ties against the modules that the parameters are in."""
    assert shape.parameters.total == sum(parameter.numel() for parameter in model.parameters())
    measured = Family.counts(find_family(shape.family), shape)
    assert replace(shape.parameters, active_feed_forward=None) == measured


@every
def test_counts_are_exact_by_component(name, variant):
    assert_counts_are_exact(*made(name, variant))


@given(
    base=st.sampled_from([(name, variant) for name, variant in EVERY if name != "hub"]),
    layers=st.integers(1, 3),
    heads=st.integers(1, 4),
    head_dimension=st.sampled_from([2, 6, 8]),
    vocabulary=st.integers(2, 90),
    context=st.integers(1, 40),
)
@settings(max_examples=50, deadline=None)
def test_counts_are_exact_whatever_the_dimensions(base, layers, heads, head_dimension, vocabulary, context):
    """Of formulas; the counts of hub are those of the network itself."""
    dimensions = {"layers": layers, "width": heads * head_dimension}
    if not find_family(base[0]).derives_heads:
        dimensions["heads"] = heads
    assert_counts_are_exact(*made(*base, vocabulary, context, **dimensions))


@pytest.mark.parametrize("size", ["10M", "100M"])
@pytest.mark.parametrize(("name", "variant"), FIRST, ids=label)
def test_sizes_are_reached(name, variant, size):
    given = {key: value for key, value in variant.items() if key == "architecture"}
    shape = solve(find_family(name).settings(size=size, **given), 50257, 1024)
    assert abs(shape.reached / shape.wanted - 1) <= 0.03


@every
def test_the_future_is_not_seen(name, variant):
    _, model = made(name, variant)
    model.eval()
    before = tokens()
    after = before.clone()
    after[:, 20] = (after[:, 20] + 1) % 68
    with torch.no_grad():
        left, right = model(before), model(after)
    assert left.shape == (4, 32, 68)
    torch.testing.assert_close(left[:, :20], right[:, :20])
    assert not torch.allclose(left[:, 20:], right[:, 20:], atol=1e-4)


@every
def test_order_matters(name, variant):
    """Positions reach the logits: swapping two past tokens changes what follows."""
    _, model = made(name, variant)
    model.eval()
    before = tokens()
    before[:, 3], before[:, 9] = 5, 6
    after = before.clone()
    after[:, 3], after[:, 9] = 6, 5
    with torch.no_grad():
        assert not torch.allclose(model(before)[:, -1], model(after)[:, -1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "variant", "width", "vocabulary"),
    [(*each, 64, 68) for each in EVERY]
    + [(*each, w, v) for each in FIRST for w, v in ((32, 32), (512, 32), (512, 5000))],
    ids=label,
)
def test_the_first_loss_is_that_of_a_uniform_guess(name, variant, width, vocabulary):
    _, model = made(name, variant, vocabulary, width=width)
    targets = torch.randint(vocabulary, (8 * 32,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        loss = F.cross_entropy(model.eval()(tokens(vocabulary, batch=8)).flatten(0, 1), targets).item()
    # A published initial deviation of 0.02 shows in a wide model with few tokens: its logits' variance is width / 2500.
    assert loss == pytest.approx(math.log(vocabulary), rel=0.06 if (width, vocabulary) == (512, 32) else 0.02)


@every
def test_construction_follows_the_seed_and_bfloat16_works(name, variant):
    _, first = made(name, variant, seed=3)
    _, second = made(name, variant, seed=3)
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)
    exact = first(tokens())
    half = second.to(torch.bfloat16)(tokens())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.06, rtol=0.05)
    half.sum().backward()
    assert all(p.grad is not None for p in second.parameters())
    for parameter in first.parameters():  # as engines do that leave buffers in float32
        parameter.data = parameter.data.to(torch.bfloat16)
    torch.testing.assert_close(first(tokens()), exact, atol=0.06, rtol=0.05)


@every
def test_the_named_modules_carry_the_residual_stream(name, variant):
    """The last named output, after the final norm if there is one, gives the logits through the output head."""
    _, model = made(name, variant)
    model.eval()
    seen = {}
    for module in [*residual_names(model), *attention_names(model)]:
        model.get_submodule(module).register_forward_hook(
            lambda _, __, out, module=module: seen.update({module: out[0] if isinstance(out, tuple) else out})
        )
    with torch.no_grad():
        logits = model(tokens())
        pairs = zip(attention_names(model), residual_names(model), strict=True)
        assert list(seen) == [module for pair in pairs for module in pair]
        assert all(x.shape == (4, 32, 64) for x in seen.values())
        x = seen[residual_names(model)[-1]]
        norm = final_norm_name(model)
        assert (norm is None) == (variant.get("norm_position") == "post")
        x = x if norm is None else model.get_submodule(norm)(x)
        torch.testing.assert_close(model.get_submodule(output_head_name(model))(x), logits)


@every
def test_a_sequence_beyond_the_context_is_an_error(name, variant):
    _, model = made(name, variant, context=16)
    with pytest.raises(ValueError, match="context of 16"):
        model(tokens(length=17))


class Scores(TorchFunctionMode):
    """Counts the multiply-adds of causal attention: each query with each key up to it, once for QK and once for AV."""

    multiply_adds = 0

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is F.scaled_dot_product_attention:
            batch, heads, length, dimension = arguments[0].shape
            self.multiply_adds += 2 * batch * heads * dimension * sum(range(1, length + 1))
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize(
    ("name", "variant"), [each for each in EVERY if each[1].get("architecture") != "mixtral"], ids=label
)
def test_matmul_flops_are_those_counted(name, variant):
    """Against PyTorch's counter, which sees the matrix products of the forward and backward pass, though not those of
    experts; attention, which it counts without the causal mask if at all, is counted by its calls."""
    shape, model = made(name, variant)
    with FlopCounterMode(display=False) as counter, Scores() as scores:
        F.cross_entropy(model(tokens()).flatten(0, 1), tokens().flatten()).backward()
    operations = counter.get_flop_counts()["Global"].items()
    products = sum(n for operation, n in operations if str(operation) in ("aten.mm", "aten.addmm"))
    assert scores.multiply_adds > 0
    assert flops_per_token(shape, "matmul") * tokens().numel() == products + 3 * 2 * scores.multiply_adds


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "context", "vocabulary"), [(64, 128, 68), (256, 64, 4000)])
@pytest.mark.parametrize(
    ("name", "variant"),
    [each for each in EVERY if each in FIRST or each[0] == "hub"]
    + [(name, {**variant, "dropout": 0.1}) for name, variant in FIRST if has_dropout(name)],
    ids=label,
)
def test_activation_memory_is_near_what_is_saved(kept_bytes, name, variant, dtype, width, context, vocabulary):
    shape = solve(settings_of(name, variant, layers=4, width=width), vocabulary, context)
    estimate = activation_bytes(shape, 2, dtype.itemsize, "cpu")
    assert estimate == pytest.approx(kept_bytes(shape, 2, dtype), rel=MEMORY_TOLERANCE.get(name, 0.25))


def test_settings_are_told_apart_by_family():
    adapter = TypeAdapter(ModelSettings)
    for name, variant in EVERY:
        tree = {"family": name, **variant}
        parsed = adapter.validate_python(tree)
        assert type(parsed) is find_family(name).settings
        assert adapter.validate_python(parsed.model_dump(mode="json")) == parsed
        assert all(field.description for field in type(parsed).model_fields.values())
    with pytest.raises(ValidationError, match=", ".join(f"'{name}'" for name in FAMILIES)):
        adapter.validate_python({"family": "lstm"})
    with pytest.raises(InputError, match=r"^model\.family='lstm'; allowed are vanilla, gpt2"):
        find_family("lstm")
