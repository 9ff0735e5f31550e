"""The devices of tests that have one body for CPU and GPU: the first runs everywhere, the others by `pytest -m gpu`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
TWO_GPUS = (
    *GPU,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason=f"{torch.cuda.device_count()} of 2 CUDA devices"),
)


def on_gpu(*values: Any, devices: int = 1, name: str | None = None) -> Any:
    """Return parameters of a test that needs so many GPUs."""
    return pytest.param(*values, marks=TWO_GPUS if devices == 2 else GPU, id=name)


DEVICES = ["cpu", on_gpu("cuda")]


@contextmanager
def occupied(leaving: float) -> Iterator[None]:
    """Hold the memory of the first GPU, but for `leaving` bytes: CUDA refuses more to any process."""
    free, _ = torch.cuda.mem_get_info(0)
    held = torch.empty(max(0, int(free - leaving)), dtype=torch.uint8, device="cuda:0")
    try:
        yield
    finally:
        del held
        torch.cuda.empty_cache()
