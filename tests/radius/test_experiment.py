"""The radius experiment from its command line: a small pretrained model and a small finished trial, and bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from amscale import config, models
from amscale.config import expand
from amscale.data import prepare
from amscale.errors import InputError
from amscale.hopfield.neighbours import nearest_neighbours
from amscale.planning.plan import tokens_folder
from amscale.probe import probe
from amscale.radius.configuration import load
from amscale.trials.record import FORMAT
from amscale.trials.records import Placement, TrialResult
from amscale.trials.sweep_store import SweepStore

ROOT = Path(__file__).resolve().parents[2]
CHUNKS, TOKENS = 60, 16


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A pretrained model of 3 layers, a text of random letters, and the options that name them."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("radius")
    torch.manual_seed(0)
    shape = {"n_layer": 3, "n_embd": 24, "n_head": 2, "n_positions": 64, "vocab_size": 257}
    GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=None, eos_token_id=None)).save_pretrained(folder / "model")
    letters = np.random.default_rng(0).integers(97, 123, (40, 80), dtype=np.uint8)
    (folder / "text.txt").write_text("\n".join(bytes(line).decode() for line in letters))
    return folder


def options(files, *more):
    return [
        "radius_gpt2_openwebtext.yaml",
        f"model.path={files}/model",
        f"data={{corpus: text, files: {files}/text.txt, document: line, tokenizer: byte, validation: 0.1}}",
        f"sample={{chunks: {CHUNKS}, tokens: {TOKENS}, layers: [0, -1], seed: 1}}",
        f"storage={files}",
        *more,
    ]


@pytest.fixture(scope="module")
def measured(files):
    assert probe(*options(files)) == 0
    return files / "radius_gpt2_openwebtext"


def test_vectors_are_the_hidden_states_of_the_chunks(measured, files):
    """Before and after the final norm, at the chunk's last input token, by transformers' own account."""
    from transformers import GPT2LMHeadModel

    table = pq.read_table(measured / "vectors.parquet")
    assert table.column_names == [
        "chunk",
        *(f"{place}{suffix}" for place in ("layer_00", "layer_02", "final_norm") for suffix in ("", "_distance")),
    ]
    assert len(table) == CHUNKS
    settings = load(*(lambda first, *rest: (first, rest))(*options(files)))
    store = prepare(settings.data, tokens_folder(files))
    tokens = store.training(None, "stream").tokens
    chunk = table["chunk"].to_numpy()
    assert len(set(chunk.tolist())) == CHUNKS
    model = GPT2LMHeadModel.from_pretrained(files / "model").eval()
    for row in (0, 7, CHUNKS - 1):
        start = int(chunk[row]) * TOKENS
        before = [int(tokens[start - 1])] if start else [store.end_token]
        inputs = torch.tensor([[*before, *tokens[start : start + TOKENS - 1].tolist()]])
        with torch.no_grad():
            states = model(inputs, output_hidden_states=True).hidden_states
        np.testing.assert_allclose(table["layer_00"][row].as_py(), states[1][0, -1], atol=1e-5)
        np.testing.assert_allclose(table["final_norm"][row].as_py(), states[-1][0, -1], atol=1e-4)
    normed = model.transformer.ln_f(torch.tensor(table["layer_02"].to_pylist())).detach()
    np.testing.assert_allclose(table["final_norm"].to_pylist(), normed, atol=1e-4)


def test_distances_and_summary_agree_with_brute_force(measured):
    summary = json.loads((measured / "summary.json").read_text())
    table = pq.read_table(measured / "vectors.parquet")
    distances = pq.read_table(measured / "distances.parquet").to_pandas()
    spreads = {(spread["place"], spread["vectors"]): spread for spread in summary["spreads"]}
    assert len(spreads) == 3 * 5
    for place in ("layer_00", "layer_02", "final_norm"):
        vectors = np.array(table[place].to_pylist())
        for share, size in ((25, 15), (100, 60)):
            apart = np.sqrt(((vectors[:size, None] - vectors[:size]) ** 2).sum(-1)) + np.diag([np.inf] * size)
            chosen = (distances.place == place) & (distances.vectors == "trained") & (distances.percent == share)
            kept = distances[chosen].distance
            np.testing.assert_allclose(kept, apart.min(1), rtol=1e-6)
            row = next(r for r in spreads[place, "trained"]["samples"] if r["size"] == size)
            assert row["distance_mean"] == pytest.approx(apart.min(1).mean())
            assert row["radius_median"] == pytest.approx(np.median(apart.min(1)) / 2)
        np.testing.assert_allclose(table[f"{place}_distance"], apart.min(1), rtol=1e-6)
        unit = vectors / np.sqrt((vectors**2).mean(1, keepdims=True))
        apart = np.sqrt(((unit[:, None] - unit) ** 2).sum(-1)) + np.diag([np.inf] * CHUNKS)
        control = spreads[place, "normalised"]
        assert control["samples"][-1]["distance_mean"] == pytest.approx(apart.min(1).mean(), rel=1e-5)
        assert control["length_mean"] == pytest.approx(np.sqrt(24))
        trained = spreads[place, "trained"]
        assert trained["length_mean"] == pytest.approx(np.linalg.norm(vectors, axis=1).mean())
        assert trained["spread"] == pytest.approx(np.sqrt(vectors.var(0).sum()))
    lines = (measured / "samples.csv").read_text().splitlines()
    assert len(lines) == 1 + sum(len(spread["samples"]) for spread in summary["spreads"])
    assert spreads["final_norm", "trained"]["r_star"] == pytest.approx(np.sqrt(24 / (2 * np.pi * np.e)))
    assert summary["peak_host_bytes"] > 10**7
    for name in ("radius.png", "radius.svg"):
        assert (measured / name).stat().st_size > 10_000


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures(measured, files):
    first = json.loads((measured / "summary.json").read_text())["spreads"]
    probe(*options(files, "name=again"))
    assert json.loads((files / "again" / "summary.json").read_text())["spreads"] == first


def test_the_radius_is_not_determined_by_what_a_model_predicts(files):
    """With three times the residual stream and a third of the final norm the logits are the same, and r̂ is not."""
    from transformers import GPT2LMHeadModel

    from amscale.radius.configuration import SampleSettings
    from amscale.radius.sample import choose_chunks, vectors
    from amscale.radius.subject import transformers_subject

    file, *overrides = options(files)
    settings = load(file, overrides)
    store = prepare(settings.data, tokens_folder(files))
    chunks = choose_chunks(SampleSettings(chunks=CHUNKS, tokens=TOKENS), settings.data, store, 64)
    first, second = (GPT2LMHeadModel.from_pretrained(files / "model").eval() for _ in range(2))
    for model in (first, second):  # without ε, which the scale of a residual stream would meet
        for norm in (module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)):
            norm.eps = 0.0
    with torch.no_grad():
        for name, parameter in second.named_parameters():
            if "wte" in name or "wpe" in name or "c_proj" in name:
                parameter.mul_(3)
            elif "ln_f" in name:
                parameter.div_(3)
        tokens_BT = torch.arange(40).reshape(2, 20)
        torch.testing.assert_close(second(tokens_BT).logits, first(tokens_BT).logits, rtol=1e-4, atol=1e-4)
    found = [vectors(transformers_subject("", model), chunks, [-1], torch.device("cpu")) for model in (first, second)]
    distance = [
        {place: nearest_neighbours(vectors_PC).distance_U for place, vectors_PC in one.items()} for one in found
    ]
    torch.testing.assert_close(distance[1]["layer_02"], 3 * distance[0]["layer_02"], rtol=1e-3, atol=0)
    torch.testing.assert_close(distance[1]["final_norm"], distance[0]["final_norm"] / 3, rtol=1e-3, atol=0)


def make_trial(folder, layers, tokens, state="finished", broken=False):
    """A trial's folder as a run leaves it, without the run."""
    tree = {
        "name": "made",
        "model": {"family": "vanilla", "layers": layers, "width": 16, "heads": 2},
        "data": {"corpus": "question_formation", "documents": 400, "validation": 40, "size": tokens},
        "train": {"steps": 1},
    }
    cell = expand(config.parse(tree))[0]
    store = prepare(cell.data, tokens_folder(folder))
    sweep = SweepStore(folder / "made")
    sweep.create(config.parse(tree))
    trial = sweep.trial(f"layers{layers}-D{tokens}")
    trial.write_spec(cell, Placement(1, 1, 1, "cpu", 0, "fp32", 1, 1), store.folder, "made")
    shape = models.solve(cell.model, store.vocabulary_size, store.longest_document)
    torch.manual_seed(layers)
    weights = {name: tensor.clone() for name, tensor in models.build(shape).state_dict().items()}
    if broken:
        weights["layers.0.feed_forward.up.weight"][0, 0] = torch.nan
    save_file(weights, trial.weights)
    parameters = shape.parameters.as_dict()
    data = {"corpus": "question_formation", "unique_tokens": tokens}
    result = {"format": FORMAT, "state": state, "steps": 1, "shape": shape.as_dict(), "parameters": parameters}
    result |= {"data": data, "flops": {"total": 1.0}, "losses": {}}
    trial.publish(TrialResult.model_validate(result))
    return trial


