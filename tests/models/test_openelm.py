"""The openelm family: published shapes, released checkpoints, and an independent implementation."""

import math

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from amscale.errors import InputError
from amscale.models import build, solve
from amscale.models.families.openelm import OpenELMSettings, feed_forward_widths, query_heads
from amscale.models.networks.openelm import load_released

TINY = {"head_dimension": 8, "feed_forward_divisor": 16}


@pytest.mark.parametrize(("name", "widths", "millions"), [("model_1", 10_240, 39.95), ("model_3", 14_592, 80.20)])
def test_published_shapes_have_their_published_size(name, widths, millions):
    """With the printed heads and these sums of widths; the paper counts norms."""
    shape = solve(OpenELMSettings(size=name), 50257, 1024)
    assert feed_forward_widths(shape.layers, shape.width, shape.options).sum() == widths
    assert round(shape.parameters.under("non_embedding_with_norms") / 1e6, 2) == millions


def test_model_2_misses_its_published_size():
    shape = solve(OpenELMSettings(size="model_2"), 50257, 1024)
    size = shape.parameters.under("non_embedding_with_norms")
    assert round(size / 1e6, 2) == 60.48
    step = 3 * 1280 * 256  # one more or less multiple of 256 in one layer
    assert abs(size - 60.26e6) < abs(size - step - 60.26e6)
    assert shape.width == 1280
    assert query_heads(8, 1280, shape.options).tolist() == [6, 6, 6, 6, 8, 8, 8, 10]


@pytest.mark.parametrize(
    ("width", "layers", "head_dimension", "total"),
    [
        (1280, 16, 64, 271_527_168),
        (1536, 20, 64, 457_179_136),
        (2048, 28, 64, 1_079_891_456),
        (3072, 36, 128, 3_036_647_424),
    ],
)
def test_released_models_have_their_number_of_parameters(width, layers, head_dimension, total):
    """OpenELM 270M, 450M, 1.1B and 3B."""
    settings = OpenELMSettings(width=width, layers=layers, head_dimension=head_dimension, queries_per_key=4)
    assert solve(settings, 32000, 2048).parameters.total == total


@pytest.mark.parametrize("size", ["10M", "100M", "1B"])
def test_sizes_are_reached(size):
    shape = solve(OpenELMSettings(size=size), 50257, 1024)
    assert abs(shape.reached / shape.wanted - 1) <= 0.03
    heads = query_heads(shape.layers, shape.width, shape.options)
    assert (heads % 2 == 0).all()
    assert heads[0] < heads[-1] == shape.heads
    assert abs(heads[0] * 64 - 0.5 * shape.width) <= 128  # in whole pairs of heads
    assert abs(heads[-1] * 64 - shape.width) <= 128


def released_names(shape, seed=0):
    """A state dict in the layout of the released checkpoints, random, norms away from 1."""
    options, generator = shape.options, torch.Generator().manual_seed(seed)
    d, k = shape.width, options.head_dimension
    state = {"transformer.token_embeddings.weight": (shape.vocabulary, d), "transformer.norm.weight": (d,)}
    heads = query_heads(shape.layers, d, options)
    for i, (q, f) in enumerate(zip(heads, feed_forward_widths(shape.layers, d, options), strict=True)):
        layer = f"transformer.layers.{i}."
        kv = q // options.queries_per_key
        state |= {
            f"{layer}attn.qkv_proj.weight": ((q + 2 * kv) * k, d),
            f"{layer}attn.out_proj.weight": (d, q * k),
            f"{layer}attn.q_norm.weight": (k,),
            f"{layer}attn.k_norm.weight": (k,),
            f"{layer}ffn.proj_1.weight": (2 * f, d),
            f"{layer}ffn.proj_2.weight": (d, f),
            f"{layer}attn_norm.weight": (d,),
            f"{layer}ffn_norm.weight": (d,),
        }
    return {
        name: 0.2 * torch.randn(tuple(map(int, size)), generator=generator) + (1 if len(size) == 1 else 0)
        for name, size in state.items()
    }


