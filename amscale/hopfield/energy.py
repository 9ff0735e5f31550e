"""The layer energy: g, E, Ramsauer's E_MCHN, their retrieval updates, and the bounds that tie them together.

    g(x)        = min_i ‖x − ρ_i‖²
    E(x)        = −log Σ_i exp(−‖x − ρ_i‖²)                                            the squared distance, no β
    E_MCHN^β(x) = −β⁻¹ log Σ_i exp(β ρ_iᵀx) + ½xᵀx + β⁻¹ log P + ½ max_i‖ρ_i‖²         Ramsauer et al. 2020, eq. 2

Every function takes queries (Q, N) and stored patterns (P, N) on one device, of any floating type, and returns
float64. E_MCHN is computed as −β⁻¹ log P⁻¹ Σ exp(−½β(‖x − ρ_i‖² + max‖ρ‖² − ‖ρ_i‖²)), the same number without
cancellation. No gradient is recorded.

The energy of several layers together: E_global(x) = −log Σ_t exp(−E_t(x)).

Where every E_t is the energy of layer t's patterns, E_global is exactly the energy of the union of all patterns.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from amscale.hopfield.neighbours import check_shapes, chunks, distance_blocks, nearest, squared_norms


class Bounds(NamedTuple):
    """A lower and an upper bound, elementwise."""

    lower: Tensor
    upper: Tensor


def nearest_squared_distance(x_QN: Tensor, patterns_PN: Tensor) -> Tensor:
    """Return g(x) = min_i ‖x − ρ_i‖², (Q,)."""
    return nearest(x_QN, patterns_PN)[0]


def _log_sum_exp(x_QN: Tensor, patterns_PN: Tensor, scale: float, offset_P: Tensor | None) -> Tensor:
    """Return log Σ_i exp(−scale·‖x − ρ_i‖² − offset_i), (Q,), one block at a time."""
    total_Q = torch.full((x_QN.shape[0],), -torch.inf, dtype=torch.float64, device=x_QN.device)
    for query_slice, pattern_slice, block_QP in distance_blocks(x_QN, patterns_PN):
        logits_QP = -scale * block_QP
        if offset_P is not None:
            logits_QP -= offset_P[pattern_slice]
        total_Q[query_slice] = torch.logaddexp(total_Q[query_slice], logits_QP.logsumexp(1))
    return total_Q


def energy(x_QN: Tensor, patterns_PN: Tensor) -> Tensor:
    """Return E(x) = −log Σ_i exp(−‖x − ρ_i‖²), of the squared Euclidean distance, (Q,)."""
    return -_log_sum_exp(x_QN, patterns_PN, 1.0, None)


def energy_mchn(x_QN: Tensor, patterns_PN: Tensor, beta: float) -> Tensor:
    """Return E_MCHN^β(x), the energy of the modern continuous Hopfield network, (Q,); never negative.

    Raises:
        ValueError: beta is not positive.
    """
    _check_beta(beta)
    check_shapes(x_QN, patterns_PN)
    norm_P = squared_norms(patterns_PN.detach())
    offset_P = 0.5 * beta * (norm_P.max() - norm_P)
    log_sum_Q = _log_sum_exp(x_QN, patterns_PN, 0.5 * beta, offset_P)
    return (math.log(patterns_PN.shape[0]) - log_sum_Q) / beta


def _check_beta(beta: float) -> None:
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError(f"beta={beta} must be a positive number")


def _weighted_mean(x_QN: Tensor, patterns_PN: Tensor, scale: float, offset_P: Tensor | None) -> Tensor:
    """Return Σ_i p_i ρ_i with p = softmax_i(−scale·‖x − ρ_i‖² − offset_i), (Q, N), by a running maximum over blocks."""
    check_shapes(x_QN, patterns_PN)
    queries, width = x_QN.shape
    device = x_QN.device
    maximum_Q = torch.full((queries,), -torch.inf, dtype=torch.float64, device=device)
    weight_Q = torch.zeros(queries, dtype=torch.float64, device=device)
    mean_QN = torch.zeros(queries, width, dtype=torch.float64, device=device)
    for query_slice, pattern_slice, block_QP in distance_blocks(x_QN, patterns_PN):
        logits_QP = -scale * block_QP
        if offset_P is not None:
            logits_QP -= offset_P[pattern_slice]
        new_maximum_Q = torch.maximum(maximum_Q[query_slice], logits_QP.amax(1))
        shrink_Q = torch.exp(maximum_Q[query_slice] - new_maximum_Q)
        share_QP = torch.exp(logits_QP - new_maximum_Q[:, None])
        block_PN = patterns_PN[pattern_slice].detach()
        for columns in chunks(width, max(share_QP.shape)):
            kept_QC = mean_QN[query_slice, columns] * shrink_Q[:, None]
            mean_QN[query_slice, columns] = kept_QC + share_QP @ block_PN[:, columns].to(torch.float64)
        weight_Q[query_slice] = weight_Q[query_slice] * shrink_Q + share_QP.sum(1)
        maximum_Q[query_slice] = new_maximum_Q
    for rows in chunks(queries, width):
        mean_QN[rows] /= weight_Q[rows, None]
    return mean_QN


def update(x_QN: Tensor, patterns_PN: Tensor) -> Tensor:
    """Return the queries after one retrieval step of E: x − ½∇E = Σ_i p_i ρ_i, p = softmax(−‖x − ρ_i‖²), (Q, N)."""
    return _weighted_mean(x_QN, patterns_PN, 1.0, None)


def gradient(x_QN: Tensor, patterns_PN: Tensor) -> Tensor:
    """Return ∇E = 2(x − Σ_i p_i ρ_i), p = softmax(−‖x − ρ_i‖²), (Q, N)."""
    return 2 * (x_QN.detach().to(torch.float64) - update(x_QN, patterns_PN))


def update_mchn(x_QN: Tensor, patterns_PN: Tensor, beta: float) -> Tensor:
    """Return the queries after one retrieval step of E_MCHN, which never rises: x ← Σ_i softmax_i(β ρ_iᵀx) ρ_i, (Q, N).

    Raises:
        ValueError: beta is not positive.
    """
    _check_beta(beta)
    check_shapes(x_QN, patterns_PN)
    norm_P = squared_norms(patterns_PN.detach())
    return _weighted_mean(x_QN, patterns_PN, 0.5 * beta, 0.5 * beta * (norm_P.max() - norm_P))


def squared_norm_range(patterns_PN: Tensor) -> float:
    """Return G = max_i ‖ρ_i‖² − min_i ‖ρ_i‖²."""
    norm_P = squared_norms(patterns_PN.detach())
    return float(norm_P.max() - norm_P.min())


def bounds_from_nearest(nearest_Q: Tensor, patterns: int) -> Bounds:
    """Return bounds on E from g by proposition 1: g − log P ≤ E ≤ g."""
    return Bounds(nearest_Q - math.log(patterns), nearest_Q)


def bounds_from_mchn(energy_mchn_beta_2_Q: Tensor, patterns: int, squared_norm_range: float) -> Bounds:
    """Return bounds on E from E_MCHN at β = 2 by the sharper proposition 2: 0 ≤ (2E²_MCHN − log P) − E ≤ G."""
    upper_Q = 2 * energy_mchn_beta_2_Q - math.log(patterns)
    return Bounds(upper_Q - squared_norm_range, upper_Q)


def nearest_bounds_from_mchn(energy_mchn_beta_2_Q: Tensor, patterns: int, squared_norm_range: float) -> Bounds:
    """Return bounds on g from E_MCHN at β = 2 by the corrected proposition 3: −G − log P ≤ g − 2E²_MCHN ≤ 0.

    The published form lacks the log P and is false.
    """
    upper_Q = 2 * energy_mchn_beta_2_Q
    return Bounds(upper_Q - squared_norm_range - math.log(patterns), upper_Q)


def global_energy(layer_energy_LQ: Tensor) -> Tensor:
    """Return E_global from the energies E_t(x) of L layers at the same points, (L, Q) to (Q,)."""
    return -torch.logsumexp(-layer_energy_LQ.to(torch.float64), dim=0)


def global_energy_bounds(layer_energy_LQ: Tensor) -> Bounds:
    """Return bounds on E_global, (Q,) each: min_t E_t − log L ≤ E_global ≤ min_t E_t, the second strict where L > 1."""
    least_Q = layer_energy_LQ.to(torch.float64).amin(0)
    return Bounds(least_Q - math.log(layer_energy_LQ.shape[0]), least_Q)


def layer_energies(x_QN: Tensor, patterns_LPN: Sequence[Tensor]) -> Tensor:
    """Return E_t(x) of each layer's patterns at the same points x, (L, Q)."""
    return torch.stack([energy(x_QN, patterns_PN) for patterns_PN in patterns_LPN])
