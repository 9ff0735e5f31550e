"""The cross-entropy in pieces against PyTorch's own."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from amscale.data import Sequences, Subset
from amscale.training import loss


@pytest.mark.parametrize("piece", [1, 700, 2**21])
def test_in_pieces_it_is_pytorchs_cross_entropy(piece, monkeypatch):
    """Loss and gradient, with targets that do not count, logits far apart and rows in pieces that do not fit."""
    monkeypatch.setattr(loss, "LARGE_LOGITS", 0)
    monkeypatch.setattr(loss, "_PIECE", piece)
    generator = torch.Generator().manual_seed(0)
    logits = 20 * torch.randn(3, 11, 97, generator=generator)
    targets = torch.randint(97, (3, 11), generator=generator)
    targets[1, 4:] = -100
    ours, theirs = logits.clone().requires_grad_(), logits.clone().double().requires_grad_()
    found = loss.summed_loss(ours, targets)
    expected = F.cross_entropy(theirs.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    (found * 0.37).backward()
    (expected * 0.37).backward()
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-7)


def test_without_counted_targets_it_is_zero(monkeypatch):
    monkeypatch.setattr(loss, "LARGE_LOGITS", 0)
    logits = torch.randn(2, 3, 5).requires_grad_()
    found = loss.summed_loss(logits, torch.full((2, 3), -100))
    found.backward()
    assert found == 0
    assert not logits.grad.any()


def test_a_large_vocabulary_is_held_twice(monkeypatch):
    """What autograd keeps for the backward pass: the logits, and no second array of their size."""
    monkeypatch.setattr(loss, "LARGE_LOGITS", 1000)
    logits = torch.randn(2, 50, 300).requires_grad_()
    targets = torch.randint(300, (2, 50))
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss.summed_loss(logits, targets)
    assert sum(kept.values()) < 1.1 * logits.numel() * 4
    kept.clear()
    monkeypatch.setattr(loss, "LARGE_LOGITS", 10**9)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss.summed_loss(logits, targets)
    assert logits.untyped_storage().data_ptr() not in kept  # PyTorch's keeps the log-probabilities instead
    assert sum(kept.values()) > logits.numel() * 4


class _Table(torch.nn.Module):
    """Logits of the next token that depend on the token alone."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(11, 11)

    def forward(self, tokens_BT):
        return self.table(tokens_BT)


@pytest.mark.parametrize(("world", "spaced"), [(1, False), (3, False), (3, True)])
def test_an_evaluation_does_not_depend_on_how_it_is_cut(world, spaced, monkeypatch):
    """Sequences of unlike length, in order of length, over ranks; the error is that of the sequences' sums."""
    monkeypatch.setattr(loss, "_EVALUATED_TOKENS", 40)
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(1, 20, 50))])
    subset = Subset(generator.integers(0, 11, offsets[-1]).astype(np.uint16), offsets, 0, "document")
    torch.manual_seed(0)
    model, sequences = _Table(), Sequences(subset, 16)
    chosen = np.arange(30) * sequences.sequences_total // 30 if spaced else np.arange(30)
    inputs, targets = (torch.from_numpy(array) for array in sequences.batch(chosen))
    each_BT = F.cross_entropy(model(inputs).transpose(1, 2), targets, reduction="none").double().detach()
    count_B, sum_B = (targets != -100).sum(1), each_BT.sum(1)
    expected = sum_B.sum() / count_B.sum()
    error = (sum_B - expected * count_B).square().sum().sqrt() / count_B.sum()
    parts = []
    for rank in range(world):
        here = SimpleNamespace(num_processes=world, process_index=rank, device=torch.device("cpu"))
        here.reduce = lambda sums, reduction: parts.append(sums) or sums
        loss.Evaluation(sequences, 30, 2, 11, spaced).measure(here, model)
        loss.Evaluation(sequences, 30, 2, 11, spaced).loss(here, model)
    total = sum(parts[1::2])
    assert float(total[0] / total[1]) == pytest.approx(float(expected), rel=1e-6)
    assert model.training
    here.reduce = lambda sums, reduction: sum(parts[::2])
    found = loss.Evaluation(sequences, 30, 2, 11, spaced).measure(here, model)
    assert found.loss == pytest.approx(float(expected), rel=1e-6)
    assert found.standard_error == pytest.approx(float(error), rel=1e-4)
    assert found.tokens == int(count_B.sum())
