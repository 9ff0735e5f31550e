"""The hub family against the transformers library itself."""

import json
import subprocess
import sys

import pytest
import torch
import transformers
from pydantic import TypeAdapter

from amscale.config import expand, load
from amscale.config.schema import ModelSettings
from amscale.errors import InputError
from amscale.models import attention_names, build, flops_per_token, solve
from amscale.models.hub_settings import HubSettings
from amscale.trials.identity import trial_id

VARIANTS = {
    "llama": HubSettings(architecture="llama", layers=2, width=64, options={"num_key_value_heads": 1}),
    "mistral": HubSettings(architecture="mistral", layers=2, width=64, options={"sliding_window": 6}),
    "mixtral": HubSettings(architecture="mixtral", layers=2, width=64, options={"num_local_experts": 4}),
    "qwen3": HubSettings(architecture="qwen3", layers=2, width=64),
    "gpt_neox": HubSettings(architecture="gpt_neox", layers=2, width=64),
}
variants = pytest.mark.parametrize("name", VARIANTS)


def made(settings, vocabulary=50, context=16, seed=0):
    shape = solve(settings, vocabulary, context)
    torch.manual_seed(seed)
    return shape, build(shape)


def tokens(vocabulary=50, batch=4, length=16):
    return torch.randint(vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "cls", "fields"),
    [
        ("llama", "LlamaForCausalLM", {"num_key_value_heads": 1, "intermediate_size": 176}),
        ("mistral", "MistralForCausalLM", {"num_key_value_heads": 1, "intermediate_size": 224, "sliding_window": 6}),
        ("mixtral", "MixtralForCausalLM", {"num_key_value_heads": 1, "intermediate_size": 224, "num_local_experts": 4}),
    ],
)
def test_logits_are_the_librarys(name, cls, fields):
    """Against the class itself with its configuration written out, weights carried over by name."""
    _, model = made(VARIANTS[name])
    library = getattr(transformers, cls)
    config = library.config_class(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=16,
        bos_token_id=None, eos_token_id=None, pad_token_id=None, **fields,
    )  # fmt: skip
    theirs = library(config).eval()
    theirs.load_state_dict(model.model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(tokens()), theirs(input_ids=tokens()).logits, atol=1e-5, rtol=1e-4)


def test_a_sliding_window_is_as_long_as_it_says():
    """Two layers of a window of 6 see 11 tokens: this one and ten before it."""
    _, model = made(VARIANTS["mistral"])
    model.eval()
    before = tokens().clone()
    before[:, 4] = (before[:, 4] + 1) % 50
    with torch.no_grad():
        moved = (model(before) - model(tokens())).abs().amax((0, 2))
    assert (moved[4:15] > 1e-6).all()
    assert moved[15] < 1e-6


@variants
def test_counts_are_those_of_the_model(name):
    shape, model = made(VARIANTS[name])
    counts = shape.parameters
    assert counts.total == sum(p.numel() for p in model.parameters())
    layer = [
        (name.split(".", 2)[2], parameter.numel())
        for name, parameter in model.model.base_model.named_parameters()
        if name.startswith("layers.")
    ]
    assert counts.feed_forward == sum(n for part, n in layer if part.startswith("mlp"))
    attention = [n for part, n in layer if part.startswith(("self_attn.", "attention.")) and "norm" not in part]
    assert counts.attention == sum(attention)
    assert counts.embedding == 50 * 64
    assert counts.output_head == 50 * 64


def test_published_sizes():
    for name, total, active in (("llama", 6_738_415_616, None), ("mixtral", 46_702_792_704, 12_617_515_008)):
        counts = solve(HubSettings(architecture=name), 32000, 4096).parameters
        assert counts.total == total
        if active:
            assert counts.under("active") == active
            assert counts.under("non_embedding") > 3 * active
        else:
            assert counts.under("active") == counts.under("non_embedding")
    assert "active_feed_forward" in counts.as_dict()


@pytest.mark.parametrize(("name", "size"), [("llama", "300k"), ("llama", "1B"), ("mistral", "7M"), ("mixtral", "20M")])
def test_sizes_are_reached_and_proportions_kept(name, size):
    shape = solve(HubSettings(architecture=name, size=size), 1000, 256)
    assert abs(shape.reached / shape.wanted - 1) <= 0.03
    ratio = {"llama": 11008 / 4096, "mistral": 3.5, "mixtral": 3.5}[name]
    assert shape.feed_forward / shape.width == pytest.approx(ratio, rel=0.1)
    active = solve(HubSettings(architecture=name, size=size, count="active"), 1000, 256)
    assert (active.parameters.total > shape.parameters.total) == (name == "mixtral")


def test_layers_that_differ_are_counted_exactly_or_refused():
    """DeepSeek-V3 has three dense layers before those with experts."""
    experts = {"n_routed_experts": 8, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}
    shape, model = made(HubSettings(architecture="deepseek_v3", layers=5, width=64, options=experts))
    assert shape.parameters.total == sum(p.numel() for p in model.parameters())
    with pytest.raises(InputError, match=r"give model\.layers and model\.width"):
        solve(HubSettings(architecture="deepseek_v3", size="100M"), 1000, 64)


