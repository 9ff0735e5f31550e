"""A shorter form of benchmarks/scaling_coverage.py: intervals that are too narrow would fail here."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "scaling_coverage.py"


@pytest.fixture(scope="module")
def benchmark():
    if not PATH.is_file():
        pytest.skip(f"{PATH} is not there")
    spec = importlib.util.spec_from_file_location("scaling_coverage", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling_coverage"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "chinchilla 4 by 4, huber_log",
        "chinchilla 4 by 4, squared_log",
        "kaplan 4 by 4, squared_log",
        "associative 4 by 4, squared",
        "power in D 4 by 4, squared_log",
        "D*, 4 N, D ratio 1.2, noise 0.1",
        "iso-FLOP, grid centred at 0.4 of the optimum",
    ],
)
def test_intervals_hold_the_truth(benchmark, name):
    case = next(case for case in benchmark.cases() if case.name == name)
    for row in benchmark.coverage(case, 50, seed=1):
        # Of 50 sweeps 47.5 are expected; fewer than 43 has probability 0.01 where 95 % holds, and 0.9 at 80 %.
        assert row["covered"] >= 43 / 50, row
