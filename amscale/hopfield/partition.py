"""The partition function of disjoint balls about the stored patterns: Z = Σ_i I(n, r_i), as a logarithm."""

import numpy as np
from numpy.typing import ArrayLike

from amscale.hopfield.volume import Distance, log_ball_volume, log_integral


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
