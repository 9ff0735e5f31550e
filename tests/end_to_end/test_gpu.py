"""The whole quick sweep and the benchmark on a GPU.

Other tests that need one are beside those of their subject, with one body for both devices: `pytest -m gpu` runs all.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import check_results, command, environment
from helpers.devices import DEVICES, on_gpu

pytestmark = pytest.mark.slow

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.mark.parametrize("device", [on_gpu("cuda")])
def test_the_quick_sweep_trains_in_bf16_and_fits(device, tmp_path):
    done = command("sweep", f"storage={tmp_path}", f"launch.device={device}", timeout=6000)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("quick/trials/*/result.json")]
    check_results(results, 12, device, "bf16")
    assert (tmp_path / "quick" / "fit.json").is_file()
    assert (tmp_path / "quick" / "report.html").is_file()


@pytest.mark.parametrize("device", DEVICES)
def test_the_benchmark_measures_and_the_plan_had_the_memory_right(device, tmp_path):
    """On a CPU two of its sides on a model of no size, whose memory is that of the libraries."""
    few = ["--device", "cpu", "--tiny", "--models", "gpt2", "--sides", "here", "plain"] if device == "cpu" else []
    output = tmp_path / "figures.json"
    line = [sys.executable, BENCHMARK, *few, "--json", output]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=1800, env=environment(), check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(output.read_text())
    every = [("gpt2", side) for side in ("here", "here+compile", "plain", "compiled")]
    every += [("llama", "here"), ("llama", "plain")]
    wanted = [("gpt2", "here"), ("gpt2", "plain")] if few else every
    assert [(one["model"], one["side"]) for one in found] == wanted
    for one in found:
        assert one["spread"][0] <= one["tokens_per_second"] <= one["spread"][1]
        assert one["peak_bytes"] > 1e8
        assert one["mfu"] is None or (device == "cuda" and 0 < one["mfu"] < 1)
        if device == "cuda" and one["side"] == "here":
            assert one["estimated_bytes"] == pytest.approx(one["peak_bytes"], rel=0.15)
    assert ("unmeasured on a GPU" in ran.stdout) == bool(few)
