"""Memorised bits and exact continuations, against known answers."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from amscale import models
from amscale.models.families.vanilla import VanillaSettings
from amscale.probes import Activations, ProbeContext
from amscale.probes.interface import CorpusFacts
from amscale.probes.memorisation import Memorisation, MemorisationSettings
from amscale.probes.patterns import ProbeBatch

V, T, D = 8, 12, 10_000


def random_text(count, seed):
    """Sequences of uniformly random tokens, whose entropy is ln V, and an input mark before each."""
    targets = torch.randint(V, (count, T), generator=torch.Generator().manual_seed(seed))
    return ProbeBatch.of_batch(torch.cat([torch.full((count, 1), V - 1), targets[:, :-1]], 1), targets)


def measure(stored, queries, corpus, prefix=4, continuation=6):
    probe = Memorisation(MemorisationSettings(prefix=prefix, continuation=continuation))
    reduced = [
        [probe.reduce_logits(part, logits) for part, logits in zip(batch.split(3), answer.split(3), strict=True)]
        for batch, answer in (stored, queries)
    ]
    context = ProbeContext(nn.Identity(), [], stored[0], queries[0], corpus=corpus)
    return probe.measure(context, Activations(stored_logits=reduced[0], query_logits=reduced[1]))


def test_a_model_that_knows_the_text_by_heart_and_one_that_knows_nothing():
    """Perfect recall of uniform text is worth log2 V bits a token; a uniform guess is worth none."""
    train, validation = random_text(7, 0), random_text(5, 1)
    perfect = 200.0 * F.one_hot(train.targets_BT, V)
    blank = torch.zeros(5, T, V)
    corpus = CorpusFacts(math.log(V), D, 500)
    result = measure((train, perfect), (validation, blank), corpus)
    assert result.scalars["memorisation/bits"] == pytest.approx(3 * D)
    assert result.scalars["memorisation/bits_per_parameter"] == pytest.approx(3 * D / 500)
    assert result.scalars["memorisation/train_loss"] == pytest.approx(0, abs=1e-6)
    assert result.scalars["memorisation/validation_loss"] == pytest.approx(math.log(V))
    assert result.scalars["memorisation/exact_continuation_train"] == 1
    assert result.scalars["memorisation/exact_continuation_validation"] == 0
    blank = measure((train, torch.zeros(7, T, V)), (validation, blank), corpus)
    assert blank.scalars["memorisation/bits"] == pytest.approx(0, abs=0.01)


def test_one_wrong_token_anywhere_in_the_continuation_counts_and_outside_does_not():
    train = random_text(3, 0)
    logits = 9.0 * F.one_hot(train.targets_BT, V)
    for row, place in ((0, 3), (1, 4), (2, 9)):  # the continuation is 4 … 9
        logits[row, place] = logits[row, place].roll(1)
    result = measure((train, logits), (train, logits), None)
    assert result.scalars["memorisation/exact_continuation_train"] == pytest.approx(1 / 3)
    assert "not known" in result.reasons["memorisation/bits"]


def test_short_sequences_are_left_out_and_named_in_the_reason():
    train = random_text(4, 0)
    train.targets_BT[:2, 9:] = -100
    logits = 9.0 * F.one_hot(train.targets_BT.clamp(min=0), V)
    logits[:2] = 0
    result = measure((train, logits), (train, logits), None)
    assert result.scalars["memorisation/exact_continuation_train"] == 1
    train.targets_BT[:, 9:] = -100
    result = measure((train, logits), (train, logits), None)
    assert "has 4 + 6 tokens" in result.reasons["memorisation/exact_continuation_train"]


@pytest.mark.slow
def test_the_share_is_what_greedy_generation_gives():
    """Generated token by token, each appended to the prefix, by a model trained to know half of its text."""
    torch.manual_seed(0)
    model = models.build(models.solve(VanillaSettings(layers=1, width=32, heads=2, dropout=0.0), V, T))
    text = random_text(24, 2)
    known = text.first(12)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = F.cross_entropy(model(known.tokens_BT).flatten(0, 1), known.targets_BT.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        probe = Memorisation(MemorisationSettings(prefix=4, continuation=5))
        recall = probe.reduce_logits(text, model(text.tokens_BT))
        grown = text.tokens_BT[:, :5]
        for _ in range(5):
            grown = torch.cat([grown, model(grown)[:, -1:].argmax(-1)], 1)
        exact = int((grown[:, 5:] == text.targets_BT[:, 4:9]).all(1).sum())
    assert recall.reproduced == exact
    assert 0 < exact < 24
