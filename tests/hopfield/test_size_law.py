"""N against D: the constants of each route, and that each solves the equation it claims to solve."""

import math

import pytest

from amscale.hopfield.size_law import (
    dimension_by_asymptote,
    dimension_by_integral,
    parameters_by_integral,
    parameters_by_upper_bound,
    parameters_by_upper_bound_at_fixed_width,
)
from amscale.hopfield.volume import DISTANCES, log_ball_volume, log_integral, r_star


def slope(function, tokens):
    return math.log(function(1.01 * tokens) / function(tokens)) / math.log(1.01)


def test_upper_bound_routes_set_the_bound_of_z_to_one():
    tokens, context, layers = 2e6, 64, 6
    parameters = parameters_by_upper_bound(tokens, context, layers)
    width = math.sqrt(parameters / (12 * layers))
    log_bound = math.log(tokens / context) + float(log_ball_volume(context * width, r_star(context * width)))
    assert log_bound == pytest.approx(0, abs=1e-6)
    # Both routes are one equation, so they meet at the width that solves it and nowhere else.
    assert parameters_by_upper_bound_at_fixed_width(tokens, context, layers, width) == pytest.approx(parameters)
    assert parameters_by_upper_bound_at_fixed_width(tokens, context, layers, 512) != pytest.approx(parameters)


def test_exponents_of_d():
    tokens, context, layers = 2e8, 1024, 8
    at_fixed_width = slope(lambda d: parameters_by_upper_bound_at_fixed_width(d, context, layers, 954), tokens)
    assert at_fixed_width == pytest.approx(2)
    assert slope(lambda d: parameters_by_upper_bound(d, context, layers), tokens) == pytest.approx(4)
    for distance in DISTANCES:
        assert 0 < slope(lambda d, e=distance: parameters_by_integral(d, context, layers, e), tokens) < 0.7


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("patterns", [100, 1e5, 1e12])
def test_exact_routes_solve_z_equal_to_one(distance, patterns):
    n = dimension_by_integral(patterns, distance)
    assert math.log(patterns) + float(log_integral(n, r_star(n), distance)) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_asymptote_is_reached_slowly_but_surely(distance):
    counts = (1e5, 1e50, 1e300)
    errors = [abs(dimension_by_integral(p, distance) / dimension_by_asymptote(p, distance) - 1) for p in counts]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


def test_the_constant_is_far_from_the_measured_one():
    """The route with the exponent 2 predicts 1.4 to 2.0 · 10⁴ times the published N/D²."""
    published = [(39.95e6, 954, 214.18e6), (60.26e6, 1280, 261.78e6), (80.20e6, 1440, 309.37e6)]
    ratios = []
    for parameters, width, tokens in published:
        a = parameters / (8 * width**2)
        ratios.append(parameters_by_upper_bound_at_fixed_width(tokens, 1024, 8, width, a) / parameters)
    assert ratios == pytest.approx([1.42e4, 1.59e4, 1.97e4], rel=0.01)


def test_too_few_patterns():
    with pytest.raises(ValueError, match="patterns=1"):
        dimension_by_integral(1, "squared")