def reference(state, tokens, layers, heads, keys, k):
    """OpenELM of one sequence, written out with loops over heads and positions."""

    def norm(x, weight):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * weight

    def rotate(x, t):
        out = x.clone()
        for j in range(k // 2):
            angle = t / 10000 ** (2 * j / k)
            a, b = x[j], x[j + k // 2]
            out[j] = a * math.cos(angle) - b * math.sin(angle)
            out[j + k // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    embedding = state["transformer.token_embeddings.weight"]
    x = embedding[tokens]
    for i in range(layers):
        w = {n.removeprefix(f"transformer.layers.{i}."): v for n, v in state.items() if f".layers.{i}." in n}
        qkv = (norm(x, w["attn_norm.weight"]) @ w["attn.qkv_proj.weight"].T).unflatten(-1, (-1, k))
        q, g = heads[i], keys[i]
        mixed = torch.zeros(len(tokens), q * k)
        for h in range(q):
            key_head = q + h // (q // g)
            for t in range(len(tokens)):
                query = rotate(norm(qkv[t, h], w["attn.q_norm.weight"]), t)
                ks = [rotate(norm(qkv[s, key_head], w["attn.k_norm.weight"]), s) for s in range(t + 1)]
                p = torch.softmax(torch.stack([query @ key for key in ks]) / math.sqrt(k), 0)
                mixed[t, h * k : (h + 1) * k] = p @ qkv[: t + 1, key_head + g]
        x = x + mixed @ w["attn.out_proj.weight"].T
        gate, value = (norm(x, w["ffn_norm.weight"]) @ w["ffn.proj_1.weight"].T).chunk(2, -1)
        x = x + (gate * torch.sigmoid(gate) * value) @ w["ffn.proj_2.weight"].T
    return norm(x, state["transformer.norm.weight"]) @ embedding.T


@pytest.mark.parametrize("queries_per_key", [1, 2, 4])
def test_a_released_checkpoint_gives_the_references_logits(tmp_path, queries_per_key):
    settings = OpenELMSettings(layers=3, width=64, queries_per_key=queries_per_key, pretrained=str(tmp_path), **TINY)
    shape = solve(settings, 40, 10)
    state = released_names(shape)
    save_file(state, tmp_path / "model.safetensors")
    model = build(shape).eval()
    tokens = torch.randint(40, (10,), generator=torch.Generator().manual_seed(1))
    heads = query_heads(3, 64, shape.options).tolist()
    assert heads[0] < heads[-1]
    expected = reference(state, tokens, 3, heads, [h // queries_per_key for h in heads], 8)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens[None])[0], expected, atol=2e-4, rtol=1e-4)


def test_a_checkpoint_of_another_shape_is_refused(tmp_path):
    shape = solve(OpenELMSettings(layers=2, width=64, **TINY), 40, 10)
    state = released_names(shape)
    save_file(state | {"transformer.layers.2.attn_norm.weight": torch.ones(64)}, tmp_path / "more.safetensors")
    with pytest.raises(InputError, match=r"layers\.2.* no place"):
        load_released(build(shape), tmp_path / "more.safetensors")
    state["transformer.norm.weight"] = torch.ones(32)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"transformer\.norm\.weight is \(32,\)"):
        load_released(build(shape), tmp_path / "other.safetensors")


def test_settings_that_contradict_each_other():
    with pytest.raises(ValidationError, match="model_1 fixes head_dimension"):
        OpenELMSettings(size="model_1", head_dimension=32)
    with pytest.raises(ValidationError, match="drop heads"):
        OpenELMSettings(size="10M", heads=4)
    with pytest.raises(ValidationError, match="one of model_1, model_2, model_3"):
        OpenELMSettings(size="model_4")