def test_the_largest_finished_trial_of_a_sweep_is_measured(tmp_path, capsys):
    make_trial(tmp_path, 1, 4000)
    make_trial(tmp_path, 2, 2000)
    make_trial(tmp_path, 2, 4000)
    make_trial(tmp_path, 3, 4000, state="diverged")
    found = ["radius_cpu.yaml", f"model.path={tmp_path}/made", "sample.chunks=50", f"storage={tmp_path}"]
    assert probe(*found) == 0
    out = capsys.readouterr().out
    assert f"largest finished trial of {tmp_path}/made: layers2-D4000" in out.replace("\n", "")
    summary = json.loads((tmp_path / "radius_cpu" / "summary.json").read_text())
    assert summary["model"] == "layers2-D4000"
    assert {spread["place"] for spread in summary["spreads"]} == {"layer_00", "layer_01"}
    with pytest.raises(InputError, match=r"sample.chunks=5000: .* has only \d+ documents; lower sample.chunks"):
        probe(*found, "sample.chunks=5000")


def test_weights_that_are_not_finite_are_an_error(tmp_path):
    make_trial(tmp_path, 1, 4000, broken=True)
    with pytest.raises(InputError, match=r"50 of 50 chunks have activations of layers.0 that are not finite"):
        probe("radius_cpu.yaml", f"model.path={tmp_path}/made", "sample.chunks=50", f"storage={tmp_path}")


