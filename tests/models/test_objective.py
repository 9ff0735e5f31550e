"""What training minimises beside the cross-entropy that it reports."""

import torch

from amscale.training.loss import objective, summed_loss


def test_z_loss_and_smoothing_against_their_definitions():
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(2, 5, 7, generator=generator)).requires_grad_()
    targets = torch.randint(7, (2, 5), generator=generator)
    targets[0, 3:] = -100
    minimised, plain = objective(logits, targets, 0.0, 0.0)
    assert minimised is plain
    assert plain.item() == summed_loss(logits, targets).item()
    z = smooth = 0.0
    for b in range(2):
        for t in range(5):
            if targets[b, t] != -100:
                p = torch.log_softmax(logits[b, t], -1)
                z += 1e-2 * torch.log(torch.exp(logits[b, t]).sum()) ** 2
                smooth += -(0.9 * p[targets[b, t]] + 0.1 * p.mean())
    for z_loss, smoothing, expected in ((1e-2, 0.0, z + plain), (0.0, 0.1, smooth), (1e-2, 0.1, z + smooth)):
        minimised, reported = objective(logits, targets, z_loss, smoothing)
        torch.testing.assert_close(minimised, expected)
        assert reported.item() == plain.item()
        (gradient,) = torch.autograd.grad(minimised, logits)
        assert (gradient[0, 3:] == 0).all()


def test_a_batch_where_nothing_counts_gives_zero():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    minimised, plain = objective(logits, torch.full((1, 3), -100), 1e-3, 0.1)
    assert minimised.item() == plain.item() == 0
    minimised.backward()
    assert (logits.grad == 0).all()
