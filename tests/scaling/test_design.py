"""Degenerate tables: what the runs cannot tell is not determined, with the reason, also when rounding blurs it."""

import re

import numpy as np
import pandas as pd
import pytest

from amscale.scaling.collapse import exponent_from_collapse
from amscale.scaling.design import not_told_apart
from amscale.scaling.estimate import interval_test
from amscale.scaling.fit import fit_table
from amscale.scaling.laws import all_laws
from amscale.scaling.laws.compare import compare
from amscale.scaling.laws.estimates import law_estimates
from amscale.scaling.laws.law import rows_of
from amscale.scaling.optima import exponent_from_optima
from amscale.scaling.points import PointTable
from amscale.scaling.power_law import fit_loglog
from amscale.scaling.table import read_table

SIZES, AMOUNTS = np.geomspace(1e7, 1.6e8, 5), np.geomspace(2e8, 3.2e9, 5)
N, D = (axis.ravel() for axis in np.meshgrid(SIZES, AMOUNTS, indexing="ij"))
LINE = np.geomspace(1e7, 1e9, 25)
BLUR = 1 + 1e-12 * np.random.default_rng(0).normal(size=25)
NOISE = 1 + 0.01 * np.random.default_rng(1).normal(size=25)


def loss(N, D):
    return 1.7 + 400 * N**-0.35 + 900 * D**-0.35


def table_of(N, D, loss) -> PointTable:
    return read_table(pd.DataFrame({"N": N, "D": D, "loss": loss}))


def estimates(table: PointTable, *ids: str):
    """The estimates of some laws by their ids."""
    fitted = compare(rows_of(table), 100, {id: all_laws()[id] for id in ids})
    return {estimate.id: estimate for estimate in law_estimates(table, fitted, (1, 2))}


def is_not_determined(estimate) -> bool:
    return (estimate.value, estimate.interval, estimate.tests) == (None, None, ()) and bool(estimate.reason)


@pytest.mark.parametrize("blur", [1.0, BLUR])
def test_equal_losses_determine_nothing_and_every_estimate_says_so(blur):
    found = fit_table(pd.DataFrame({"N": N, "D": D, "loss": 3 * blur}), resamples=100)
    wanted = {"k_nopt", "k_isoflop", "k_isoloss", "k_collapse", "k_chinchilla", "k_kaplan", "k_associative"}
    assert wanted < set(found.ids)
    for estimate in found:
        assert is_not_determined(estimate)
        assert estimate.reason == "every loss is 3: nothing in these runs depends on N or D"


@pytest.mark.parametrize(
    ("D", "says"),
    [
        (LINE, "D = 1 N in every run"),
        (20 * LINE * BLUR, "D = 20 N in every run"),
        (np.round(20 * LINE, -5), "D = 20 N in every run"),
        (1e20 / LINE, r"D follows N\^-1 in every run"),
        (3 * LINE**0.5, r"D follows N\^0.5 in every run"),
        (1e9 * BLUR, "all runs have one D, 1e"),
    ],
)
def test_n_and_d_that_vary_together_determine_no_exponent(D, says):
    table = table_of(LINE, D, loss(LINE, D))
    assert re.match(says, not_told_apart(table.N, table.D))
    assert is_not_determined(exponent_from_optima(table, (1,)))
    assert is_not_determined(exponent_from_collapse(table, (1,), 100))


@pytest.mark.slow
def test_laws_in_both_have_neither_exponent_nor_floor_where_n_and_d_vary_together():
    found = estimates(table_of(LINE, LINE, loss(LINE, LINE) * NOISE), "chinchilla", "associative_half", "power_c")
    assert found["floor_power_c"].value == pytest.approx(1.7, abs=0.2)
    for id in ("k_chinchilla", "floor_chinchilla", "floor_associative_half"):
        assert is_not_determined(found[id])
        assert "D = 1 N in every run" in found[id].reason


def test_a_grid_tells_n_and_d_apart():
    assert not not_told_apart(N, D)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["N", "D"])
def test_a_loss_that_follows_one_of_n_and_d_has_no_exponent(axis):
    follows = 1.7 + (400 * N**-0.35 if axis == "N" else 900 * D**-0.35)
    table = table_of(N, D, follows * BLUR)
    for estimate in estimates(table, "chinchilla").values():
        assert is_not_determined(estimate)
        assert "bound" in estimate.reason
    found = estimates(table, "power_n", "power_d")
    kept, other = ("power_n", "power_d") if axis == "N" else ("power_d", "power_n")
    assert found[f"floor_{kept}"].value == pytest.approx(1.7)
    assert is_not_determined(found[f"floor_{other}"])


def test_runs_without_noise_do_not_reject_the_truth():
    found = estimates(table_of(N, D, loss(N, D)), "chinchilla")["k_chinchilla"]
    assert found.value == pytest.approx(1)
    assert found.rejected == (2,)
    assert not interval_test("", 1.0, (1 + 1e-9, 1 + 2e-9), "").rejected
    assert interval_test("", 1.0, (1.001, 1.002), "").rejected
    line = fit_loglog([1, 2, 4, 8], [1, 2 * (1 + 1e-12), 4, 8])
    assert (line.test("", 1).rejected, line.test("", 1).p) == (False, 1)
    assert line.test("", 2).rejected


@pytest.mark.slow
@pytest.mark.parametrize("losses", [20 - 0.5 * np.log(N) - 0.3 * np.log(D), 100 * N**-0.1 * D**-0.1])
def test_losses_without_curvature_have_no_exponent(losses):
    for id, estimate in estimates(table_of(N, D, losses * BLUR), "chinchilla", "kaplan", "associative").items():
        assert is_not_determined(estimate), id


def test_an_optimum_that_falls_with_d_is_no_exponent():
    u = np.log(N / 4e7)
    falling = 3 + 0.1 * (u + 0.5 * np.log(D / 8e8)) ** 2
    assert exponent_from_optima(table_of(N, D, falling), (1,)).reason == "N_opt does not grow with D"
