"""A trial's card, its recipe, and its model as transformers loads it."""

import json
from pathlib import Path

import pytest
import yaml
from helpers.commands import ended

from amscale import config, models
from amscale.card import card
from amscale.cluster.resources import this_machine
from amscale.planning.plan import plan_sweep
from amscale.reproduce import reproduce
from amscale.trials.identity import settings_of
from amscale.trials.records import Placement
from amscale.trials.trial_store import TrialStore

MODELS = {
    "vanilla": "model={family: vanilla, layers: 2, width: 16, heads: 2}",
    "gpt2": "model={family: gpt2, layers: 2, width: 16, heads: 2}",
    "hub": "model={family: hub, architecture: llama, layers: 2, width: 16, heads: 2}",
}


def finished(tmp_path: Path, family: str, weights: bool = False) -> TrialStore:
    """Write a finished trial of a family as training leaves it."""
    settings = [
        "data={corpus: random_tokens, size: 4k, vocabulary: 50, sequence_length: 15, sequences: 1k}",
        "train={steps: 5}",
    ]
    experiment = config.load("grammar.yaml", [MODELS[family], *settings, "grid={}", f"storage={tmp_path}/of_then"])
    (trial,) = plan_sweep(experiment, tmp_path, this_machine(), build=True).trials
    store = TrialStore(tmp_path / "of_then" / "grammar" / "trials" / trial.label)
    placement = Placement(1, 1, 1, "cpu", 0, "fp32", micro_batch=2, accumulation=1)
    assert trial.store is not None
    store.write_spec(trial.cell, placement, trial.store.folder, trial.identity)
    counts = trial.shape.parameters.as_dict()
    result = {
        "format": 1,
        "trial": trial.identity,
        "label": trial.label,
        "state": "finished",
        "seed": 0,
        "steps": 5,
        "shape": trial.shape.as_dict(),
        "parameters": counts,
        "flops": {"formula": "matmul", "total": 1e9},
        "data": {"corpus": "random_tokens", "unique_tokens": 4000},
        "losses": {"validation_least": 3.9},
        "engine": {"engine": "DeepSpeedEngine", "world_size": 1, "zero_stage": 0, "micro_batch": 2, "device": "cpu"},
        "versions": {"python": "3.1", "amscale": "0.0.1", "torch": "1.0"},
        "settings": settings_of(trial.cell),
    }
    store.result.write_text(json.dumps(result))
    if weights:
        from safetensors.torch import save_file

        network = models.build(trial.shape)
        save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, store.weights)
    return store


def test_a_card_has_what_a_reader_looks_for_and_says_what_was_not_recorded(tmp_path, capsys):
    store = finished(tmp_path, "vanilla")
    assert ended(card, str(store.path)) == 0
    page = capsys.readouterr().out
    result = store.read_result()
    assert f"| N, non embedding | {result.parameters.attention + result.parameters.feed_forward:,.0f} |" in page
    assert "| layers x width, heads | 2 x 16, 2 |" in page
    assert "| least validation loss | 3.9000 |" in page
    assert "| train loss | not recorded |" in page
    assert "| branched off | no |" in page
    store.result.unlink()
    assert ended(card, str(store.path)) == 2
    assert "not finished, it has no result.json" in capsys.readouterr().err


def test_a_recipe_names_the_same_trial_and_what_differs_here(tmp_path, capfd):
    store = finished(tmp_path, "vanilla")
    assert ended(reproduce, str(store.path), f"--output={tmp_path}/again") == 0
    said = capfd.readouterr().out
    assert "python -m pip install amscale==0.0.1 torch==1.0\n" in said
    assert f"python -m amscale.sweep {tmp_path}/again/trial.yaml" in said
    (trial,) = plan_sweep(config.load(f"{tmp_path}/again/trial.yaml"), tmp_path, this_machine(), build=False).trials
    assert trial.identity == store.read_spec().trial
    assert (trial.placement.micro_batch, trial.placement.zero_stage, trial.placement.device) == (2, 0, "cpu")
    assert ended(reproduce, str(store.path), "--output=/proc/again") == 2
    assert "no folder can be made there" in capfd.readouterr().err
    assert ended(reproduce, str(store.path), "--json") == 0
    document = json.loads(capfd.readouterr().out)
    assert document["differs"]["torch"]["then"] == "1.0"
    assert yaml.safe_load(document["configuration"])["storage"] == "reproduced"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "hub"])
def test_transformers_loads_a_trial_and_computes_its_logits(family, tmp_path, capsys):
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    store = finished(tmp_path, family, weights=True)
    assert ended(card, str(store.path), f"--huggingface={tmp_path}/model") == 0
    shape = config.parse(store.read_spec().settings).model
    network = models.build(models.solve(shape, store.read_result().shape.vocabulary, 15)).eval()
    network.load_state_dict(load_file(store.weights))
    tokens_BT = torch.randint(51, (3, 15))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model")(tokens_BT).logits
        assert torch.allclose(theirs, network(tokens_BT), atol=1e-5)
    assert (tmp_path / "model" / "README.md").read_text() == capsys.readouterr().out


def test_a_family_that_transformers_has_not_is_refused(tmp_path, capsys):
    store = finished(tmp_path, "vanilla", weights=True)
    assert ended(card, str(store.path), f"--huggingface={tmp_path}/model") == 2
    assert "transformers has no vanilla" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
