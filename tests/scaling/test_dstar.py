import math

import numpy as np
import pytest

from amscale.scaling.dstar import DStar, criterion, locate
from amscale.scaling.points import Curves
from amscale.scaling.power_law import exponent_from_dstar, feasible_slopes, fit_loglog, slope_distribution

# OpenELM on SPGC, arXiv 2405.08707: N and the grid interval that holds D*, in millions.
N = [39.95, 60.26, 80.20]
BELOW = [190.38, 237.98, 285.57]
DSTAR = [214.18, 261.78, 309.37]
HALF_STEP = 11.9


def dstars(sizes, lower, upper):
    return [DStar(n, low, high, high, (), ()) for n, low, high in zip(sizes, lower, upper, strict=True)]


def estimate(sizes, lower, upper):
    return exponent_from_dstar(dstars(sizes, lower, upper), "N", "criterion")


def curves(train, validation, every=10):
    steps = np.arange(1, len(train) + 1)
    evaluated = every * np.arange(1, len(validation) + 1)
    return Curves(steps, np.array(train, float), evaluated, np.array(validation, float), len(train))


def test_published_table_read_as_exact_points_has_slope_1_90_and_2_33_with_every_04_accepted():
    assert fit_loglog(DSTAR, N).slope == pytest.approx(1.90, abs=0.005)
    assert fit_loglog([214.18, 237.98, 285.57], N).slope == pytest.approx(2.33, abs=0.005)


def test_published_table_as_intervals_has_the_exact_noise_free_range():
    # By hand: the extreme lines run through opposite ends of the first and the last interval.
    gain = math.log(N[2] / N[0])
    by_hand = gain / math.log(DSTAR[2] / BELOW[0]), gain / math.log(BELOW[2] / DSTAR[0])
    result = estimate(N, BELOW, DSTAR)
    assert result.details["noise_free_range_of_k"] == pytest.approx(by_hand, rel=1e-6)
    assert by_hand == pytest.approx((1.435, 2.423), abs=0.001)
    # Half a grid step either side of each D* would allow 1.51 to 2.54: noise allows that and more.
    assert result.interval[0] < 1.435
    assert result.interval[1] > 2.54
    assert result.rejected == (0.5,), "three intervals tell few hypotheses apart once noise is allowed"


def test_published_table_with_half_a_grid_step_either_side_allows_1_51_to_2_54():
    result = estimate(N, [d - HALF_STEP for d in DSTAR], [d + HALF_STEP for d in DSTAR])
    assert result.details["noise_free_range_of_k"] == pytest.approx((1.51, 2.54), abs=0.005)


def test_slope_interval_is_students_t_when_the_intervals_shrink_to_points():
    random = np.random.default_rng(3)
    x = np.linspace(-1, 1, 7)
    y = 0.5 * x + 0.2 * random.normal(size=7)
    t_fit = fit_loglog(np.exp(x), np.exp(y))
    distribution = slope_distribution(x, y - 5e-4, y + 5e-4)
    assert distribution.quantile(0.025) == pytest.approx(t_fit.interval[0], abs=1e-3)
    assert distribution.quantile(0.975) == pytest.approx(t_fit.interval[1], abs=1e-3)
    assert distribution.tail(0.0) == pytest.approx(t_fit.p_value(0.0), abs=1e-3)


def test_interval_open_on_one_side_says_nothing_where_the_line_passes_far_inside_it():
    x, y = np.arange(6.0), np.array([0.0, 0.4, 1.1, 1.4, 2.1, 2.4])
    known = slope_distribution(x, y - 0.1, y + 0.1)
    far = slope_distribution(np.append(x, 7), np.append(y - 0.1, -50), np.append(y + 0.1, np.inf))
    near = slope_distribution(np.append(x, 7), np.append(y - 0.1, 4.5), np.append(y + 0.1, np.inf))
    for probability in (0.025, 0.5, 0.975):
        assert far.quantile(probability) == pytest.approx(known.quantile(probability), abs=0.01)
    assert near.quantile(0.5) > known.quantile(0.5) + 0.02


def test_feasible_slopes_are_those_of_a_linear_program():
    from scipy.optimize import linprog

    random, found = np.random.default_rng(7), 0
    for _ in range(50):
        x, y = np.sort(random.normal(size=5)), random.normal(size=5)
        lower, upper = y - random.uniform(0.2, 1.5, 5), y + random.uniform(0.2, 1.5, 5)
        line = np.column_stack([np.ones(5), x])
        rows, limits = np.vstack([line, -line]), np.concatenate([upper, -lower])
        ends = [linprog([0, sign], rows, limits, bounds=(None, None)) for sign in (1, -1)]
        feasible = feasible_slopes(x, lower, upper)
        assert (feasible is None) == (ends[0].status == 2)
        if feasible is not None:
            found += 1
            assert feasible == pytest.approx([end.x[1] for end in ends])
    assert 10 < found < 45
    assert feasible_slopes(x, lower, np.full(5, np.inf)) == (-np.inf, np.inf)


def test_enough_sizes_reject_the_wrong_exponents():
    n = np.geomspace(1e6, 1e8, 8)
    truth = 1e3 * np.sqrt(n)
    result = estimate(n, 0.97 * truth, 1.03 * truth)
    assert {test.value: test.rejected for test in result.tests} == {0.5: True, 1: True, 1.35: True, 2: False, 4: True}


def test_censored_sizes_narrow_the_range_but_do_not_count_as_known():
    known = estimate(N, BELOW, DSTAR).details["noise_free_range_of_k"]
    result = estimate([*N, 400.0], [*BELOW, 600.0], [*DSTAR, math.inf])
    assert result.details["noise_free_range_of_k"][1] < known[1]
    assert result.used == 4
    few = estimate([*N[:2], 400.0], [*BELOW[:2], 600.0], [*DSTAR[:2], math.inf])
    assert few.value is None
    assert "2 of 3 N" in few.reason


def test_dstar_that_falls_with_n_gives_no_exponent():
    result = estimate(N, BELOW[::-1], DSTAR[::-1])
    assert result.value is None
    assert "does not grow" in result.reason


def test_locate_censors_at_the_ends_and_flags_a_pass_that_does_not_last():
    grid = [1.0, 2.0, 4.0, 8.0]
    assert locate(1, grid, [0.03, 0.02, 0.01, 0.01]).kind == "left"
    assert locate(1, grid, [0.09, 0.08, 0.07, 0.04]).kind == "right", "the criterion is strict"
    inside = locate(1, grid, [0.09, 0.05, 0.03, 0.01])
    assert (inside.lower, inside.upper, inside.value) == (2, 4, 4)
    wavering = locate(1, grid, [0.09, 0.03, 0.05, 0.01])
    assert (wavering.lower, wavering.upper, wavering.value) == (1, 8, 2)
    assert wavering.flags


def test_criterion_is_the_mean_square_over_the_window_before_the_least_validation_loss():
    train = [9.0] * 15 + [1.5] * 5 + [0.1] * 20
    found = criterion(curves(train, [3.0, 2.0, 2.5, 2.6]), window=10)
    assert (found.step, found.window) == (20, 10)
    assert found.value == pytest.approx((5 * 7.0**2 + 5 * 0.5**2) / 10)
    assert found.value == pytest.approx(found.gap**2 + found.variance)
    assert criterion(curves(train, [3.0, 2.0, 2.5, 2.6]), window=0.125).value == pytest.approx(0.25)
    assert criterion(curves(train, [3.0, 2.9, 2.5, 2.4]), window=10).at_end