def test_duplicates_only_are_an_error(files):
    text = files / "same.txt"
    text.write_text("a" * 4000 + "\n" + "a" * 4000)
    same = f"data={{corpus: text, files: {text}, document: line, tokenizer: byte, validation: 1, split: last}}"
    with pytest.raises(InputError, match="40 points hold one distinct value"):
        probe(*options(files, same, "sample.chunks=40", "sample.tokens=8", "name=same"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["sample.chunks=1"], "sample.chunks=1"),
        (["sample.chunks=100k"], "sample.chunks=100000: the training part of text has only"),
        (["sample.tokens=65"], "the model takes at most 64 tokens"),
        (["sample.layers=[3]"], "the model has no layer 3; give 0 to 2, or −1 to −3"),
        (["sample.layers=[]"], "at least one layer"),
        (["sample.device=cuda"], "no CUDA device"),
        (["model.path=/nowhere"], "no causal language model there"),
        (["model.source=trial", "model.path=/nowhere"], "none finished"),
        (["model.source=ready"], "model.source='ready'; allowed are 'trial', 'pretrained'"),
        (["sample.tockens=3"], "unknown key sample.tockens=3"),
    ],
)
def test_bad_input_is_one_sentence(files, more, message):
    if more == ["sample.device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(InputError) as error:
        probe(*options(files, *more))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pretrained_model_needs_a_corpus(tmp_path):
    (tmp_path / "bare.yaml").write_text("model: {source: pretrained, path: gpt2}")
    with pytest.raises(InputError, match="data is missing: a pretrained model needs a corpus"):
        probe(str(tmp_path / "bare.yaml"))


def test_a_model_without_recognisable_layers_is_an_error(files):
    from transformers import GPT2Config, GPT2LMHeadModel

    from amscale.radius.subject import transformers_subject

    model = GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=8, n_head=1, vocab_size=20, bos_token_id=None, eos_token_id=None)
    )
    model.config.n_layer = 5
    with pytest.raises(InputError, match="no list of 5 layers is recognisable in GPT2Model; its parts are wte"):
        transformers_subject("odd", model)


@pytest.mark.slow
def test_the_command_exits_with_2_and_one_line():
    command = [sys.executable, "-m", "amscale.probe", "model.path=/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("probe: model.path='/nowhere': 0 trials there, none finished")
    assert done.stderr.count("\n") == 1
