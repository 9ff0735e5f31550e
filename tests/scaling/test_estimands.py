import io
import math

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from amscale.errors import InputError
from amscale.reporting.estimates_table import print_fit
from amscale.scaling.capacity import Capacity, capacity_estimates
from amscale.scaling.collapse import exponent_from_collapse
from amscale.scaling.dstar import DStar
from amscale.scaling.fit import fit_table
from amscale.scaling.isoflop import budgets, exponents_from_budgets, with_optimum
from amscale.scaling.laws import Rows
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.next_capacity import capacity_cells
from amscale.scaling.next_cells import expected_flops, next_cells
from amscale.scaling.optima import exponent_from_contours
from amscale.scaling.points import Point, PointTable
from amscale.scaling.power_law import dstar_sensitivity, exponent_from_dstar, fit_loglog
from amscale.scaling.reading import read_sweep

LAW = np.array([482.01, 2085.43, 1.8172, 0.3478, 0.3658])
K = 0.3658 / 0.3478


def table_of(N, D, loss, flops=None):
    flops = 6 * N * D if flops is None else flops
    return PointTable(
        "made",
        "N",
        [Point(f"{i}", n, d, x, None, c) for i, (n, d, x, c) in enumerate(zip(N, D, loss, flops, strict=True))],
    )


def square(sizes=6, amounts=6):
    return (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e8, 1e11, amounts)))


def chinchilla(N, D):
    return Chinchilla().loss(LAW, Rows(N, D, N, None, N))


@pytest.mark.parametrize("shift", [0.3, 1, 3])
def test_iso_flop_optimum_does_not_lean_to_the_middle_of_the_grid(shift):
    random = np.random.default_rng(0)
    C = np.repeat(np.geomspace(1e18, 1e21, 6), 9) * np.exp(random.uniform(-0.02, 0.02, 54))
    N = shift * Chinchilla().compute_optimum(LAW, C) * np.tile(np.geomspace(0.05, 20, 9), 6)
    result, a, b = exponents_from_budgets(table_of(N, C / (6 * N), chinchilla(N, C / (6 * N))), (1, 2))
    assert result.value == pytest.approx(K, abs=0.03)
    assert result.interval[0] < K < result.interval[1]
    assert result.rejected == (1, 2)
    assert a.value + b.value == pytest.approx(1, abs=0.01)
    assert b.interval[0] < 1 / (1 + K) < b.interval[1]


def test_iso_flop_valleys_whose_skew_drifts_keep_their_exponent():
    """The bottoms lie on C^0.6; the valleys are steeper on one side, and the more so the larger C: no law has such."""
    random = np.random.default_rng(3)
    C = np.repeat(np.geomspace(1e16, 1e20, 9), 11)
    bottom = 1e5 * (C / 1e16) ** 0.6
    N = bottom * np.tile(np.geomspace(0.1, 12, 11), 9) * np.exp(random.uniform(-0.1, 0.1))
    u, skew = np.log(N / bottom), 0.1 + 0.03 * np.log(C / 1e16)
    valley = 0.04 * np.where(u < 0, (1 - skew / 2), (1 + skew / 2)) * u**2
    loss = (1.7 + 3 * (C / 1e16) ** -0.1 + valley) * np.exp(0.001 * random.normal(size=len(C)))
    fitted = fit_table(pd.DataFrame({"N": N, "D": C / (6 * N), "C": C, "loss": loss}), resamples=100)
    assert fitted["a_isoflop"].value == pytest.approx(0.6, abs=0.03)
    assert fitted["a_isoflop"].interval[0] < 0.6 < fitted["a_isoflop"].interval[1]
    assert fitted["k_isoflop"].interval[0] < 1.5 < fitted["k_isoflop"].interval[1]
    for estimate in fitted.estimates:
        if estimate.interval and estimate.id.startswith("k_"):
            assert estimate.interval[0] < 1.5 < estimate.interval[1], estimate.id


