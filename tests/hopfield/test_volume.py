"""Balls, integrals, partition functions and losses against quadrature, high precision and published numbers."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from amscale.hopfield.cross_entropy import inverse_loss_paper, loss_density, loss_energy, loss_paper
from amscale.hopfield.volume import (
    DISTANCES,
    log_ball_volume,
    log_integral,
    log_integral_bounds,
    log_integral_squared,
    log_integral_unsquared,
    log_lower_gamma,
    log_partition,
    log_partition_upper,
    r_star,
)

POWER = {"squared": 2, "unsquared": 1}
# n, r*, log V(r*), −½ log πn, log I_un(r*), log I_sq(r*), as published.
TABLE = [
    (64, 1.936, -2.654, -2.652, -4.560, -6.282),
    (256, 3.872, -3.346, -3.345, -7.202, -18.211),
    (768, 6.706, -3.894, -3.894, -10.591, -48.737),
    (1024, 7.743, -4.038, -4.038, -11.774, -63.869),
    (4096, 15.486, -4.731, -4.731, -20.214, -244.43),
    (2**20, 247.78, -7.504, -7.504, -255.28, -61401),
]


@pytest.mark.parametrize(("n", *"abcde"), TABLE)
def test_table_of_r_star(n, a, b, c, d, e):
    found = (
        r_star(n),
        log_ball_volume(n, r_star(n)),
        -0.5 * math.log(math.pi * n),
        log_integral_unsquared(n, r_star(n)),
        log_integral_squared(n, r_star(n)),
    )
    for value, published in zip(found, (a, b, c, d, e), strict=True):
        digits = len(str(published).partition(".")[2]) if isinstance(published, float) else 0
        assert float(value) == pytest.approx(published, abs=0.51 * 10**-digits)


def test_three_dimensions():
    found = [math.exp(f(3, 1.3)) for f in (log_integral_squared, log_integral_unsquared, log_ball_volume)]
    assert found == pytest.approx([3.693681, 3.591155, 9.2028], abs=5e-5)


@settings(max_examples=60, deadline=None)
@given(a=st.floats(0.5, 2000), ratio=st.floats(1e-4, 3))
def test_incomplete_gamma_against_high_precision(a, ratio):
    x = a * ratio
    with mpmath.workdps(40):
        expected = float(mpmath.log(mpmath.gammainc(a, 0, x)))
    assert float(log_lower_gamma(a, x)) == pytest.approx(expected, rel=1e-11, abs=1e-9)


@pytest.mark.parametrize("ratio", [0.5, 0.99, 0.999999, 1.0, 1.001, 1.1])
def test_incomplete_gamma_of_a_large_dimension(ratio):
    a = 2.0**19
    with mpmath.workdps(40):
        x = mpmath.mpf(a * ratio)
        expected = a * mpmath.log(x) - x - mpmath.log(a) + mpmath.log(mpmath.hyp1f1(1, a + 1, x, maxterms=10**7))
    assert float(log_lower_gamma(a, a * ratio)) == pytest.approx(float(expected), abs=1e-7)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("r", [0.1, 1.3, 4.0])
def test_integrals_against_quadrature(distance, n, r):
    surface = 2 * math.pi ** (n / 2) / math.gamma(n / 2)
    expected = quad(lambda s: surface * s ** (n - 1) * math.exp(-(s ** POWER[distance])), 0, r, epsabs=0)[0]
    assert float(log_integral(n, r, distance)) == pytest.approx(math.log(expected), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 10**6), scale=st.floats(0.01, 20), distance=st.sampled_from(DISTANCES))
def test_integrals_keep_their_bounds(n, scale, distance):
    r = scale * r_star(n)
    lower, upper = log_integral_bounds(n, r, distance)
    value = log_integral(n, r, distance)
    tolerance = 1e-12 * n * math.log(n + 2)
    assert math.isfinite(value)
    assert lower - tolerance <= value <= upper + tolerance


def test_arrays_and_edges():
    radii = np.array([0.0, 0.5, 3.0])
    values = log_integral_squared(6, radii)
    assert values.shape == (3,)
    assert values[0] == -math.inf
    assert values[2] == float(log_integral_squared(6, 3.0))
    for n, r in [(0, 1.0), (math.nan, 1.0), (3, -1.0), (3, math.nan)]:
        with pytest.raises(ValueError, match=r"dimension n|a radius"):
            log_integral_squared(n, r)
    with pytest.raises(ValueError, match="one of squared, unsquared"):
        log_integral(3, 1.0, "cubed")


@pytest.mark.parametrize("distance", DISTANCES)
def test_partition_sums_over_the_balls(distance):
    radii = np.array([0.3, 1.1, 2.0])
    assert log_partition(4, radii, distance) == pytest.approx(math.log(np.exp(log_integral(4, radii, distance)).sum()))
    assert log_partition(4, radii, distance) < log_partition_upper(4, radii)
    # A thousand dimensions more leave every summand below the least floating number.
    many = log_partition(2**20, np.full(1000, r_star(2**20)), distance)
    assert many == pytest.approx(math.log(1000) + float(log_integral(2**20, r_star(2**20), distance)), rel=1e-12)
    with pytest.raises(ValueError, match="no radii"):
        log_partition(4, [], distance)


@pytest.mark.parametrize(
    ("loss", "below", "above"),
    [(1.1, 0.6595, 1.621), (1.61, 0.3931, 3.861), (2.2, 0.2912, 7.959), (2.5, 0.2599, 11.14)],
)
def test_published_inverse(loss, below, above):
    found = [math.exp(value) for value in inverse_loss_paper(loss)]
    assert found == [pytest.approx(below, abs=5.1e-5), pytest.approx(above, abs=10 ** -(4 - len(str(int(above)))))]


@settings(max_examples=100, deadline=None)
@given(st.floats(1, 1e6) | st.floats(0, 1e-6).map(lambda excess: 1 + excess))
def test_inverse_returns_to_the_loss(loss):
    below, above = inverse_loss_paper(loss)
    assert below <= 0 <= above
    assert (below < above) == (loss > 1)
    if loss < 1.01:
        # Here the loss is flat: the inverse is held against 50 digits instead.
        with mpmath.workdps(50):
            argument = -mpmath.exp(-mpmath.mpf(loss))
            expected = [float(-mpmath.log(-mpmath.lambertw(argument, k).real)) for k in (-1, 0)]
        assert [below, above] == pytest.approx(expected, rel=1e-6, abs=1e-15)
    assert [float(loss_paper(z)) for z in (below, above)] == pytest.approx([loss, loss], rel=1e-9)


def test_paper_loss_is_least_at_one():
    assert float(loss_paper(0.0)) == 1.0
    assert loss_paper(np.linspace(-3, 3, 61)).min() == 1.0
    assert float(loss_paper(-1e4)) == math.inf
    assert float(loss_energy(-61401.0)) == -61401.0
    with pytest.raises(ValueError, match="at least 1"):
        inverse_loss_paper(0.99)


def _density_by_quadrature(n, radii, distance):
    surface = 2 * math.pi ** (n / 2) / math.gamma(n / 2)
    z = math.exp(log_partition(n, radii, distance))

    def integrand(s):
        return surface * s ** (n - 1) * math.exp(-math.exp(-(s ** POWER[distance])) / z)

    return math.log(sum(quad(integrand, 0, r, epsabs=0, epsrel=1e-12)[0] for r in radii)) + 1 / z


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("n", "radii"), [(1, [0.4]), (1, [0.01, 2.0]), (3, [1.3, 0.2]), (10, [1.0, 1.5, 2.0])])
def test_density_loss_against_quadrature(distance, n, radii):
    assert loss_density(n, radii, distance) == pytest.approx(_density_by_quadrature(n, radii, distance), abs=1e-9)


def test_density_loss_at_z_one_is_not_the_papers_loss():
    """At Z = 1 the paper's formula says 1; with one definition throughout, small cases range from 0.08 to 1.22."""
    from scipy.optimize import brentq

    losses = []
    for n in (1, 2, 3, 6):
        for count in (1, 2, 5, 20):
            for distance in DISTANCES:

                def log_z(r, n=n, count=count, distance=distance):
                    return log_partition(n, np.full(count, r), distance)

                if log_z(30.0) > 0:
                    losses.append(loss_density(n, np.full(count, brentq(log_z, 1e-6, 30.0)), distance))
    assert min(losses) < 0.1
    assert max(losses) > 1.0
    assert all(0 < loss < 1.5 for loss in losses)


@pytest.mark.parametrize("distance", DISTANCES)
def test_density_loss_in_many_dimensions(distance):
    """Far from the centre the density vanishes: log ∫ tends to log V and the loss to log V + 1/Z."""
    radii = np.full(7, 10.0)
    volume = log_partition_upper(1024, radii)
    z = log_partition(1024, radii, distance)
    assert loss_density(1024, radii, distance) == pytest.approx(volume + math.exp(-z), rel=1e-6)
