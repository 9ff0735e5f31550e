import warnings

import numpy as np
import pytest

from amscale.scaling.laws import Rows, all_laws
from amscale.scaling.laws.associative import Associative, AssociativeHalf
from amscale.scaling.laws.chinchilla import Chinchilla, ChinchillaSeen, OneExponent
from amscale.scaling.laws.compare import aicc, compare, held_out_error, resample_law
from amscale.scaling.laws.coupled import Coupled
from amscale.scaling.laws.data_constrained import DataConstrained
from amscale.scaling.laws.fitting import fit_law
from amscale.scaling.laws.kaplan import Kaplan
from amscale.scaling.laws.law import OBJECTIVES, SQUARED, SQUARED_LOG
from amscale.scaling.laws.overfitting import Overfitting
from amscale.scaling.laws.power import PowerC, PowerN
from amscale.scaling.optima import optimum


def fit_chinchilla(N, D, loss, objective):
    return fit_law(Chinchilla(), Rows(N, D, loss, None, 6 * N * D), objective)


def test_floor_that_the_data_do_not_hold_is_flagged():
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e8, 4), np.geomspace(1e7, 1e9, 4)))
    fit = fit_chinchilla(N, D, 30 * N**-0.2 + 40 * D**-0.2, SQUARED)
    assert any("ln E at its lower bound" in flag for flag in fit.flags)


def test_a_scale_of_kaplan_that_rounds_to_0_has_no_part():
    rows = Rows(np.array([1e3, 1e4]), np.array([1e4, 1e6]), np.ones(2), None, np.ones(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = Kaplan().loss(np.array([0.0, 1e5, 0.001, 0.5]), rows)
    np.testing.assert_allclose(loss, (1e5 / rows.D) ** 0.5)


def test_optimum_is_the_vertex_and_an_edge_is_none():
    N = np.geomspace(1e6, 1e8, 5)
    bowl = 2 + 0.1 * (np.log(N) - np.log(2e7)) ** 2
    found = optimum(1.0, N, bowl)
    assert pytest.approx(2e7, rel=1e-6) == found.N
    assert found.loss == pytest.approx(2)
    assert "no interior minimum" in optimum(1.0, N, np.linspace(3, 2, 5)).reason
    assert "needs 3" in optimum(1.0, N[:2], bowl[:2]).reason


MADE = (
    (Chinchilla(), (482.0, 2085.0, 1.8172, 0.3478, 0.3658)),
    (ChinchillaSeen(), (482.0, 2085.0, 1.8172, 0.3478, 0.3658)),
    (OneExponent(), (482.0, 900.0, 1.8172, 0.35)),
    (Coupled(), (5e4, 3e5, 1.1, 0.85, 0.62, 0.4)),
    (Overfitting(), (float(np.log(50_257)), 1.9, 40.0, 0.25, 300.0, 0.35, 3e-3, 0.5, 0.45)),
    (Kaplan(), (8.8e12, 3e13, 0.095, 0.114)),
    (DataConstrained(), (482.0, 2085.0, 1.8172, 0.3478, 0.3658, 15.0, 5.0)),
    (Associative(), (1.3, -13.0, 0.5)),
    (AssociativeHalf(), (1.3, -13.0)),
    (PowerN(), (60.0, 1.8, 0.21)),
    (PowerC(), (1500.0, 1.7, 0.16)),
)


def made_rows():
    N, D, epochs = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e10, 4), np.geomspace(1e8, 1e11, 4), [1, 4, 16]))
    return Rows(N, D, np.ones(len(N)), D * epochs, 6 * N * D * epochs)


def with_loss(law, natural):
    rows = made_rows()
    return Rows(rows.N, rows.D, law.loss(np.array(natural), rows), rows.tokens, rows.flops)


@pytest.mark.parametrize(("law", "natural"), MADE, ids=lambda value: getattr(value, "name", ""))
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.name)
def test_every_law_finds_its_own_parameters_and_has_the_right_derivatives(law, natural, objective):
    rows = with_loss(law, natural)
    fit = fit_law(law, rows, objective)
    assert tuple(fit.parameters.values()) == pytest.approx(natural, rel=2e-3)
    assert fit.predict(rows) == pytest.approx(rows.loss, rel=1e-4)
    problem = law.problem(rows)
    theta = fit.theta + 0.01
    _, jacobian = problem.predict(theta[None])
    for index in range(len(theta)):
        step = np.zeros_like(theta)
        step[index] = 1e-6
        slope = (problem.predict((theta + step)[None])[0] - problem.predict((theta - step)[None])[0])[0] / 2e-6
        assert jacobian[0, :, index] == pytest.approx(slope, abs=1e-6 * max(1, np.abs(slope).max()))