def test_iso_flop_drops_and_counts_budgets_whose_minimum_is_at_an_edge():
    C = np.repeat(np.geomspace(1e18, 1e21, 6), 7)
    N = Chinchilla().compute_optimum(LAW, C) * np.tile(np.geomspace(0.08, 12, 7), 6)
    N[C > 5e20] *= 30
    result, *_ = exponents_from_budgets(table_of(N, C / (6 * N), chinchilla(N, C / (6 * N))), (1,))
    assert result.used == 5
    assert "least loss at the smallest N" in result.left_out[0]
    one = [with_optimum(item) for item in budgets(table_of(N[:3], C[:3] / (6 * N[:3]), np.array([3, 2, 3.0])))]
    assert "3 sizes; 4 are needed" in one[0].reason


@pytest.mark.parametrize(("k", "spread", "least"), [(2.0, 2.0, 0), (1.0, 10.0, 12)])
def test_iso_flop_minima_that_noise_puts_between_the_sizes_are_none(k, spread, least):
    """Runs about D = 20 N, as most are: at one C their sizes end near the optimum, or short of it."""
    found = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        N = 10 ** random.uniform(7, 9, 300)
        D = 20 * N * np.exp(random.uniform(-1, 1, 300) * np.log(spread))
        alpha, beta = 0.34 / np.sqrt(k), 0.34 * np.sqrt(k)
        loss = 1.7 + 1.2 * (N / 1e8) ** -alpha + 1.2 * (D / 2e9) ** -beta
        found += exponents_from_budgets(table_of(N, D, loss * np.exp(0.005 * random.normal(size=300))), (1,))[:1]
    known = [item for item in found if item.value is not None]
    assert len(known) >= least
    assert all(item.interval[0] <= k <= item.interval[1] for item in known)
    assert all("rises on both sides" in item.reason for item in found if item.value is None)


def test_contours_of_least_compute_have_the_exponent_of_the_law():
    N, D = square(8, 8)
    loss = chinchilla(N, D) * np.exp(0.002 * np.random.default_rng(0).normal(size=64))
    result = exponent_from_contours(table_of(N, D, loss), (1, 2, 4))
    assert result.interval[0] < K < result.interval[1]
    assert {test.value for test in result.tests if test.rejected} >= {2, 4}


def test_collapse_finds_the_exponent_of_a_loss_in_n_over_d_squared_and_none_without_one():
    N, D = square()
    noise = np.exp(0.005 * np.random.default_rng(0).normal(size=36))
    ratio = (N / 3e8) / (D / 3e9) ** 2
    result = exponent_from_collapse(table_of(N, D, (2 + 1 / (1 + ratio**0.3)) * noise), (1, 1.35, 2, 4), 200)
    assert {test.value for test in result.tests if not test.rejected} == {2}
    scores = result.details["unexplained_at"]
    assert scores["2"] < 0.05 < scores["1"]
    scattered = exponent_from_collapse(table_of(N, D, 2 + np.random.default_rng(1).normal(size=36) ** 2), (1,), 100)
    assert "does not collapse" in scattered.reason


def capacity_sweep(write_trial, folder, power, losses="train_evaluated"):
    """Models of N parameters hold 3·N^power bits (power 1) of text of entropy ln 32, and a little less beyond."""
    entropy = math.log(32)
    for i, N in enumerate((3e4, 1e5, 3e5, 1e6)):
        capacity = 3 * 1e5 * (N / 1e5) ** power * (1.02 if i % 2 else 0.98)
        full = capacity * math.log(2) / entropy
        for j, D in enumerate(full * np.array([0.25, 0.5, 1.3, 3, 8])):
            bits = min(D * entropy / math.log(2), capacity) * (1 - 0.03 * max(0, j - 2))
            loss = entropy - bits * math.log(2) / D
            write_trial(folder, f"{i}{j}", N, float(D), [4.0, 3.9], [loss] * 20, entropy=entropy, losses={losses: loss})


