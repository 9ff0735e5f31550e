"""The whole quick sweep on a GPU. Other tests that need one are beside those of their subject: `pytest -m gpu`."""

import json

import pytest
from helpers.commands import check_results, command
from helpers.devices import on_gpu


@pytest.mark.slow
@pytest.mark.parametrize("device", [on_gpu("cuda")])
def test_the_quick_sweep_trains_in_bf16_and_fits(device, tmp_path):
    done = command("sweep", f"storage={tmp_path}", f"launch.device={device}", timeout=6000)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("quick/trials/*/result.json")]
    check_results(results, 12, "cuda", "bf16")
    assert (tmp_path / "quick" / "fit.json").is_file()
    assert (tmp_path / "quick" / "report.html").is_file()
