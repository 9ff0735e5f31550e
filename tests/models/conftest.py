"""What the tests of the models share."""

import pytest
import torch
from torch.nn import functional as F

from amscale.models import build


@pytest.fixture(scope="session")
def kept_bytes():
    """Measures what a shape's model keeps for its backward pass."""

    def kept_bytes(shape, micro_batch, dtype):
        """Bytes of the distinct storages saved for backward, parameters aside, and of the logits."""
        model = build(shape).to(dtype).train()
        own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
        kept, held = {}, []

        def pack(x):
            storage = x.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
                held.append(storage)  # so that no address is used twice
            return x

        tokens = torch.randint(shape.vocabulary, (micro_batch, shape.context))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            logits = model(tokens)
            loss = F.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        logits_bytes = logits.numel() * (4 + (2 if dtype is torch.bfloat16 else 0))
        assert loss.requires_grad
        assert logits.untyped_storage().data_ptr() not in kept
        return sum(kept.values()) + logits_bytes

    return kept_bytes