def test_capacity_in_proportion_to_n_rejects_the_square_root_and_the_other_way_round(tmp_path, write_trial):
    for power, kept in ((1.0, "C ∝ N (N ∝ D)"), (0.5, "C ∝ √N (what N ∝ D² would need)")):
        folder = tmp_path / str(power)
        capacity_sweep(write_trial, folder, power)
        bits, slope = capacity_estimates(read_sweep(folder))
        assert slope.value == pytest.approx(power, abs=0.02)
        assert [test.name for test in slope.tests if not test.rejected] == [kept]
    bits, _ = capacity_estimates(read_sweep(tmp_path / "1.0"))
    assert bits.value == pytest.approx(3, rel=0.01)


def test_capacity_names_its_train_loss_and_needs_a_maximum_and_an_entropy(tmp_path, write_trial):
    capacity_sweep(write_trial, tmp_path / "last", 1.0, losses="train_last")
    assert "with dropout as in training" in capacity_estimates(read_sweep(tmp_path / "last"))[1].remarks[0]
    rising = tmp_path / "rising"
    for i, N in enumerate((1e5, 1e6, 1e7)):
        for j, D in enumerate((1e3, 2e3, 4e3)):
            write_trial(rising, f"{i}{j}", N, D, [4.0], [0.1] * 9, entropy=3.0, losses={"train_evaluated": 0.1})
    slope = capacity_estimates(read_sweep(rising))[1]
    assert slope.reason == "C is known for 0 of 3 N; at least 3 are needed"
    assert "still rise at the largest D" in slope.left_out[0]
    write_trial(tmp_path / "text", "a", 1e5, 1e3, [4.0], [0.1] * 9, entropy=None)
    assert "entropy of the corpus is not known" in capacity_estimates(read_sweep(tmp_path / "text"))[0].reason


def test_k_from_dstar_is_shown_under_other_thresholds_and_windows(tmp_path, write_sweep):
    write_sweep(tmp_path, k=2.0)
    settings = dstar_sensitivity(read_sweep(tmp_path), 0.2, 0.04, (1, 2))
    assert {(s.threshold, s.window) for s in settings} == {(t, w) for t in (0.02, 0.04, 0.08) for w in (0.1, 0.2, 0.4)}
    # The gap of these sweeps is a power law: the threshold moves every D* by one factor and k not at all.
    assert all(s.k == pytest.approx(2, abs=0.25) for s in settings if s.k is not None)
    assert sum(s.k is not None for s in settings) >= 6


def test_next_cells_narrow_the_interval_and_are_new():
    N, D = square(4, 4)
    table = table_of(N, D, chinchilla(N, D) * np.exp(0.01 * np.random.default_rng(0).normal(size=16)))
    chosen = next_cells(table, 3)
    assert len(chosen.cells) == len(chosen.flops) == 3
    assert chosen.width_then < 0.9 * chosen.width_now
    assert not {cell for cell in chosen.cells} & set(zip(N, D, strict=True))
    assert chosen.flops == pytest.approx([6 * n * d for n, d in chosen.cells])
    # What it promises: the same noise with these cells added gives a narrower interval.
    more = next_cells(table, 4)
    assert more.width_then < chosen.width_then
    rows = Rows(N, D, D, None, 6 * N * 1e9)  # every run sees as many tokens, whatever its D
    assert expected_flops(rows, np.array([5e7]), np.array([7e9])) == pytest.approx(6 * 5e7 * 1e9)


def test_next_cells_of_a_censored_sweep_halve_the_widest_ignorance():
    N = np.array([1e6, 4e6, 1.6e7])
    lower, upper = np.array([1e3, 1.6e3, 3e3]), np.array([1.1e3, 2.6e3, 6e3])
    dstars = [DStar(*row, row[2], (), ()) for row in zip(N, lower, upper, strict=True)]
    table = table_of(N, upper, np.array([3, 2.5, 2.0]))
    chosen = next_cells(table, 1, dstars)
    assert chosen.cells == ((1.6e7, pytest.approx(math.sqrt(3e3 * 6e3))),)
    interval = exponent_from_dstar(dstars, "N", "").interval
    assert chosen.width_now == pytest.approx(interval[1] - interval[0])


