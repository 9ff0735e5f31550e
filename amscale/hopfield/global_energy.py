"""The energy of several layers together: E_global(x) = −log Σ_t exp(−E_t(x)).

Where every E_t is the energy of layer t's patterns, E_global is exactly the energy of the union of all patterns.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from amscale.hopfield.energy import Bounds, energy


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