def test_laws_with_an_exponent_agree_on_what_it_means():
    assert Kaplan().exponent(np.array([1, 1, 0.1, 0.2])) == pytest.approx(2)
    assert Associative().exponent(np.array([1, 1, 0.5])) == pytest.approx(2)
    natural = np.array([482.0, 2085.0, 1.8, 0.35, 0.37])
    N = Chinchilla().compute_optimum(natural, 1e20)
    sizes = np.geomspace(N / 1.1, N * 1.1, 201)
    D = 1e20 / (6 * sizes)
    loss = Chinchilla().loss(natural, Rows(sizes, D, D, None, D))
    assert sizes[np.argmin(loss)] == pytest.approx(N, rel=2e-3)


def test_aicc_and_held_out_error_prefer_the_law_that_made_the_points():
    rows = with_loss(Chinchilla(), MADE[0][1])
    noise = np.random.default_rng(0).normal(size=len(rows))
    rows = Rows(rows.N, rows.D, rows.loss * np.exp(0.005 * noise), rows.tokens, rows.flops)
    scores = {
        law.name: aicc(fit_law(law, rows, SQUARED_LOG), rows) for law in (Chinchilla(), Kaplan(), DataConstrained())
    }
    assert min(scores, key=scores.get) == "Chinchilla"
    for axis in ("N", "D", "C"):
        errors = [held_out_error(law, rows, SQUARED_LOG, axis) for law in (Chinchilla(), Kaplan(), PowerN())]
        assert errors[0] == min(errors)
        assert errors[0] < 0.02
    # On one scale: the two squared objectives fit almost the same curve here and must score almost alike.
    raw = aicc(fit_law(Chinchilla(), rows, SQUARED), rows)
    assert raw == pytest.approx(scores["Chinchilla"], abs=20)


def test_rows_that_cannot_determine_a_law_have_a_reason():
    rows = made_rows()
    fresh = rows.take(rows.tokens == rows.D)
    assert "0 rows repeat their data" in DataConstrained().unsupported(fresh)
    assert "not known" in DataConstrained().unsupported(Rows(fresh.N, fresh.D, fresh.loss, None, fresh.flops))
    assert "1 different N" in PowerN().unsupported(rows.take(rows.N[0] == rows.N))
    few = fresh.take(np.arange(7))
    assert all(law.unsupported(few) for law in all_laws().values() if len(law.parameters) > 4)


def test_fit_whose_scale_is_beyond_every_number_has_a_reason_and_all_else_is_finite():
    """Models that over-fit: the loss rises with N, which Kaplan's law has no place for, and N_c runs away."""
    N, D = (
        grid.ravel() for grid in np.meshgrid([2280.0, 7632.0, 27552.0], [1024.0, 4096.0, 16384.0, 65536.0, 262144.0])
    )
    loss = [6.37, 16.8, 13.49, 3.937, 6.808, 15.1, 3.536, 3.754, 5.205, 3.4692, 3.4747, 3.4695, 3.4654, 3.4658, 3.4655]
    laws = {"kaplan": Kaplan(), "chinchilla": Chinchilla(), "power_c": PowerC(), "associative": Associative()}
    found = compare(Rows(N, D, np.array(loss), None, 6 * N * D), 100, laws)
    kaplan = [item.comparison for item in found if item.comparison.law == "Kaplan"]
    assert [item.reason.partition(";")[0] for item in kaplan] == ["N_c grew beyond every number"] * 3
    fitted = [item.comparison for item in found if item.comparison.reason is None]
    assert fitted
    for item in fitted:
        assert np.isfinite([item.rmse, item.r_squared, *item.parameters.values()]).all(), item.law
        assert all(isinstance(value, str) or np.isfinite(value) for value in item.held_out.values()), item


def test_rows_too_many_for_every_start_reach_the_same_optimum():
    rows = with_loss(Chinchilla(), MADE[0][1])
    many = Rows(*(np.tile(column, 150) for column in (rows.N, rows.D, rows.loss)), None, np.tile(rows.flops, 150))
    fit = fit_law(Chinchilla(), many, SQUARED_LOG)
    assert tuple(fit.parameters.values()) == pytest.approx(MADE[0][1], rel=1e-3)


def test_seeds_are_resampled_within_their_cells():
    law = Chinchilla()
    single = with_loss(law, MADE[0][1])
    single = single.take(single.tokens == single.D)
    random = np.random.default_rng(4)
    seeds = Rows(*(np.repeat(c, 3) for c in (single.N, single.D, single.loss)), None, np.repeat(single.flops, 3))
    cell, own = np.repeat(random.normal(size=16), 3), random.normal(size=48)
    widths = []
    for noise in (0.01 * cell, 0.01 * own):
        rows = Rows(seeds.N, seeds.D, seeds.loss * np.exp(noise), None, seeds.flops)
        samples = resample_law(fit_law(law, rows, SQUARED_LOG), rows, 300).natural
        widths.append(np.ptp(np.quantile(law.exponent(samples), [0.025, 0.975])))
    # Noise that a cell's seeds share is not averaged away by them: that interval must be the wider by about √3.
    assert widths[0] > 1.25 * widths[1]
