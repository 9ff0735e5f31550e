"""The measurements of associative memory, layer by layer: energies, radii, partition functions, the global energy.

Stored patterns are those of training sequences; queries are those of validation sequences, at the same layer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from amscale.hopfield.cross_entropy import loss_density, loss_energy, loss_paper
from amscale.hopfield.energy import bounds_from_nearest, energy, energy_mchn, nearest_squared_distance
from amscale.hopfield.global_energy import global_energy, layer_energies
from amscale.hopfield.neighbours import nearest_neighbours
from amscale.hopfield.partition import log_partition
from amscale.hopfield.volume import DISTANCES, r_star
from amscale.probes.measurement import Measurement

BETAS = (1, 2)
"""Inverse temperatures of E_MCHN: Ramsauer's usual 1, and the 2 at which its update is that of E."""


def measure_energy(measurement: Measurement, layer: str, queries_QN: Tensor, stored_PN: Tensor) -> None:
    """energy/<layer>/: g, E and E_MCHN of the queries against the stored patterns.

    `E_lower_mean` is the mean of Proposition 1's lower bound g − log P; the upper bound is g itself.
    """
    name = f"energy/{layer}"
    nearest_Q = nearest_squared_distance(queries_QN, stored_PN)
    measurement.add_distribution(f"{name}/g", nearest_Q)
    measurement.add_distribution(f"{name}/E", energy(queries_QN, stored_PN))
    bounds = bounds_from_nearest(nearest_Q, stored_PN.shape[0])
    measurement.add(f"{name}/E_lower_mean", float(bounds.lower.mean()))
    for beta in BETAS:
        measurement.add_distribution(f"{name}/E_mchn_beta{beta}", energy_mchn(queries_QN, stored_PN, beta))


def measure_radius_and_partition(measurement: Measurement, layer: str, stored_PN: Tensor) -> None:
    """radius/<layer>/ and partition/<layer>/: r̂ of the stored patterns beside r*, and log Z over balls of radius r̂.

    Exact duplicates are one ball and are counted under `duplicates`. The separated share is that of patterns whose ball
    meets no other. `separated_own`, of each pattern's r̂, is 1 by construction but for duplicates; `separated_median`
    and `separated_r_star` take one radius for all patterns: the median r̂, and r*.
    """
    name, count = f"radius/{layer}", stored_PN.shape[0]
    dimension = stored_PN.shape[1]
    measurement.add(f"{name}/r_star", r_star(dimension))
    try:
        neighbours = nearest_neighbours(stored_PN)
    except ValueError:
        reason = f"the {count} stored patterns of {layer} have one value: no pattern has a neighbour, so no radius"
        measurement.reasons[name] = measurement.reasons[f"partition/{layer}"] = reason
        measurement.add(f"{name}/duplicates", count - 1)
        return
    radius_U = neighbours.radius_U
    median = float(radius_U.quantile(0.5))
    measurement.histograms[f"{name}/sampled"] = radius_U.cpu().numpy()
    measurement.add(f"{name}/sampled_mean", float(radius_U.mean()))
    measurement.add(f"{name}/sampled_median", median)
    measurement.add(f"{name}/duplicates", neighbours.duplicates)
    measurement.add(f"{name}/separated_own", neighbours.separated_share_of_own_radius())
    measurement.add(f"{name}/separated_median", neighbours.separated_share(median))
    measurement.add(f"{name}/separated_r_star", neighbours.separated_share(r_star(dimension)))
    radii_U = radius_U.cpu().numpy()
    for distance in DISTANCES:
        log_z = log_partition(dimension, radii_U, distance)
        group = f"partition/{layer}"
        measurement.add(f"{group}/log_Z_{distance}", log_z)
        measurement.add(f"{group}/loss_paper_{distance}", float(loss_paper(log_z)))
        measurement.add(f"{group}/loss_energy_{distance}", float(loss_energy(log_z)))
        measurement.add(f"{group}/loss_density_{distance}", loss_density(dimension, radii_U, distance))


def measure_global_energy(
    measurement: Measurement, layers: Sequence[str], queries_LQN: Sequence[Tensor], stored_LPN: Sequence[Tensor]
) -> None:
    """energy/global/: E_global at the last layer, and the share of layer steps that lower E_t and E_global.

    A layer step is x^(t−1) → x^(t) of one query. It lowers E_t where E_t(x^(t)) < E_t(x^(t−1)), both against layer t's
    stored patterns, and E_global likewise. The shares of single layers stand under energy/<layer>/.
    """
    count, queries = len(layers), queries_LQN[0].shape[0]
    if len({patterns.shape[1] for patterns in (*queries_LQN, *stored_LPN)}) > 1:
        measurement.reasons["energy/global"] = "the probed layers differ in width: no point is common to their energies"
        return
    # energy_LLQ[t, s] is E_t at x^(s).
    energy_LLQ = layer_energies(torch.cat(list(queries_LQN)), stored_LPN).reshape(count, count, queries)
    global_LQ = global_energy(energy_LLQ)
    measurement.add_distribution("energy/global/E", global_LQ[-1])
    if count == 1:
        measurement.reasons["energy/global/steps"] = "one probed layer takes no step; probe two or more"
        return
    lowers = [energy_LLQ[t, t] < energy_LLQ[t, t - 1] for t in range(1, count)]
    lowers_global = [global_LQ[t] < global_LQ[t - 1] for t in range(1, count)]
    for quantity, steps in (("E", lowers), ("E_global", lowers_global)):
        for layer, step_Q in zip(layers[1:], steps, strict=True):
            measurement.add(f"energy/{layer}/steps_lowering_{quantity}", float(step_Q.double().mean()))
        share = float(torch.stack(steps).double().mean())
        measurement.add(f"energy/global/steps_lowering_{quantity}", share)
