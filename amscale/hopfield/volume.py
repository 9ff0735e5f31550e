"""Balls in n dimensions: volume, the radius r*, and the integral of exp(−distance) over a ball, all as logarithms.

    V_n(r)     = π^{n/2} rⁿ / Γ(1 + n/2)
    r*         = √(n / 2πe)                                 where log V_n(r*) ≈ −½ log πn
    I_sq(n, r) = ∫_ball exp(−‖x‖²) dx = π^{n/2} γ(n/2, r²) / Γ(n/2)        the squared distance
    I_un(n, r) = ∫_ball exp(−‖x‖) dx  = 2π^{n/2} γ(n, r) / Γ(n/2)          the unsquared distance

γ is the lower incomplete gamma function. Its regularised form underflows for the n of a pattern, so below its mean it
is summed as γ(a, x) = x^a e^{−x} Σ_k x^k / (a)_{k+1} with the power in logarithms.

The partition function of disjoint balls about the stored patterns: Z = Σ_i I(n, r_i), as a logarithm.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Distance = Literal["squared", "unsquared"]
"""The distance in exp(−distance): ‖x‖² or ‖x‖."""
DISTANCES: tuple[Distance, ...] = ("squared", "unsquared")

Array = NDArray[np.float64]


def _dimension_and_radius(n: float, r: ArrayLike) -> Array:
    radius = np.asarray(r, dtype=np.float64)
    if not n >= 1 or not math.isfinite(n):
        raise ValueError(f"dimension n={n} must be finite and at least 1")
    if not np.all(radius >= 0):
        raise ValueError("a radius must be a number that is not negative")
    return radius


def _log(values: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(values)


def log_lower_gamma(a: float, x: ArrayLike) -> Array:
    """Return log γ(a, x) for a > 0 and x ≥ 0, of the shape of x; −inf at x = 0."""
    from scipy.special import gammainc, gammaln

    argument = np.asarray(x, dtype=np.float64)
    result = np.empty_like(argument)
    below = argument < a
    result[below] = _log_lower_gamma_series(a, argument[below])
    # From the mean on, the regularised function is at least about one half and keeps all its digits.
    result[~below] = gammaln(a) + np.log(gammainc(a, argument[~below]))
    return result


def _log_lower_gamma_series(a: float, x: Array) -> Array:
    term = np.full_like(x, 1.0 / a)
    total = term.copy()
    k = 0
    while term.size and np.any(term > np.finfo(np.float64).eps * 1e-2 * total):
        k += 1
        term *= x / (a + k)
        total += term
    return a * _log(x) - x + np.log(total)


def r_star(n: float) -> float:
    """Return r* = √(n / 2πe), the radius at which the volume of a ball is near 1/√(πn)."""
    _dimension_and_radius(n, 0.0)
    return math.sqrt(n / (2 * math.pi * math.e))


def log_ball_volume(n: float, r: ArrayLike) -> Array:
    """Return log V_n(r) of balls in n dimensions with Euclidean radii r, of the shape of r.

    Raises:
        ValueError: n < 1 or a radius that is negative or not a number.
    """
    radius = _dimension_and_radius(n, r)
    return 0.5 * n * math.log(math.pi) + n * _log(radius) - math.lgamma(1 + 0.5 * n)


def log_integral_squared(n: float, r: ArrayLike) -> Array:
    """Return log I_sq, the integral of exp(−‖x‖²) over balls of radii r about 0, of the shape of r.

    Raises:
        ValueError: n < 1 or a radius that is negative or not a number.
    """
    radius = _dimension_and_radius(n, r)
    return 0.5 * n * math.log(math.pi) + log_lower_gamma(0.5 * n, radius**2) - math.lgamma(0.5 * n)


def log_integral_unsquared(n: float, r: ArrayLike) -> Array:
    """Return log I_un, the integral of exp(−‖x‖) over balls of radii r about 0, of the shape of r.

    Raises:
        ValueError: n < 1 or a radius that is negative or not a number.
    """
    radius = _dimension_and_radius(n, r)
    return math.log(2) + 0.5 * n * math.log(math.pi) + log_lower_gamma(n, radius) - math.lgamma(0.5 * n)


def log_integral(n: float, r: ArrayLike, distance: Distance) -> Array:
    """Return log I(n, r) for a distance."""
    if distance == "squared":
        return log_integral_squared(n, r)
    if distance == "unsquared":
        return log_integral_unsquared(n, r)
    raise ValueError(f"distance={distance!r} must be one of {', '.join(DISTANCES)}")


def log_integral_bounds(n: float, r: ArrayLike, distance: Distance) -> tuple[Array, Array]:
    """Return bounds of log I, (lower, upper), each of the shape of r: exp(−distance at the rim)·V ≤ I ≤ V."""
    upper = log_ball_volume(n, r)
    radius = np.asarray(r, dtype=np.float64)
    return upper - (radius**2 if distance == "squared" else radius), upper


def _log_sum(logs: np.ndarray) -> float:
    from scipy.special import logsumexp

    if logs.size == 0:
        raise ValueError("no radii: a partition function needs at least one ball")
    return float(logsumexp(logs))


def log_partition(n: float, radii_P: ArrayLike, distance: Distance) -> float:
    """Return log Z of one ball per pattern.

    Args:
        n: dimension of a pattern.
        radii_P: Euclidean radius of each ball, (P,).
        distance: "squared" for exp(−‖x − ρ‖²), which goes with the energy E; "unsquared" for exp(−‖x − ρ‖).

    Raises:
        ValueError: no radius, n < 1, or a radius that is negative or not a number.
    """
    return _log_sum(np.atleast_1d(log_integral(n, radii_P, distance)))


def log_partition_upper(n: float, radii_P: ArrayLike) -> float:
    """Return log Σ_i V_n(r_i), the upper bound of log Z for either distance."""
    return _log_sum(np.atleast_1d(log_ball_volume(n, radii_P)))
