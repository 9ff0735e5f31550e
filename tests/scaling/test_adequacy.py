"""A law speaks of k where it describes the points and these determine it; made tables whose truth is known."""

import numpy as np
import pandas as pd
import pytest

from amscale.scaling.estimate import EXPONENT
from amscale.scaling.fit import fit_table
from amscale.scaling.laws.adequacy import profile
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.coupled import Coupled
from amscale.scaling.laws.fitting import fit_law
from amscale.scaling.laws.law import HUBER_LOG, Rows

pytestmark = pytest.mark.slow

N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(2e7, 2e10, 7)))


def fitted(N, D, loss, noise=0.0, seeds=1, random=0):
    draw = np.random.default_rng(random)
    columns = [np.repeat(column, seeds) for column in (N, D, loss)]
    columns[2] = columns[2] * np.exp(noise * draw.normal(size=len(columns[2])))
    return fit_table(pd.DataFrame(dict(zip(("N", "D", "loss"), columns, strict=True))), resamples=200)


def additive(k=1.0, alpha=0.34):
    return 1.7 + 400 * N**-alpha + 900 * D ** -(k * alpha)


def test_the_coupled_law_is_told_from_the_additive_one():
    fit = fitted(N, D, 1.1 + (2.1e5 * N**-0.85 + 1.7e4 * D**-0.62) ** 0.4, 0.002, random=1)
    assert fit["k_coupled"].interval[0] < 0.62 / 0.85 < fit["k_coupled"].interval[1]
    assert fit["floor_coupled"].interval[0] < 1.1 < fit["floor_coupled"].interval[1]
    assert fit["kappa_coupled"].interval[0] < 0.4 < fit["kappa_coupled"].interval[1]
    assert fit["kappa_coupled"].rejected == (1.0,)
    assert fit["k_coupled"].details["recommended"]
    for id in ("k_chinchilla", "floor_chinchilla", "k_kaplan"):
        assert "times that of the law “coupled”" in fit[id].reason
        assert not fit[id].tests


def test_the_additive_law_is_not_called_coupled_and_kaplan_has_no_say():
    fit = fitted(N, D, additive(), 0.003)
    assert fit["k_chinchilla"].interval[0] < 1 < fit["k_chinchilla"].interval[1]
    assert {0.5, 2} <= {test.k for test in fit["k_chinchilla"].tests if not test.how.startswith("inside")}
    assert fit["k_chinchilla"].rejected == (2, 4)
    assert not fit["kappa_coupled"].rejected
    assert fit["k_kaplan"].value is None


def test_seeds_tell_a_law_that_does_not_describe_the_points():
    kaplan = (0.3 * (N / 1e6) ** -0.2 + (D / 2e7) ** -1.0) ** 0.1 * 3
    fit = fitted(N, D, kaplan, 0.001, seeds=3)
    assert fit["k_kaplan"].interval[0] < 5 < fit["k_kaplan"].interval[1] or fit["k_kaplan"].value is None
    assert "lack of fit" in (fit["floor_power_c"].reason or "")


@pytest.mark.parametrize("ratio", [1.0, 1.1])
def test_nothing_speaks_of_k_where_D_follows_N(ratio):
    sizes = np.geomspace(1e7, 1e10, 12)
    tokens = 20 * sizes * ratio ** np.random.default_rng(1).normal(size=12)
    fit = fitted(sizes, tokens, 1.7 + 10 * sizes**-0.2 + 200 * tokens**-0.4, 0.0003)
    exponents = [item for item in fit.estimates if item.group == EXPONENT]
    assert len(exponents) > 5
    assert [item.id for item in exponents if item.value is not None] == []
    assert "D = 20" in fit["k_chinchilla"].reason


def test_a_floor_above_a_measured_loss_is_no_floor():
    """A loss that falls in D alone, and one run far below the others: the law's floor is above that run's loss."""
    tokens = np.tile(np.geomspace(1e7, 1e9, 12), 2)
    loss = 2 + 3e3 * tokens**-0.5
    loss[-1] = 1.9
    fit = fitted(np.repeat([1e7, 2e7], 12), tokens, loss)
    assert fit["floor_power_d"].reason.endswith("is above 1.9, a loss that was measured: it is no floor")


def test_where_the_profile_rises():
    """k = ½ and 2 describe a line of the plane equally, and the exponents near 1 do not: the profile holds both."""
    sizes = np.geomspace(1e7, 1e10, 15)
    loss = (1.7 + 10 * sizes**-0.2 + 200 * (20 * sizes) ** -0.4) * np.exp(
        3e-4 * np.random.default_rng(0).normal(size=15)
    )
    rows = Rows(sizes, 20 * sizes, loss, None, 120 * sizes**2)
    found = profile(fit_law(Chinchilla(), rows, HUBER_LOG), rows)
    assert found.interval[0] <= 0.5 < 2 <= found.interval[1]
    assert "every k" in profile(fit_law(Coupled(), rows, HUBER_LOG), rows).reason


@pytest.mark.parametrize("random", [1, 2])
def test_losses_without_a_floor_leave_k_determined_and_a_floor_of_nothing_possible(random):
    fit = fitted(N, D, 1.2 * (N / 1e8) ** -0.34 + 1.2 * (D / 2e9) ** -0.34, 0.003, random=random)
    k, floor = fit["k_chinchilla"], fit["floor_chinchilla"]
    assert k.interval[0] < 1 < k.interval[1], k.reason
    assert floor.interval[0] == 0 if floor.interval else "show none above" in floor.reason


def test_repeats_that_fade_determine_k_where_parameters_do_not():
    """Without a decay of parameters R_N* ends at its bound: the law is then a simpler one, and holds."""
    N, D, passes = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 5), [1e8, 8e8, 5e9], [1, 2, 4, 8, 16]))
    worth = D * (1 + 15 * (1 - np.exp(-(passes - 1) / 15)))
    loss = 1.7 + 1.2 * (N / 1e8) ** -0.34 + 1.2 * (worth / 2e9) ** -0.34
    loss *= np.exp(0.003 * np.random.default_rng(0).normal(size=len(N)))
    fit = fit_table(pd.DataFrame({"N": N, "D": D, "tokens": D * passes, "loss": loss}), resamples=200)
    for id, truth in (("k_data_constrained", 1), ("floor_data_constrained", 1.7)):
        assert fit[id].interval is not None, fit[id].reason
        assert fit[id].interval[0] < truth < fit[id].interval[1]
