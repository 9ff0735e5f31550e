import numpy as np
import pandas as pd
import pytest

from amscale.scaling.laws.chinchilla import bootstrap_chinchilla, fit_chinchilla
from amscale.scaling.laws.search import HUBER_LOG, SQUARED
from amscale.scaling.nopt import optimum
from amscale.scaling.power_law import fit_loglog


@pytest.fixture(scope="module")
def points(published):
    frame = pd.read_csv(published / "chinchilla_points" / "svg_extracted_data.csv").sort_values("loss")
    N, C = frame["Model Size"].to_numpy(), frame["Training FLOP"].to_numpy()
    return N, C / (6 * N), frame["loss"].to_numpy(), C


def test_recipe_1_reaches_the_least_objective(points):
    N, D, loss, _ = (column[:-5] for column in points)
    fit = fit_chinchilla(N, D, loss, HUBER_LOG)
    assert fit.value <= 1.01828e-3
    assert pytest.approx(482.01, rel=0.01) == fit.A
    assert pytest.approx(2085.43, rel=0.03) == fit.B
    assert pytest.approx(1.8172, rel=0.001) == fit.E
    assert fit.alpha == pytest.approx(0.3478, rel=0.002)
    assert fit.beta == pytest.approx(0.3658, rel=0.004)
    assert fit.exponent == pytest.approx(1.057, abs=0.001)
    assert not fit.flags


def test_recipe_1_bootstrap_matches_the_published_intervals(points):
    N, D, loss, _ = (column[:-5] for column in points)
    samples = bootstrap_chinchilla(N, D, loss, fit_chinchilla(N, D, loss, HUBER_LOG), 1000).values
    low, high = np.quantile(samples, [0.025, 0.975], axis=0)
    assert (low[2], high[2]) == pytest.approx((1.769, 1.871), abs=0.008)
    assert (low[3], high[3]) == pytest.approx((0.317, 0.373), abs=0.006)
    assert (low[4], high[4]) == pytest.approx((0.331, 0.415), abs=0.008)


def test_five_outliers_move_b_sixfold(points):
    N, D, loss, _ = points
    fit = fit_chinchilla(N, D, loss, HUBER_LOG)
    expected = (495.7, 12846, 1.8913, 0.3493, 0.4531)
    assert (fit.A, fit.B, fit.E, fit.alpha, fit.beta) == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1e21, (1.9051, 4.0005, 1.0509, 0.3511, 0.4587)), (np.inf, (1.8828, 4.0598, 1.0745, 0.3576, 0.4276))],
)
def test_recipe_2_to_four_digits(points, limit, expected):
    N, D, loss, _ = (column[points[3] < limit][:-5] for column in points)
    fit = fit_chinchilla(N / 1e6, D / 1e9, loss, SQUARED)
    assert (fit.E, fit.A, fit.B, fit.alpha, fit.beta) == pytest.approx(expected, abs=6e-5)
    if limit < np.inf:
        assert fit.value == pytest.approx(0.062414, abs=6e-7)


def test_floor_that_the_data_do_not_hold_is_flagged():
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e8, 4), np.geomspace(1e7, 1e9, 4)))
    fit = fit_chinchilla(N, D, 30 * N**-0.2 + 40 * D**-0.2, SQUARED)
    assert any("ln E at its lower bound" in flag for flag in fit.flags)


def test_nanochat_one_set_of_runs_has_three_exponents(published):
    frame = pd.read_csv(published / "nanochat" / "optima.csv")
    found = [
        (fit_loglog(rows["flops"], rows["eff_params"]).slope, fit_loglog(rows["tokens"], rows["eff_params"]).slope)
        for _, rows in frame.groupby("convention", sort=False)
    ]
    assert found == [
        (pytest.approx(a, abs=6e-4), pytest.approx(b, abs=6e-3))
        for a, b in ((0.524, 1.10), (0.366, 0.75), (0.681, 1.70))
    ]


def test_optimum_is_the_vertex_and_an_edge_is_refused():
    N = np.geomspace(1e6, 1e8, 5)
    bowl = 2 + 0.1 * (np.log(N) - np.log(2e7)) ** 2
    found = optimum(1.0, N, bowl)
    assert pytest.approx(2e7, rel=1e-6) == found.N
    assert found.loss == pytest.approx(2)
    assert "no interior minimum" in optimum(1.0, N, np.linspace(3, 2, 5)).reason
    assert "needs 3" in optimum(1.0, N[:2], bowl[:2]).reason
