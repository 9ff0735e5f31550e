"""Energies of held-out sequences among the patterns that each layer stores, and over all layers together.

Stored patterns are those of training sequences; queries are those of validation sequences, at the same layer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amscale.probes.interface import Activations, LayerPatterns, Probe, ProbeContext, ScalarChart
from amscale.probes.measurement import Measurement, ProbeColumn

if TYPE_CHECKING:
    from torch import Tensor

BETAS = (1, 2)
"""Inverse temperatures of E_MCHN: Ramsauer's usual 1, and the 2 at which its update is that of E."""


class Energy(Probe):
    """Measure g, E and E_MCHN by layer, and which steps from layer to layer lower E and the global energy."""

    name = "energy"
    wants = ("patterns",)
    columns = (
        ProbeColumn("steps lowering E", "energy/global/steps_lowering_E", share=True),
        ProbeColumn("lowering E_global", "energy/global/steps_lowering_E_global", share=True),
    )
    charts = (
        ScalarChart(
            "associative memory",
            "layer steps that lower the energy",
            ("^energy/global/steps_lowering_E(_global)?$",),
        ),
    )

    def measure_layer(self, context: ProbeContext, layer: LayerPatterns) -> Measurement:
        """Measure energy/<layer>/: g, E and E_MCHN of the queries against the stored patterns.

        `E_lower_mean` is the mean of Proposition 1's lower bound g − log P; the upper bound is g itself.
        """
        from amscale.hopfield.energy import bounds_from_nearest, energy, energy_mchn, nearest_squared_distance

        measurement, name = Measurement(), f"energy/{layer.label}"
        nearest_Q = nearest_squared_distance(layer.queries_QN, layer.stored_PN)
        measurement.add_distribution(f"{name}/g", nearest_Q)
        measurement.add_distribution(f"{name}/E", energy(layer.queries_QN, layer.stored_PN))
        bounds = bounds_from_nearest(nearest_Q, layer.stored_PN.shape[0])
        measurement.add(f"{name}/E_lower_mean", float(bounds.lower.mean()))
        for beta in BETAS:
            energy_Q = energy_mchn(layer.queries_QN, layer.stored_PN, beta)
            measurement.add_distribution(f"{name}/E_mchn_beta{beta}", energy_Q)
        return measurement

    def measure(self, context: ProbeContext, activations: Activations) -> Measurement:
        """Measure energy/global/, with the shares of single layers under energy/<layer>/."""
        layers, start_QN = activations.layers, activations.first_input_QN
        broken = [layer.label for layer in layers if layer.reason]
        if start_QN is not None and not bool(start_QN.isfinite().all()):
            broken.append("the first layer's input")
        if broken:
            reason = f"activations of {', '.join(broken)} are not finite"
            return Measurement(reasons={"energy/global": reason})
        return measure_global_energy(layers, start_QN)


def measure_global_energy(layers: Sequence[LayerPatterns], start_QN: "Tensor | None") -> Measurement:
    """Measure E_global at the last layer, and the share of layer steps that lower E_t and E_global.

    A layer step is x^(t−1) → x^(t) of one query. It lowers E_t where E_t(x^(t)) < E_t(x^(t−1)), both against layer t's
    stored patterns, and E_global likewise.

    Args:
        layers: finite patterns, those of the queries being x^(t) for t = 1 … L.
        start_QN: x^(0), what enters the first layer; None leaves out the first step.
    """
    import torch

    from amscale.hopfield.energy import global_energy, layer_energies

    measurement = Measurement()
    stored_LPN, queries = [layer.stored_PN for layer in layers], layers[0].queries_QN.shape[0]
    points_SQN = [*([] if start_QN is None else [start_QN]), *(layer.queries_QN for layer in layers)]
    if len({patterns.shape[1] for patterns in (*points_SQN, *stored_LPN)}) > 1:
        measurement.reasons["energy/global"] = "the probed layers differ in width: no point is common to their energies"
        return measurement
    # energy_LSQ[t, s] is E_t at the s-th point; layer t steps from point t + shift − 1 to point t + shift.
    energy_LSQ = layer_energies(torch.cat(points_SQN), stored_LPN).reshape(len(layers), len(points_SQN), queries)
    global_SQ = global_energy(energy_LSQ)
    measurement.add_distribution("energy/global/E", global_SQ[-1])
    shift = len(points_SQN) - len(layers)
    steps = [(t, t + shift - 1, t + shift) for t in range(1 - shift, len(layers))]
    if not steps:
        measurement.reasons["energy/global/steps"] = "one probed layer of unknown input takes no step; probe more"
        return measurement
    lowers = [energy_LSQ[t, after] < energy_LSQ[t, before] for t, before, after in steps]
    lowers_global = [global_SQ[after] < global_SQ[before] for _, before, after in steps]
    for quantity, step_SQ in (("E", lowers), ("E_global", lowers_global)):
        for (t, _, _), step_Q in zip(steps, step_SQ, strict=True):
            measurement.add(f"energy/{layers[t].label}/steps_lowering_{quantity}", float(step_Q.double().mean()))
        share = float(torch.stack(step_SQ).double().mean())
        measurement.add(f"energy/global/steps_lowering_{quantity}", share)
    return measurement
