"""A shorter form of benchmarks/scaling_coverage.py: intervals that are too narrow would fail here."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from amscale.scaling.bootstrap import bias_corrected_interval, percentile_interval

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


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "chinchilla 4 by 4, huber_log",
        "chinchilla 4 by 4, squared_log",
        "kaplan 4 by 4, squared_log",
        "associative 4 by 4, squared",
        "power in D 4 by 4, squared_log",
        "iso-FLOP, grid centred at 0.4 of the optimum",
        "collapse on N/D², 6 by 6, noise 0.03",
    ],
)
def test_intervals_hold_the_truth(benchmark, name):
    case = next(case for case in benchmark.cases() if case.name == name)
    for row in benchmark.coverage(case, 50, seed=1):
        # Of 50 sweeps 47.5 are expected; fewer than 43 has probability 0.01 where 95 % holds, and 0.9 at 80 %.
        assert row["covered"] >= 43 / 50, row


@pytest.mark.parametrize("start", ["D*, 6 N, k 2, D ratio 1.2, noise 0.1", "D*, 8 N, k 2, D ratio 1.5", "capacity"])
def test_intervals_of_the_quick_estimands_hold_the_truth_neither_too_rarely_nor_always(benchmark, start):
    case = next(case for case in benchmark.cases() if case.name.startswith(start))
    for row in benchmark.coverage(case, 500, seed=1):
        # 93 to 97 % and three standard errors of 500 sweeps; the test rejects what the interval leaves out.
        assert 0.905 < row["covered"] < 0.993, row
        assert row["rejected"] == pytest.approx(1 - row["covered"], abs=1e-9)


@pytest.mark.parametrize("number", [100, 200, 400])
def test_percentile_interval_of_few_draws_holds_one_more_draw_in_95_percent(number):
    random = np.random.default_rng(0)
    draws, more = random.normal(size=(4000, number)), random.normal(size=4000)
    ends = np.array([percentile_interval(row) for row in draws])
    assert np.mean((ends[:, 0] <= more) & (more <= ends[:, 1])) == pytest.approx(0.95, abs=0.009)
    middle = float(np.median(draws[0]))
    assert bias_corrected_interval(draws[0], middle) == pytest.approx(percentile_interval(draws[0]), abs=0.1)
