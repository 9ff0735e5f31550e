"""A sweep on a CUDA device, where there is one."""

import pytest
import torch
from helpers.commands import TINY, command

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]


def test_trials_train_in_bf16_on_the_device(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    done = command(
        "sweep", str(tmp_path / "tiny.yaml"), f"storage={tmp_path / 'r'}", "data.size=4k", "launch.device=cuda"
    )
    assert done.returncode == 0, done.stderr
    results = [path.read_text() for path in tmp_path.glob("r/tiny/trials/*/result.json")]
    assert len(results) == 2
    assert all('"device": "cuda' in text and '"precision": "bf16"' in text for text in results)
