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
    measurement: Measurement,
    layers: Sequence[str],
    queries_LQN: Sequence[Tensor],
    stored_LPN: Sequence[Tensor],
    start_QN: Tensor | None = None,
) -> None:
    """energy/global/: E_global at the last layer, and the share of layer steps that lower E_t and E_global.

    A layer step is x^(t−1) → x^(t) of one query. It lowers E_t where E_t(x^(t)) < E_t(x^(t−1)), both against layer t's
    stored patterns, and E_global likewise. The shares of single layers stand under energy/<layer>/.

    Args:
        measurement: where the numbers go.
        layers: a label for each layer.
        queries_LQN: x^(t) of the queries for t = 1 … L.
        stored_LPN: the patterns of each layer.
        start_QN: x^(0), what enters the first layer; None where it is unknown, and the first step with it.
    """
    points_SQN = [*([] if start_QN is None else [start_QN]), *queries_LQN]
    queries = queries_LQN[0].shape[0]
    if len({patterns.shape[1] for patterns in (*points_SQN, *stored_LPN)}) > 1:
        measurement.reasons["energy/global"] = "the probed layers differ in width: no point is common to their energies"
        return
    # energy_LSQ[t, s] is E_t at the s-th point; layer t steps from point t + shift − 1 to point t + shift.
    energy_LSQ = layer_energies(torch.cat(points_SQN), stored_LPN).reshape(len(layers), len(points_SQN), queries)
    global_SQ = global_energy(energy_LSQ)
    measurement.add_distribution("energy/global/E", global_SQ[-1])
    shift = len(points_SQN) - len(layers)
    steps = [(t, t + shift - 1, t + shift) for t in range(1 - shift, len(layers))]
    if not steps:
        measurement.reasons["energy/global/steps"] = "one probed layer of unknown input takes no step; probe more"
        return
    lowers = [energy_LSQ[t, after] < energy_LSQ[t, before] for t, before, after in steps]
    lowers_global = [global_SQ[after] < global_SQ[before] for _, before, after in steps]
    for quantity, step_SQ in (("E", lowers), ("E_global", lowers_global)):
        for (t, _, _), step_Q in zip(steps, step_SQ, strict=True):
            measurement.add(f"energy/{layers[t]}/steps_lowering_{quantity}", float(step_Q.double().mean()))
        share = float(torch.stack(step_SQ).double().mean())
        measurement.add(f"energy/global/steps_lowering_{quantity}", share)
