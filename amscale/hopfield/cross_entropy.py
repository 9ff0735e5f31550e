"""The cross-entropy per pattern implied by a partition function, in nats, by each definition, and its inverse.

    loss_paper    log Z + 1/Z                          mixes an energy with a density; at least 1, least at Z = 1
    loss_energy   log Z                                E_t = g_t throughout; no bound
    loss_density  log ∫_Ω exp(−E_t) + E_t(ρ)           E_t = exp(−g_t)/Z throughout

All take log Z, since Z itself leaves the range of floating numbers. A loss beyond that range is infinite.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from amscale.hopfield.volume import Distance, log_ball_volume, log_partition

_PANELS = 48
_NODES = 12
_BLOCK = 1024
_LEAST_LOG_Z = -700.0


def loss_paper(log_z: ArrayLike) -> np.ndarray:
    """Return log Z + 1/Z, of the shape of log Z; infinite below log Z ≈ −709."""
    log_z = np.asarray(log_z, dtype=np.float64)
    with np.errstate(over="ignore"):
        return log_z + np.exp(-log_z)


def loss_energy(log_z: ArrayLike) -> np.ndarray:
    """Return log Z, of the shape of log Z."""
    return np.asarray(log_z, dtype=np.float64)


@cache
def _unit_interval_rule() -> tuple[np.ndarray, np.ndarray]:
    """Return nodes as (log u, log weight) of Gauss–Legendre panels on [0, 1] that halve towards both ends."""
    halves = 0.5 ** np.arange(1, _PANELS + 1)
    edges = np.concatenate([[0.0], halves[::-1], 1 - halves[1:], [1.0]])
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    width = np.diff(edges)[:, None]
    u = edges[:-1, None] + width * (nodes + 1) / 2
    return np.log(u).ravel(), np.log(width * weights / 2).ravel()


def loss_density(n: float, radii_P: ArrayLike, distance: Distance) -> float:
    """Return log ∫_Ω exp(−E_t(x)) dx + E_t(ρ) with the density E_t = exp(−g_t)/Z and Ω the union of disjoint balls.

    Each ball's integral is V_n(r) ∫_0^1 exp(−E(r·u^{1/n})) du, by quadrature over the share u of its volume. The second
    term is joined to the exponent first: exp((1 − exp(−distance))/Z) neither underflows nor cancels.

    Args:
        n: dimension of a pattern.
        radii_P: radius of each ball, (P,).
        distance: "squared" for g_t = ‖x − ρ‖², "unsquared" for ‖x − ρ‖.
    """
    radii = np.atleast_1d(np.asarray(radii_P, dtype=np.float64))
    log_z = log_partition(n, radii, distance)
    log_u, log_weight = _unit_interval_rule()
    power = 2.0 if distance == "squared" else 1.0
    pieces = []
    for start in range(0, radii.size, _BLOCK):
        block = radii[start : start + _BLOCK]
        separation = block[:, None] ** power * np.exp(power * log_u / n)
        with np.errstate(over="ignore", divide="ignore"):
            share = -np.expm1(-separation)
            # By logarithms where 1/Z is beyond floating numbers; elsewhere that would take as long as all else here.
            exponent = share * np.exp(-log_z) if log_z > _LEAST_LOG_Z else np.exp(np.log(share) - log_z)
        pieces.append(_log_sum_exp(log_ball_volume(n, block)[:, None] + log_weight + exponent))
    return _log_sum_exp(np.array(pieces))


def _log_sum_exp(values: np.ndarray) -> float:
    """Return log Σ exp of all elements; several times as fast as scipy's, which serves other arrays and signs too."""
    most = float(values.max())
    return most + math.log(float(np.exp(values - most).sum())) if math.isfinite(most) else most


def inverse_loss_paper(loss: float) -> tuple[float, float]:
    """Return the two log Z at which log Z + 1/Z equals a loss, (below Z = 1, above Z = 1), by the Lambert W function.

    With w = 1/Z the equation reads −w·e^{−w} = −e^{−loss}: w = −W_{−1} for the smaller Z and −W_0 for the larger.

    Raises:
        ValueError: the loss is below 1, which no Z reaches.
    """
    from scipy.special import lambertw

    if not loss >= 1:
        raise ValueError(f"loss={loss} has no Z: log Z + 1/Z is at least 1")
    if loss - 1 < 1e-8:
        # At the branch point W loses half its digits; there z + e^{−z} = 1 + s²/2 has z = ±s + s²/6 ± s³/36.
        s = math.sqrt(2 * (loss - 1))
        return -s + s**2 / 6 - s**3 / 36, s + s**2 / 6 + s**3 / 36
    if loss > 500:
        # e^{−loss} is about to underflow; there w = loss + log w contracts to all digits at once.
        w = loss
        for _ in range(20):
            w = loss + math.log(w)
        return -math.log(w), loss
    argument = -math.exp(-loss)
    small = -float(lambertw(argument, -1).real)
    large = -float(lambertw(argument, 0).real)
    return -math.log(small), -math.log(large)
