"""The networks against their analytic counts and against independent implementations."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from amscale.models import attention_names, build, final_norm_name, residual_names, solve
from amscale.models.families.gpt2 import GPT2Settings
from amscale.models.families.openelm import OpenELMSettings
from amscale.models.families.vanilla import VanillaSettings

VARIANTS = [
    VanillaSettings(layers=2, width=64, norm_position=place, positions=positions, norm=norm, dropout=0.0)
    for place, positions, norm in itertools.product(
        ("post", "pre"), ("sinusoidal", "learned", "rotary", "relative"), ("layernorm", "rmsnorm")
    )
]
OPENELM = OpenELMSettings(layers=2, width=64, head_dimension=8, feed_forward_divisor=8, dropout=0.0)
VARIANTS += [GPT2Settings(layers=2, width=64, dropout=0.0), OPENELM]


def name_of(model):
    return "-".join(str(getattr(model, key, "")) for key in ("family", "norm_position", "positions", "norm"))


variants = pytest.mark.parametrize("model_settings", VARIANTS, ids=name_of)


def made(model_settings, vocabulary=68, context=32, seed=0):
    shape = solve(model_settings, vocabulary, context)
    torch.manual_seed(seed)
    return shape, build(shape)


def tokens(vocabulary, batch=4, length=32):
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))


def component(name):
    parts = set(name.split("."))
    if parts & {"query_norm", "key_norm"}:
        return "norms_and_rest"
    if parts & {"embedding", "positions", "relative_bias", "wte", "wpe"}:
        return "embedding"
    if parts & {"attention", "attn"}:
        return "attention"
    if parts & {"feed_forward", "mlp"}:
        return "feed_forward"
    return "output_head" if "head" in parts else "norms_and_rest"


@given(
    base=st.sampled_from(VARIANTS),
    layers=st.integers(1, 3),
    heads=st.integers(1, 4),
    head_dimension=st.sampled_from([2, 6, 8]),
    vocabulary=st.integers(2, 90),
    context=st.integers(1, 40),
)
@settings(max_examples=50, deadline=None)
def test_counts_are_exact_by_component(base, layers, heads, head_dimension, vocabulary, context):
    fixed = base.model_copy(update={"layers": layers, "width": heads * head_dimension, "heads": heads})
    shape, model = made(fixed, vocabulary, context)
    counted = dict.fromkeys(("embedding", "output_head", "attention", "feed_forward", "norms_and_rest"), 0)
    for name, parameter in model.named_parameters():
        counted[component(name)] += parameter.numel()
    assert shape.parameters.as_dict() == {**counted, "total": sum(p.numel() for p in model.parameters())}
    assert shape.parameters.tied == (shape.family in ("gpt2", "openelm"))


@variants
def test_the_future_is_not_seen(model_settings):
    _, model = made(model_settings)
    model.eval()
    before = tokens(68)
    after = before.clone()
    after[:, 20] = (after[:, 20] + 1) % 68
    with torch.no_grad():
        left, right = model(before), model(after)
    assert left.shape == (4, 32, 68)
    torch.testing.assert_close(left[:, :20], right[:, :20])
    assert not torch.allclose(left[:, 20:], right[:, 20:], atol=1e-4)


@variants
def test_order_matters(model_settings):
    """Positions reach the logits: swapping two past tokens changes what follows."""
    _, model = made(model_settings)
    model.eval()
    before = tokens(68)
    before[:, 3], before[:, 9] = 5, 6
    after = before.clone()
    after[:, 3], after[:, 9] = 6, 5
    with torch.no_grad():
        assert not torch.allclose(model(before)[:, -1], model(after)[:, -1], atol=1e-4)


@pytest.mark.parametrize("width", [32, 512])
@pytest.mark.parametrize("vocabulary", [32, 5000])
@pytest.mark.parametrize("base", [VARIANTS[0], VARIANTS[8], *VARIANTS[-2:]], ids=name_of)
def test_the_first_loss_is_that_of_a_uniform_guess(base, width, vocabulary):
    _, model = made(base.model_copy(update={"width": width}), vocabulary)
    inputs = tokens(vocabulary, batch=8)
    targets = torch.randint(vocabulary, (8 * 32,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets).item()
    # A published initial deviation of 0.02 shows in a wide model with few tokens: its logits' variance is width / 2500.
    assert loss == pytest.approx(math.log(vocabulary), rel=0.02 if vocabulary == 5000 or width == 32 else 0.06)


@variants
def test_construction_follows_the_seed_and_bfloat16_works(model_settings):
    _, first = made(model_settings, seed=3)
    _, second = made(model_settings, seed=3)
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)
    exact = first(tokens(68))
    half = second.to(torch.bfloat16)(tokens(68))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.06, rtol=0.05)
    half.sum().backward()
    assert all(p.grad is not None for p in second.parameters())
    for parameter in first.parameters():  # as engines do that leave buffers in float32
        parameter.data = parameter.data.to(torch.bfloat16)
    torch.testing.assert_close(first(tokens(68)), exact, atol=0.06, rtol=0.05)


@pytest.mark.parametrize("place", ["post", "pre"])
def test_vanilla_equals_torchs_encoder(place):
    shape, model = made(VanillaSettings(layers=3, width=48, heads=4, norm_position=place))
    model.eval()
    for parameter in model.parameters():  # biases and norms away from 0 and 1, so that a forgotten one shows
        parameter.data += 0.1 * torch.randn_like(parameter)
    layer = nn.TransformerEncoderLayer(48, 4, 192, activation="relu", batch_first=True, norm_first=place == "pre")
    final = nn.LayerNorm(48) if place == "pre" else None
    reference = nn.TransformerEncoder(layer, 3, norm=final, enable_nested_tensor=False).eval()
    for source, target in zip(model.layers, reference.layers, strict=True):
        target.self_attn.in_proj_weight.data.copy_(source.attention.qkv.weight)
        target.self_attn.in_proj_bias.data.copy_(source.attention.qkv.bias)
        target.self_attn.out_proj.load_state_dict(source.attention.output.state_dict())
        target.linear1.load_state_dict(source.feed_forward.up.state_dict())
        target.linear2.load_state_dict(source.feed_forward.down.state_dict())
        target.norm1.load_state_dict(source.attention_norm.state_dict())
        target.norm2.load_state_dict(source.feed_forward_norm.state_dict())
    if final is not None:
        final.load_state_dict(model.final_norm.state_dict())
    inputs = tokens(68)
    table = torch.zeros(32, 48)
    for t, k in itertools.product(range(32), range(24)):
        angle = t / 10000 ** (2 * k / 48)
        table[t, 2 * k], table[t, 2 * k + 1] = math.sin(angle), math.cos(angle)
    mask = nn.Transformer.generate_square_subsequent_mask(32)
    with torch.no_grad():
        x = reference(model.embedding(inputs) * math.sqrt(48) + table, mask=mask, is_causal=True)
        expected = x @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(model(inputs), expected, atol=2e-5, rtol=1e-4)
    assert shape.describe() == "3 x 48, 4 heads"


def test_relative_and_rotary_scores_depend_on_distance_alone():
    """Absolute positions would tell the places of one repeated token apart; distances to equal keys do not."""
    for positions in ("relative", "rotary"):
        _, model = made(VanillaSettings(layers=2, width=64, positions=positions, dropout=0.0))
        logits = model.eval()(torch.full((1, 32), 7))
        torch.testing.assert_close(logits, logits[:, :1].expand_as(logits), atol=1e-4, rtol=1e-3)
    module = build(solve(VanillaSettings(layers=1, width=64, positions="rotary"), 68, 32)).layers[0].attention.rotary
    q, k = torch.randn(1, 1, 1, 16).expand(1, 1, 32, 16), torch.randn(1, 1, 1, 16).expand(1, 1, 32, 16)
    scores = module(q)[0, 0] @ module(k)[0, 0].T
    torch.testing.assert_close(scores[:-1, :-1], scores[1:, 1:], atol=1e-4, rtol=1e-4)


def test_gpt2_equals_the_librarys_model():
    from transformers import GPT2Config, GPT2LMHeadModel

    _, model = made(GPT2Settings(layers=2, width=64, heads=4))
    config = GPT2Config(vocab_size=68, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    reference = GPT2LMHeadModel(config)
    reference.load_state_dict(model.model.state_dict())
    with torch.no_grad():
        expected = reference.eval()(input_ids=tokens(68)).logits
        torch.testing.assert_close(model.eval()(tokens(68)), expected, atol=1e-5, rtol=1e-4)


@variants
def test_the_named_modules_carry_the_residual_stream(model_settings):
    """The last named output, after the final norm if there is one, gives the logits through the output head."""
    shape, model = made(model_settings)
    model.eval()
    seen = {}
    for name in [*residual_names(model), *attention_names(model)]:
        model.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: out[0] if isinstance(out, tuple) else out})
        )
    with torch.no_grad():
        logits = model(tokens(68))
        assert list(seen) == [
            n for pair in zip(attention_names(model), residual_names(model), strict=True) for n in pair
        ]
        assert all(x.shape == (4, 32, 64) for x in seen.values())
        x = seen[residual_names(model)[-1]]
        norm = final_norm_name(model)
        assert (norm is None) == (getattr(model_settings, "norm_position", "pre") == "post")
        x = x if norm is None else model.get_submodule(norm)(x)
        head = model.model.lm_head if shape.family == "gpt2" else model.head
        torch.testing.assert_close(head(x), logits)


@variants
def test_a_sequence_beyond_the_context_is_refused(model_settings):
    _, model = made(model_settings, context=16)
    with pytest.raises(ValueError, match="context of 16"):
        model(tokens(68, length=17))
