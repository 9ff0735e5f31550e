"""The probes in a training loop: they change nothing, measure what they say, and give reasons for what is missing."""

import math
import shutil

import numpy as np
import pytest
import torch
from helpers.devices import DEVICES
from helpers.gpt2 import in_the_library
from pydantic import ValidationError
from torch import nn

from amscale import models
from amscale.errors import InputError
from amscale.models.families.gpt2 import GPT2Settings
from amscale.probes import Activations, LayerPatterns, Measurement, Probe, ProbeContext
from amscale.probes.interface import CorpusFacts
from amscale.probes.patterns import ProbeBatch, to_patterns
from amscale.probes.radius import Radius
from amscale.probes.registry import ProbeSettings, build_probes
from amscale.probes.suite import ProbeSuite

NAMES = ["embedding", "layers.0", "layers.1"]


class Network(nn.Module):
    """A causal language model with dropout, small enough to check by hand."""

    def __init__(self, vocabulary: int = 12, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 16, dropout=0.2, batch_first=True) for _ in range(2)
        )
        self.head = nn.Linear(width, vocabulary)

    def hidden(self, tokens_BT):
        mask_TT = nn.Transformer.generate_square_subsequent_mask(tokens_BT.shape[1])
        states = [self.embedding(tokens_BT)]
        for layer in self.layers:
            states.append(layer(states[-1], src_mask=mask_TT, is_causal=True))
        return states

    def forward(self, tokens_BT):
        return self.head(self.hidden(tokens_BT)[-1])


def sequences(count, seed, context=6):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(12, (count, context), generator=generator)
    targets = tokens.roll(-1, 1)
    lengths = torch.randint(2, context + 1, (count, 1), generator=generator)
    targets[torch.arange(context) >= lengths] = -100
    return tokens, targets


def suite_of(model, layers=NAMES, stored=None, queries=None, **options):
    stored = ProbeBatch.of_batch(*sequences(10, 1)) if stored is None else stored
    queries = ProbeBatch.of_batch(*sequences(7, 2)) if queries is None else queries
    return ProbeSuite(ProbeContext(model, layers, stored, queries, **options), build_probes(ProbeSettings()))


