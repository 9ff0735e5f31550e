"""Batches that are made ahead: each row of a global batch goes to one forward pass of one rank."""

import numpy as np
import pytest
import torch

from amscale.data import IGNORED, Batches, Subset
from amscale.training.feed import Feed

TOKENS = np.arange(1000, dtype=np.uint16)
SUBSET = Subset(tokens=TOKENS, offsets=np.array([0, 1000]), packing="stream", end_token=0)


@pytest.mark.parametrize("in_thread", [False, True])
def test_the_ranks_share_the_rows_of_every_step(in_thread):
    batches = Batches(SUBSET, 8, 11, 0)
    feeds = [Feed(batches, rank, 2, 3, 2, pinned=False) for rank in range(2)]
    with feeds[0].ahead(4, 7, in_thread) as first, feeds[1].ahead(4, 7, in_thread) as second:
        for step, (one, other) in enumerate(zip(first, second, strict=True), start=4):
            inputs, targets = (torch.from_numpy(array) for array in batches.batch(step - 1))
            ordered = [(feed.inputs[m], feed.targets[m]) for m in range(2) for feed in (one, other)]
            assert torch.equal(torch.cat([pair[0] for pair in ordered])[:11], inputs)
            assert torch.equal(torch.cat([pair[1] for pair in ordered])[:11], targets)
            assert (ordered[-1][1][-1] == IGNORED).all()  # the twelfth row
            assert one.counted == other.counted == int((targets != IGNORED).sum())
    assert step == 7