def test_next_cells_by_dstar_are_at_sizes_that_can_be_run_again():
    N = np.array([1e6, 4e6, 1.6e7, 6.4e7])
    lower, upper = np.array([1e3, 1.6e3, 3e3, 9e3]), np.array([1.1e3, 2.6e3, 6e3, 1e4])
    dstars = [DStar(*row, row[2], (), ()) for row in zip(N, lower, upper, strict=True)]
    table = table_of(N, upper, np.array([3, 2.5, 2.0, 1.7]))
    chosen = next_cells(table, 4, dstars, sizes=[1e6, 2e6, 4e6, 6.4e7])  # a search by size does not find 16M again
    assert sorted(N for N, _ in chosen.cells) == [1e6, 4e6, 6.4e7]
    with pytest.raises(InputError, match=r"D\* is known on both sides for 2 N"):
        next_cells(table, 4, dstars, sizes=[1e6, 4e6])


def made_capacity(N, scatter=0.0):
    """N parameters that hold 2 N bits, the most of them at D = N^0.7."""
    bits, D = 2 * N * math.exp(scatter), N**0.7 * np.array([0.3, 0.9, 2.7])
    memorised = bits * (1 - 0.1 * np.log(D / N**0.7) ** 2)
    return Capacity(N, N, tuple(D), tuple(memorised), float(memorised.max()))


def test_next_cells_for_memorised_bits_narrow_the_slope_as_promised_and_surround_the_most_bits():
    random, sizes = np.random.default_rng(0), np.geomspace(1e3, 3e4, 5)
    old, promised, found = [], [], []
    for _ in range(200):
        known = [made_capacity(N, 0.1 * random.normal()) for N in sizes]
        cells, now, then = capacity_cells(known, 4, np.array([400.0, *sizes, 9e4]), math.inf)
        (N,) = {size for size, _ in cells}
        low, high = cells[1][1], cells[2][1]
        assert low < N**0.7 < high
        larger = [*known, made_capacity(N, 0.1 * random.normal())]
        fit = fit_loglog([item.N for item in larger], [item.bits for item in larger])
        for widths, (a, b) in ((old, now), (promised, then), (found, fit.interval)):
            widths.append(b - a)
    assert np.mean(found) == pytest.approx(np.mean(promised), rel=0.05)
    assert np.mean(promised) < 0.8 * np.mean(old)
    with pytest.raises(InputError, match=r"next=2: .* ask for 3 cells or more"):
        capacity_cells(known, 2, sizes * 2, math.inf)
    with pytest.raises(InputError, match="for none that is not in the sweep"):
        capacity_cells(known, 4, sizes, math.inf)


def test_next_cells_do_not_count_on_a_line_where_the_bits_fall_behind():
    """Measured: random tokens, 2500 steps, N = 1.68k to 19.3k; with N = 39.1k the interval was 0.653 to 1.003."""
    measured = {1680: 3275, 3672: 7966, 6432: 13363, 9960: 19834, 19320: 30751}
    known = [made_capacity(N, math.log(bits / (2 * N))) for N, bits in measured.items()]
    _, now, then = capacity_cells(known, 4, np.array([39120.0]), math.inf)
    assert now == pytest.approx((0.736, 1.107), abs=0.01)
    assert then == pytest.approx((0.653, 1.003), abs=0.02)
    cells, _, then = capacity_cells(known, 4, np.array([2580.0, 14300, 39120]), math.inf)
    assert 39120 not in {N for N, _ in cells}
    assert then[1] - then[0] < 0.28


def test_next_cells_follow_memorised_bits_where_no_law_shows(tmp_path, write_trial):
    capacity_sweep(write_trial, tmp_path, 1.0)
    table = read_sweep(tmp_path)
    chosen = next_cells(table, 4)
    slope = capacity_estimates(table)[1].interval
    assert chosen.width_now == pytest.approx(1 / slope[0] - 1 / slope[1])
    assert chosen.how.startswith("memorised bits")
    assert not {N for N, _ in chosen.cells} & set(table.N)


def test_no_note_is_printed_twice(fitted):
    out = io.StringIO()
    print_fit(fitted, Console(file=out, width=1000), grounds=True)
    lines = out.getvalue().splitlines()
    notes = lines[lines.index("grounds") :]
    assert len(notes) == len(set(notes)) > 10
