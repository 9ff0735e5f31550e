"""The cross-entropy in pieces against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

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