def test_a_folder_is_taken_as_it_stands_and_scaled(tmp_path):
    config = transformers.Qwen3Config(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2, head_dim=32,
        intermediate_size=200, vocab_size=999, tie_word_embeddings=True, bos_token_id=7,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    shape, model = made(HubSettings(architecture=str(tmp_path)))
    assert (shape.layers, shape.width, shape.heads, shape.feed_forward) == (3, 96, 6, 200)
    assert model.model.config.num_key_value_heads == 2
    assert model.model.config.head_dim == 32
    assert shape.parameters.tied
    assert shape.parameters.embedding == 50 * 96
    other = solve(HubSettings(architecture=str(tmp_path), layers=5), 50, 16)
    assert (other.layers, other.width) == (5, 96)
    scaled, model = made(HubSettings(architecture=str(tmp_path), size="1M"))
    assert abs(scaled.reached / 1e6 - 1) < 0.03
    assert model.model.config.num_attention_heads == 3 * model.model.config.num_key_value_heads


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"architecture": "lama"}, ["lama", "near it are llama", "folder"]),
        ({"architecture": "t5"}, ["t5", "no causal language model"]),
        ({"architecture": "mamba"}, ["num_attention_heads"]),
        ({"architecture": "llama", "options": {"hidden_size": 64}}, ["model.options.hidden_size", "model.width"]),
        ({"architecture": "llama", "options": {"slidin_window": 4}}, ["model.options.slidin_window", "no such field"]),
        ({"architecture": "llama", "options": {"rms_norm_eps": "x"}}, ["llama", "rms_norm_eps"]),
        (
            {"architecture": "llama", "width": 64, "layers": 2, "options": {"num_key_value_heads": 3}},
            ["num_key_value_heads = 3", "4 heads"],
        ),
        ({"architecture": "mixtral", "width": 60, "layers": 2}, ["model.width = 60", "64"]),
    ],
)
def test_errors_name_what_was_given_and_what_to_do(settings, words):
    with pytest.raises(InputError) as error:
        solve(HubSettings(**settings), 50, 16)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_missing_network_says_what_was_wanted_and_what_to_give(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    with pytest.raises(InputError, match=r"no-one/such-model.*Hugging Face hub.*not known.*folder with config\.json"):
        solve(HubSettings(architecture="no-one/such-model"), 50, 16)


def test_code_is_run_only_where_it_is_trusted(tmp_path):
    """A folder whose model brings its own Python: refused by default, run and counted when asked for."""
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto, "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}))  # fmt: skip
    (tmp_path / "own.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    with pytest.raises(InputError, match=r"model\.trust_remote_code"):
        solve(HubSettings(architecture=str(tmp_path)), 50, 16)
    shape, model = made(HubSettings(architecture=str(tmp_path), trust_remote_code=True))
    assert type(model.model).__name__ == "OwnModel"
    assert shape.parameters.total == sum(p.numel() for p in model.parameters())
    assert model(tokens()).shape == (4, 16, 50)


def test_attention_is_named_by_what_holds_its_parameters():
    """A layer of GPT-NeoX has a dropout named for attention before the attention itself."""
    _, model = made(VARIANTS["gpt_neox"])
    assert attention_names(model) == [f"model.gpt_neox.layers.{i}.attention" for i in range(2)]


def test_windows_and_experts_cost_what_a_token_meets():
    """A window shortens what queries meet, and unused experts cost nothing."""
    window, whole = (
        flops_per_token(
            solve(HubSettings(architecture="mistral", layers=2, width=64, options={"sliding_window": w}), 50, 16)
        )
        for w in (6, 16)
    )
    met = sum(min(t, 6) for t in range(1, 17)) / 16
    assert whole - window == pytest.approx(12 * 2 * 64 * (8.5 - met))
    four, eight = (
        flops_per_token(
            solve(HubSettings(architecture="mixtral", layers=2, width=64, options={"num_local_experts": e}), 50, 16)
        )
        for e in (4, 8)
    )
    assert eight - four == 6 * 2 * 4 * 64  # the router alone


def test_settings_can_be_hashed():
    adapter = TypeAdapter(ModelSettings)
    settings = adapter.validate_python({"family": "hub", "architecture": "llama", "options": {"rope_theta": 5}})
    again = adapter.validate_python(settings.model_dump(mode="json"))
    assert again == settings
    assert hash(again) == hash(settings)


def test_other_families_need_no_torch():
    code = (
        "import sys; from amscale.models import solve; from amscale.models.families.openelm import OpenELMSettings; "
        "from amscale.models.families.hub import HubSettings; HubSettings(architecture='llama', size='1M'); "
        "solve(OpenELMSettings(size='10M'), 100, 64); print({'torch', 'transformers'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_fields_of_a_configuration_are_axes_of_a_grid(tmp_path):
    """Each value makes a trial of its own, and of the experts only those that a token meets are active."""
    path = tmp_path / "axes.yaml"
    path.write_text(
        "name: axes\n"
        "grid: {model.options.num_local_experts: [2, 8], model.options.sliding_window: [4, 16]}\n"
        "model: {family: hub, architecture: mixtral, layers: 2, width: 32}\n"
        "data: {corpus: question_formation}\ntrain: {steps: 1}\n"
    )
    cells = expand(load(str(path)))
    shapes = [solve(cell.model, 68, 40) for cell in cells]
    assert [json.loads(shape.options.given) for shape in shapes] == [
        {"num_local_experts": experts, "sliding_window": window} for experts in (2, 8) for window in (4, 16)
    ]
    assert len({trial_id(cell, shape.as_dict()) for cell, shape in zip(cells, shapes, strict=True)}) == 4
    few, many = shapes[0].parameters, shapes[2].parameters
    assert many.under("non_embedding") > 3 * few.under("non_embedding")
    assert many.under("active") - few.under("active") == 2 * 32 * (8 - 2)  # the router's rows
    assert flops_per_token(shapes[0]) < flops_per_token(shapes[1])  # a narrower window
