"""Architectures whose configurations have fields that must follow the shape, and those that cannot be had.

`benchmarks/hub_survey.py` tries all that transformers lists; docs/models.md has the outcome."""

import pytest
import torch

from amscale.errors import InputError
from amscale.models import activation_bytes, build, solve
from amscale.models.hub_settings import HubSettings
from amscale.trials.identity import trial_id

EXPERTS = {"n_routed_experts": 8, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "options", "fields"),
    [
        ("gptj", {}, {"rotary_dim": 8}),  # the head of 32 at 64 of 256
        ("deepseek_v3", EXPERTS, {"qk_rope_head_dim": 36, "v_head_dim": 74, "q_lora_rank": 24, "kv_lora_rank": 8}),
        ("roberta", {}, {"is_decoder": True, "pad_token_id": None}),
        ("cwm", {}, {"bos_token_id": 0}),
        ("gpt_neo", {}, {"attention_types": [[["global", "local", "global"], 1]]}),
        (
            "lfm2_moe",
            {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
            {"num_dense_layers": 1},
        ),
        ("hunyuan_v1_dense", {}, {"head_dim": 32}),
        ("gemma3n_text", {}, {}),  # a feed-forward width for each layer
    ],
)
def test_fields_of_their_own_follow_the_shape(architecture, options, fields):
    shape = solve(HubSettings(architecture=architecture, layers=3, width=96, heads=3, options=options), 300, 24)
    assert activation_bytes(shape, 2, 4, "cpu") > 0
    torch.manual_seed(0)
    network = build(shape)
    assert {name: getattr(network.model.config, name) for name in fields} == fields
    assert shape.parameters.total == sum(p.numel() for p in network.parameters())
    tokens_BT = torch.randint(300, (2, 24), generator=torch.Generator().manual_seed(1))
    later_BT = tokens_BT.clone()
    later_BT[:, 12:] = (later_BT[:, 12:] + 1) % 300
    network.eval()
    with torch.no_grad():
        logits_BTV = network(tokens_BT)
        moved = (network(later_BT) - logits_BTV).abs().amax((0, 2))
    assert logits_BTV.shape == (2, 24, 300)
    assert moved[:12].max() < 1e-5 < moved[12:].min()


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("bart", ["an encoder and a decoder", "gpt2"]),
        ("gemma3", ["model.architecture = gemma3_text"]),
        ("gemma4_text", ["its layers differ in", "choose another"]),
        ("gemma4_assistant", ["no working default configuration", "config.json"]),
        ("dots1", ["model.options.n_routed_experts"]),
        ("deepseek_v2", ["model.options.num_experts_per_tok"]),
        ("cpmant", ["no causal language model", "choose another"]),
    ],
)
def test_others_are_refused_in_words(architecture, words):
    with pytest.raises(InputError) as error:
        activation_bytes(solve(HubSettings(architecture=architecture, layers=2, width=64), 300, 24), 2, 4, "cpu")
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_only_trials_whose_fields_follow_have_another_identity():
    """Bert's networks are others than those of version 1, which saw later tokens; llama's are the same."""
    from amscale.config import Experiment

    def shape(architecture):
        return solve(HubSettings(architecture=architecture, layers=2, width=64), 300, 24).as_dict()

    assert "derived" not in shape("llama")["options"]
    assert shape("bert")["options"]["derived"] == ("is_decoder",)
    cell = Experiment.model_validate({"name": "x", "model": {"family": "hub", "architecture": "bert"},
        "data": {"corpus": "question_formation"}, "train": {"steps": 1}})  # fmt: skip
    before = shape("bert")
    before["options"] = {k: v for k, v in before["options"].items() if k != "derived"}
    assert trial_id(cell, shape("bert")) != trial_id(cell, before)
