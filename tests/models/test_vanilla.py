"""The vanilla family against PyTorch's encoder, its positions, and the memory of its variations."""

import itertools
import math

import pytest
import torch
from torch import nn

from amscale.models import activation_bytes, build, solve
from amscale.models.families.vanilla import VanillaSettings


def made(**settings):
    shape = solve(VanillaSettings(**settings), 68, 32)
    torch.manual_seed(0)
    return shape, build(shape)


@pytest.mark.parametrize("place", ["post", "pre"])
def test_vanilla_equals_torchs_encoder(place):
    shape, model = made(layers=3, width=48, heads=4, norm_position=place)
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
    inputs = torch.randint(68, (4, 32), generator=torch.Generator().manual_seed(1))
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
        _, model = made(layers=2, width=64, positions=positions, dropout=0.0)
        logits = model.eval()(torch.full((1, 32), 7))
        torch.testing.assert_close(logits, logits[:, :1].expand_as(logits), atol=1e-4, rtol=1e-3)
    module = made(layers=1, width=64, positions="rotary")[1].layers[0].attention.rotary
    q, k = torch.randn(1, 1, 1, 16).expand(1, 1, 32, 16), torch.randn(1, 1, 1, 16).expand(1, 1, 32, 16)
    scores = module(q)[0, 0] @ module(k)[0, 0].T
    torch.testing.assert_close(scores[:-1, :-1], scores[1:, 1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize(
    "options",
    [{"positions": "rotary"}, {"positions": "relative"}, {"norm": "rmsnorm"}, {"norm_position": "pre"}],
    ids=str,
)
def test_activation_memory_of_the_variations(kept_bytes, options, dropout):
    shape = solve(VanillaSettings(layers=4, width=128, dropout=dropout, **options), 500, 64)
    assert activation_bytes(shape, 2, 4, "cpu") == pytest.approx(kept_bytes(shape, 2, torch.float32), rel=0.1)