def train(probed, steps=4):
    torch.manual_seed(0)
    model = Network()
    suite = suite_of(model, micro_batch=3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for step in range(steps):
        if probed and step % 2:
            assert suite.measure().scalars
        tokens, targets = sequences(8, 100 + step)
        loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        optimiser.zero_grad()
        loss.backward()
        if probed:
            suite.measure()
        optimiser.step()
        losses.append(loss.item())
    return losses, model.state_dict(), torch.get_rng_state()


def test_training_is_bit_identical_with_and_without():
    (losses, weights, state), (plain_losses, plain_weights, plain_state) = train(True), train(False)
    assert losses == plain_losses
    assert torch.equal(state, plain_state)
    assert all(torch.equal(weights[name], plain_weights[name]) for name in weights)


def gpt2():
    torch.manual_seed(0)
    return models.build(models.solve(GPT2Settings(layers=2, width=16, heads=2, dropout=0.2), 12, 24))


def whole_suite(model, inner):
    batches = ([part.to(next(inner.parameters()).device) for part in sequences(*of, 24)] for of in ((10, 1), (7, 2)))
    stored, queries = (ProbeBatch.of_batch(*batch) for batch in batches)
    names = models.residual_names(inner), models.attention_names(inner)
    corpus = CorpusFacts(math.log(12), 240, 1000)
    return suite_of(model, names[0], stored, queries, micro_batch=3, attention=names[1], corpus=corpus)


@pytest.fixture
def one_thread():
    """Compiled backward passes of several threads add up in no fixed order, with probes or without."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "compiled",
    [
        "no",
        "in place",
        pytest.param(
            "wrapped",
            marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")],
        ),
    ],
)
def test_every_measurement_leaves_a_training_step_bit_identical(compiled, device, one_thread):
    """Between two accumulated backward passes: gradients, random state, flags and the next losses are as without."""
    runs = []
    for probed in (False, True):
        torch.compiler.reset()  # what was compiled for the first run would have the second compiled otherwise
        inner = gpt2().to(device)
        if compiled == "in place":
            inner.compile(backend="eager")
        model = torch.compile(inner) if compiled == "wrapped" else inner
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        losses = []
        for step in range(3):
            for micro in range(2):
                tokens, targets = (part.to(device) for part in sequences(4, 10 * step + micro, 24))
                loss = nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
                loss.backward()
                losses.append(loss.item())
                if probed:
                    result = whole_suite(model, inner).measure()
                    assert result.reasons == {}
                    assert {name.split("/")[0] for name in result.scalars} == {
                        "energy",
                        "radius",
                        "partition",
                        "attention",
                        "memorisation",
                    }
            optimiser.step()
            optimiser.zero_grad()
        state = torch.cuda.get_rng_state() if device == "cuda" else torch.get_rng_state()
        runs.append((losses, inner.state_dict(), state, [m.training for m in inner.modules()]))
    (losses, weights, state, flags), (with_probe, other_weights, other_state, other_flags) = runs
    assert losses == with_probe
    assert torch.equal(state, other_state)
    assert flags == other_flags
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in inner.modules())


def test_compiled_and_plain_models_measure_the_same():
    inner = gpt2()
    plain = whole_suite(inner, inner).measure()
    compiled = torch.compile(inner, backend="eager")
    compiled(sequences(4, 0, 24)[0])
    assert whole_suite(compiled, inner).measure().scalars == plain.scalars


def test_the_first_layers_step_starts_from_the_embedding():
    """x^(0) → x^(1) counts where what enters the first layer is a residual stream."""
    inner = gpt2()
    suite = whole_suite(inner, inner)
    result = suite.measure()
    inner.eval()
    rows = []
    for part in (suite.context.stored, suite.context.queries):
        with torch.no_grad():
            states = in_the_library(inner, 2)(part.tokens_BT, output_hidden_states=True).hidden_states
        last = (part.counted_BT * torch.arange(1, 25)).argmax(1)
        rows.append([state[torch.arange(len(last)), last].double().numpy() for state in states])
    (_, stored, _), (start, end, _) = rows

    def energy(x):
        return -np.log(np.exp(-((x[:, None] - stored) ** 2).sum(-1)).sum(1))

    share = float((energy(end) < energy(start)).mean())
    assert result.scalars["energy/layer_00/steps_lowering_E"] == pytest.approx(share)
    both = [result.scalars[f"energy/layer_0{t}/steps_lowering_E"] for t in (0, 1)]
    assert result.scalars["energy/global/steps_lowering_E"] == pytest.approx(np.mean(both))


def patterns_by_hand(model, batch, pattern):
    tokens, targets = batch
    model.eval()
    found = []
    for state_BTC in model.hidden(tokens):
        rows = []
        for row_TC, target_T in zip(state_BTC.detach().double().numpy(), targets.numpy(), strict=True):
            real = row_TC[target_T != -100]
            if pattern == "last_token":
                rows.append(real[-1])
            elif pattern == "mean_token":
                rows.append(real.mean(0))
            else:
                rows.append(np.concatenate([real.ravel(), np.zeros(row_TC.size - real.size)]))
        found.append(np.stack(rows))
    model.train()
    return found


@pytest.mark.parametrize("pattern", ["last_token", "mean_token", "flattened"])
def test_measurement_against_brute_force(pattern):
    torch.manual_seed(0)
    model = Network()
    result = suite_of(model, pattern=pattern, micro_batch=4).measure()
    stored = patterns_by_hand(model, sequences(10, 1), pattern)
    queries = patterns_by_hand(model, sequences(7, 2), pattern)
    close = {"rel": 1e-4, "abs": 1e-4}
    scalars, sizes = result.scalars, range(len(NAMES))

    def energy(x, t):
        return -np.log(np.exp(-((x[:, None] - stored[t]) ** 2).sum(-1)).sum(1))

    for t in sizes:
        name = f"energy/layer_{t:02d}"
        g = ((queries[t][:, None] - stored[t]) ** 2).sum(-1).min(1)
        assert result.histograms[f"{name}/g"] == pytest.approx(g, **close)
        assert scalars[f"{name}/g_mean"] == pytest.approx(g.mean(), **close)
        assert scalars[f"{name}/g_q95"] == pytest.approx(np.quantile(g, 0.95), **close)
        assert result.histograms[f"{name}/E"] == pytest.approx(energy(queries[t], t), **close)
        assert scalars[f"{name}/E_lower_mean"] == pytest.approx(g.mean() - math.log(10), **close)
        for beta in (1, 2):
            x, rho = queries[t], stored[t]
            mchn = -np.log(np.exp(beta * x @ rho.T).mean(1)) / beta + (x**2).sum(1) / 2 + (rho**2).sum(1).max() / 2
            assert scalars[f"{name}/E_mchn_beta{beta}_mean"] == pytest.approx(mchn.mean(), **close)
        distinct = np.unique(stored[t].round(5), axis=0)
        apart = np.sqrt(((distinct[:, None] - distinct) ** 2).sum(-1)) + np.diag(np.full(len(distinct), np.inf))
        radius = apart.min(1) / 2
        assert scalars[f"radius/layer_{t:02d}/sampled_mean"] == pytest.approx(radius.mean(), **close)
        assert scalars[f"radius/layer_{t:02d}/duplicates"] == 10 - len(distinct)
        r_star = math.sqrt(stored[t].shape[1] / (2 * math.pi * math.e))
        assert scalars[f"radius/layer_{t:02d}/r_star"] == pytest.approx(r_star)
        log_z = scalars[f"partition/layer_{t:02d}/log_Z_squared"]
        assert scalars[f"partition/layer_{t:02d}/loss_paper_squared"] == pytest.approx(log_z + math.exp(-log_z))
    lowered = np.mean([energy(queries[t], t) < energy(queries[t - 1], t) for t in sizes[1:]])
    assert scalars["energy/global/steps_lowering_E"] == pytest.approx(lowered)
    union = [-np.log(sum(np.exp(-energy(queries[s], t)) for t in sizes)) for s in sizes]
    assert scalars["energy/global/E_mean"] == pytest.approx(union[-1].mean(), **close)
    lowered = np.mean([union[s] < union[s - 1] for s in sizes[1:]])
    assert scalars["energy/global/steps_lowering_E_global"] == pytest.approx(lowered)
    assert set(result.reasons) == {
        "memorisation/bits",
        "memorisation/exact_continuation_train",
        "memorisation/exact_continuation_validation",
    }
    assert result.pattern == pattern
    assert result.seconds > 0


def test_padding_is_not_seen():
    """Whatever follows the last counted token, not-a-number included, the pattern is the same."""
    activation = torch.randn(2, 5, 3)
    counted = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])
    other = activation.clone()
    other[0, 3:] = torch.nan
    for pattern in ("last_token", "mean_token", "flattened"):
        assert torch.equal(to_patterns(activation, counted, pattern, 7), to_patterns(other, counted, pattern, 7))
    last = torch.stack([activation[0, 2], activation[1, 4]])
    assert torch.equal(to_patterns(activation, counted, "last_token", 7), last)
    assert to_patterns(activation, counted, "flattened", 7).shape == (2, 21)


def test_activations_that_are_not_finite_have_a_reason_and_no_number():
    model = Network()
    with torch.no_grad():
        model.layers[1].linear2.bias[0] = torch.nan
    result = suite_of(model).measure()
    assert "17 of 17 probe sequences have activations of layers.1" in result.reasons["energy/layer_02"]
    assert "layer_02" in result.reasons["energy/global"]
    assert not [name for name in result.scalars if "layer_02" in name or "global" in name]
    assert "energy/layer_01/E_mean" in result.scalars
    assert all(math.isfinite(value) for value in result.scalars.values())


@pytest.mark.parametrize("count", [1, 5])
def test_one_pattern_or_duplicates_only_have_energies_but_no_radius(count):
    tokens, targets = sequences(1, 3)
    stored = ProbeBatch.of_batch(tokens.expand(count, -1), targets.expand(count, -1))
    result = suite_of(Network(), stored=stored, queries=ProbeBatch.of_batch(*sequences(4, 2))).measure()
    assert "no pattern has a neighbour" in result.reasons["radius/layer_01"]
    assert "no pattern has a neighbour" in result.reasons["partition/layer_01"]
    assert result.scalars["radius/layer_01/duplicates"] == count - 1
    assert not [name for name in result.scalars if name.startswith("partition")]
    g, e = result.scalars["energy/layer_01/g_mean"], result.scalars["energy/layer_01/E_mean"]
    assert e == pytest.approx(g - math.log(count), abs=1e-6)


def test_bad_input_is_one_sentence():
    tokens, targets = sequences(4, 1)
    whole = ProbeBatch.of_batch(tokens, targets)
    with pytest.raises(InputError, match="each needs a counted token"):
        ProbeBatch.of_batch(tokens, torch.full_like(targets, -100))
    with pytest.raises(InputError, match="matrices of one shape"):
        ProbeBatch.of_batch(tokens, targets[:, 1:])
    with pytest.raises(InputError, match=r"no module 'layers\.9'"):
        suite_of(Network(), ["layers.9"], whole, whole)
    with pytest.raises(InputError, match="micro_batch=0"):
        suite_of(Network(), NAMES, whole, whole, micro_batch=0)
    with pytest.raises(InputError, match="ran 0 times"):
        suite_of(Network(), ["layers"], whole, whole).measure()
    with pytest.raises(ValidationError, match="one pattern has no neighbour"):
        ProbeSettings(sequences=1)
    assert ProbeSettings(sequences="1k", every=0).sequences == 1000


def test_a_loss_beyond_floating_numbers_has_a_reason():
    """Balls of vanishing volume: log Z is an ordinary number, 1/Z is not."""
    patterns = 1e-3 * torch.randn(5, 256)
    measurement = Radius().measure_layer(suite_of(Network()).context, LayerPatterns(0, "layers.0", patterns, patterns))
    assert measurement.scalars["partition/layer_00/loss_energy_squared"] < -1000
    assert "beyond the range" in measurement.reasons["partition/layer_00/loss_paper_squared"]
    assert all(math.isfinite(value) for value in measurement.scalars.values())


def test_a_number_that_no_record_can_hold_has_a_reason(tmp_path):
    """One value of 1e150 made readers take the whole record for a damaged line, and a resumed run cut it off."""
    measurement = Measurement()
    measurement.add("partition/layer_00/loss_paper_squared", 1e150)
    measurement.add("partition/layer_00/log_Z_squared", -345.4)
    assert list(measurement.scalars) == ["partition/layer_00/log_Z_squared"]
    assert "is 1e+150, beyond the range" in measurement.reasons["partition/layer_00/loss_paper_squared"]


class Given(Probe):
    """Keep what it is given, and return `tags`."""

    name = "given"
    tags = ("given/layer_00/x",)

    def reduce_logits(self, batch, logits_BTV):
        return tuple(logits_BTV.shape)

    def reduce_attention(self, retrieval):
        return tuple(retrieval.query_BHQK.shape)

    def measure(self, context, activations):
        self.activations = activations
        return Measurement(scalars=dict.fromkeys(self.tags, 1.0))


@pytest.mark.parametrize("wanted", ["patterns", "logits", "attention", None])
def test_a_probe_is_given_what_it_wants_and_no_more(wanted):
    class Wanting(Given):
        wants = () if wanted is None else (wanted,)

    inner = gpt2()
    whole, probe = whole_suite(inner, inner), Wanting()
    passes = []
    inner.register_forward_hook(lambda *_: passes.append(1))
    assert ProbeSuite(whole.context, [probe]).measure().scalars == {"given/layer_00/x": 1.0}
    found = probe.activations
    assert [layer.stored_PN.shape for layer in found.layers] == ([(10, 16)] * 2 if wanted == "patterns" else [])
    assert (found.first_input_QN is not None) == (wanted == "patterns")
    assert [shape[0] for shape in found.stored_logits] == ([3, 3, 3, 1] if wanted == "logits" else [])
    assert [shape[0] for shape in found.query_logits] == ([3, 3, 1] if wanted == "logits" else [])
    assert {t: [shape[0] for shape in kept] for t, kept in found.attention.items()} == (
        {0: [3, 3, 1], 1: [3, 3, 1]} if wanted == "attention" else {}
    )
    assert len(passes) == {"patterns": 7, "logits": 7, "attention": 2 * 3, None: 0}[wanted]


def test_probes_of_one_suite_cannot_take_each_others_tags():
    class Same(Given):
        groups = ("radius",)

    context = suite_of(Network()).context
    with pytest.raises(InputError, match="probes radius and given both have tags radius/"):
        ProbeSuite(context, [Radius(), Same()])
    probe = Given()
    probe.tags = ("energy/x",)
    with pytest.raises(InputError, match="probe given returned the tag 'energy/x'; its tags are given/"):
        ProbeSuite(context, [probe]).measure()


def test_a_model_without_logits_has_a_reason():
    class Hidden(Network):
        def forward(self, tokens_BT):
            return self.hidden(tokens_BT)[-1][0]

    result = suite_of(Hidden()).measure()
    assert "does not return logits of shape (2, 6)" in result.reasons["memorisation"]
    assert not [tag for tag in result.scalars if tag.startswith("memorisation")]
    assert "energy/global/E_mean" in result.scalars
    assert Activations().logits_reason is None
