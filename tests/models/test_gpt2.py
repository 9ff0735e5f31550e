"""The gpt2 family against the transformers library, from scratch and from published weights in a folder."""

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig

from amscale.errors import InputError
from amscale.models import build, solve
from amscale.models.families.gpt2 import GPT2Settings
from amscale.models.networks.activations import fuse_activations


def test_gpt2_equals_the_librarys_model():
    model = build(solve(GPT2Settings(layers=2, width=64, heads=4), 68, 32))
    tokens = torch.randint(68, (4, 32), generator=torch.Generator().manual_seed(1))
    config = GPT2Config(vocab_size=68, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    reference = GPT2LMHeadModel(config)
    reference.load_state_dict(model.model.state_dict())
    with torch.no_grad():
        expected = reference.eval()(input_ids=tokens).logits
        torch.testing.assert_close(model.eval()(tokens), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_pass_is_the_librarys_bit_for_bit(dropout):
    """Initial weights, logits and gradients, under dropout too, where the library's GELU is the same kernel."""
    shape = solve(GPT2Settings(layers=3, width=48, heads=3, dropout=dropout), 68, 32)
    torch.manual_seed(7)
    model = build(shape).train()
    torch.manual_seed(7)
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    size = {"vocab_size": 68, "n_positions": 32, "n_embd": 48, "n_layer": 3, "n_head": 3}
    reference = GPT2LMHeadModel(GPT2Config(**size, **rates, bos_token_id=None, eos_token_id=None)).train()
    ours, theirs = model.model.state_dict(), reference.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    fuse_activations(reference)
    tokens = torch.randint(68, (4, 32), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    logits = model(tokens)
    torch.manual_seed(3)
    expected = reference(input_ids=tokens).logits
    assert torch.equal(logits, expected)
    logits.square().sum().backward()
    expected.square().sum().backward()
    gradients = {name.removeprefix("model."): p.grad for name, p in model.named_parameters()}
    assert all(torch.equal(gradients[name], p.grad) for name, p in reference.named_parameters())


@pytest.fixture
def published(tmp_path):
    torch.manual_seed(5)
    size = {"vocab_size": 60, "n_positions": 24, "n_embd": 32, "n_layer": 3, "n_head": 4}
    model = GPT2LMHeadModel(GPT2Config(**size, layer_norm_epsilon=1e-3, bos_token_id=0, eos_token_id=0)).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    return tmp_path, model


@pytest.mark.parametrize("bare", [False, True], ids=["transformer.", "bare names"])
def test_logits_are_those_of_the_weights(published, bare):
    """Also in the layout of the first release: no prefix, and masks among the tensors. Fewer positions are enough."""
    folder, reference = published
    if bare:
        state = {name.removeprefix("transformer."): x for name, x in load_file(folder / "model.safetensors").items()}
        save_file(state | {"h.0.attn.bias": torch.ones(1, 1, 24, 24)}, folder / "model.safetensors")
    shape = solve(GPT2Settings(pretrained=str(folder)), 60, 16)
    assert (shape.layers, shape.width, shape.heads) == (3, 32, 4)
    model = build(shape).eval()
    assert shape.parameters.total == sum(p.numel() for p in model.parameters())
    tokens = torch.randint(60, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), reference(input_ids=tokens).logits, atol=1e-5, rtol=1e-4)
    assert model.model.lm_head.weight is model.model.transformer.wte.weight


def test_what_does_not_fit_is_refused(published, tmp_path_factory, monkeypatch):
    folder, _ = published
    with pytest.raises(InputError, match=r"vocabulary has 60 .* 50; give data\.tokenizer"):
        solve(GPT2Settings(pretrained=str(folder)), 50, 16)
    with pytest.raises(InputError, match=r"data\.context = 32.*24 positions"):
        solve(GPT2Settings(pretrained=str(folder)), 60, 32)
    with pytest.raises(ValidationError, match="pretrained fixes size"):
        GPT2Settings(pretrained=str(folder), size="small")
    other = tmp_path_factory.mktemp("llama")
    LlamaConfig(hidden_size=32).save_pretrained(other)
    with pytest.raises(InputError, match="a llama, not a GPT-2"):
        solve(GPT2Settings(pretrained=str(other)), 60, 16)
    shape = solve(GPT2Settings(pretrained=str(folder)), 60, 16)
    state = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in state.items() if "h.1" not in k}, folder / "model.safetensors")
    with pytest.raises(InputError, match="not the weights of its config"):
        build(shape)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        build(shape)
    with pytest.raises(InputError, match=r"model\.size is not given"):
        solve(GPT2Settings(), 60, 16)
