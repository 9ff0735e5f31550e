"""Attention as retrieval: energies and counts of keys against what can be computed by hand."""

import math

import pytest
import torch
from helpers.gpt2 import in_the_library
from pydantic import TypeAdapter
from torch import nn

from amscale import models
from amscale.config.schema import ModelSettings
from amscale.models.families.gpt2 import GPT2Settings
from amscale.models.families.vanilla import VanillaSettings
from amscale.probes import ProbeContext
from amscale.probes.attention import AttentionProbe, keys_holding, retrieval_energy
from amscale.probes.patterns import ProbeBatch, Retrieval
from amscale.probes.queries_keys import POSITIONS, chosen_positions
from amscale.probes.suite import ProbeSuite

SHAPE = {"layers": 2, "width": 16, "heads": 2}


def sequences(count=5, context=10):
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(12, (count, context), generator=generator)
    targets = tokens.roll(-1, 1)
    targets[0, 4:] = -100
    return ProbeBatch.of_batch(tokens, targets)


def built(settings):
    torch.manual_seed(0)
    return models.build(models.solve(settings, 12, 10))


def measured(model, batch, layers=None, attention=None):
    layers, attention = layers or models.residual_names(model), attention or models.attention_names(model)
    context = ProbeContext(model, layers, batch, batch, attention, micro_batch=2)
    return ProbeSuite(context, [AttentionProbe()]).measure()


def by_hand(q_THK, k_THK, positions, energies_of):
    """Energies (positions, heads) of queries among the keys up to their positions."""
    beta = q_THK.shape[-1] ** -0.5
    rows = []
    for t in positions:
        logits_HT = beta * torch.einsum("hk,thk->ht", energies_of[t], k_THK[: t + 1])
        rows.append(-logits_HT.logsumexp(-1) / beta + 0.5 * energies_of[t].square().sum(-1))
    return torch.stack(rows)


@pytest.mark.parametrize("norm_position", ["post", "pre"])
def test_energy_and_its_change_by_hand(norm_position):
    """The queries of a layer's output are those that the layer's projections, after its norm, make of it."""
    model = built(VanillaSettings(norm_position=norm_position, dropout=0.1, **SHAPE)).double().eval()
    batch = sequences()
    result = measured(model, batch)
    layer = model.layers[0]
    energy, change = [], []
    with torch.no_grad():
        start = model.embedding(batch.tokens_BT) * model.scale + model.sinusoid_TD[:10]
        end = layer(start)
        norm = layer.attention_norm if norm_position == "pre" else nn.Identity()
        place = chosen_positions(batch.counted_BT)
        for b in range(5):
            q, k, _ = layer.attention.qkv(norm(start[b])).unflatten(-1, (3, 2, 8)).unbind(1)
            stepped = layer.attention.qkv(norm(end[b])).unflatten(-1, (3, 2, 8)).unbind(1)[0]
            before = by_hand(q, k, place[b].tolist(), q)
            energy.append(before)
            change.append(by_hand(q, k, place[b].tolist(), stepped) - before)
    energy, change = torch.stack(energy), torch.stack(change)
    assert result.reasons == {}
    assert result.histograms["attention/layer_00/energy"] == pytest.approx(energy.mean((0, 1)).numpy(), rel=1e-6)
    assert result.histograms["attention/layer_00/energy_change"] == pytest.approx(
        change.mean((0, 1)).numpy(), rel=1e-6, abs=1e-9
    )
    lowered = float((change < 0).double().mean())
    assert result.scalars["attention/layer_00/steps_lowering_energy"] == pytest.approx(lowered)
    assert result.scalars["attention/layer_01/energy_change_mean"] != 0


def test_keys_against_the_attention_weights_of_gpt2():
    model = built(GPT2Settings(dropout=0.0, **SHAPE)).eval()
    batch = sequences()
    result = measured(model, batch)
    with torch.no_grad():
        weights_LBHTT = in_the_library(model, 2)(batch.tokens_BT, output_attentions=True).attentions
    place_BQ = chosen_positions(batch.counted_BT)
    for layer, weights_BHTT in enumerate(weights_LBHTT):
        sorted_BHTT = weights_BHTT.sort(-1, descending=True).values.cumsum(-1)
        keys_BHT = (sorted_BHTT < 0.9).sum(-1) + 1
        keys_BHQ = keys_BHT.gather(2, place_BQ[:, None].expand(-1, 2, -1)).double()
        found = result.histograms[f"attention/layer_{layer:02d}/keys_for_90_percent"]
        assert found == pytest.approx(keys_BHQ.mean((0, 2)).numpy())
    visible = float((place_BQ + 1).double().mean())
    assert result.scalars["attention/layer_00/keys_visible_mean"] == pytest.approx(visible)
    assert result.scalars["attention/layer_00/keys_for_90_percent_mean"] > 1.5


@pytest.mark.parametrize("options", [{"positions": "rotary"}, {"positions": "relative"}, {"norm": "rmsnorm"}])
def test_variations_are_measured(options):
    result = measured(built(VanillaSettings(**SHAPE, **options)), sequences())
    assert result.reasons == {}
    assert all(math.isfinite(value) for value in result.scalars.values())
    assert result.scalars["attention/layer_00/keys_visible_mean"] < 8


@pytest.mark.parametrize(
    "tree", [{"family": "openelm", "layers": 2, "width": 64}, {"family": "hub", "architecture": "llama", **SHAPE}]
)
def test_other_families_are_read_at_the_same_place(tree):
    """Grouped keys, rotations and norms of queries included."""
    result = measured(built(TypeAdapter(ModelSettings).validate_python(tree)), sequences())
    assert result.reasons == {}
    assert result.scalars["attention/layer_01/keys_visible_mean"] < 8
    assert result.scalars["attention/layer_01/energy_change_mean"] != 0


def test_known_retrievals():
    """One stored key far closer than the rest holds the mass; keys all alike share it evenly."""
    keys = torch.eye(10, dtype=torch.float64)[None, None] * 30
    bias = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    sharp = Retrieval(keys[:, :, :1], keys[:, :, :1], keys, bias, 1.0)
    assert keys_holding(sharp).tolist() == [[[1]]]
    # q = k: −q·k + ½‖q‖² = −½·900
    assert float(retrieval_energy(sharp, sharp.query_BHQK)) == pytest.approx(-450)
    query = torch.zeros(1, 1, 1, 10, dtype=torch.float64)
    even = Retrieval(query, query, keys, bias, 0.5)
    assert keys_holding(even, 0.85).tolist() == [[[9]]]
    assert float(retrieval_energy(even, even.query_BHQK)) == pytest.approx(-2 * math.log(10))


def test_positions_end_with_the_last_token():
    counted = torch.arange(64) < torch.tensor([[64], [10], [1]])
    place = chosen_positions(counted)
    assert place.shape == (3, POSITIONS)
    assert place[:, -1].tolist() == [63, 9, 0]
    assert place[0].tolist() == sorted(set(place[0].tolist()))


def test_attention_that_cannot_be_read_has_its_reason():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.Linear(8, 8)

        def forward(self, x_BTC):
            return x_BTC + self.attention(x_BTC)

    model = nn.Sequential(nn.Embedding(12, 8), Own(), Own())
    result = measured(model, sequences(), ["1", "2"], ["1.attention"])
    assert "1.attention calls scaled_dot_product_attention 0 times" in result.reasons["attention/layer_00"]
    assert "0 known attention modules" in result.reasons["attention/layer_01"]
    assert result.scalars == {}
