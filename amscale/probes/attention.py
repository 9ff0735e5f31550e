"""Attention as retrieval: each head looks a query up among keys, as a modern Hopfield network looks up a pattern.

    E(q) = −β⁻¹ log Σ_i exp(β k_iᵀq) + ½‖q‖²        Ramsauer et al. 2020, eq. 2, without its constants

The sum runs over the keys that the query may see. β is the factor of the model's scores (1/√head dimension unless the
model sets another), and a bias that the model adds to its scores is added to βkᵀq.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amscale.probes.interface import Activations, Probe, ProbeContext, ScalarChart, layer_label
from amscale.probes.measurement import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from amscale.probes.patterns import Retrieval

MASS = 0.9
"""The softmax mass that a query's strongest keys are to hold."""


@dataclass(frozen=True)
class Lookup:
    """What the queries of one layer find in one micro-batch."""

    energy_BHQ: "Tensor"
    change_BHQ: "Tensor"
    """What the layer's step adds to the energy."""
    keys_BHQ: "Tensor"
    """Keys that hold MASS of the softmax mass."""
    visible_BHQ: "Tensor"
    """Keys that the query may see."""


class AttentionProbe(Probe):
    """Measure the energy of each layer's retrieval, its change by the layer's step, and the keys that hold the mass."""

    name = "attention"
    wants = ("attention",)
    charts = (
        ScalarChart(
            "attention", "keys that hold 90 % of the mass", ("^attention/layer_[0-9]+/keys_for_90_percent_mean$",)
        ),
    )

    def reduce_attention(self, retrieval: "Retrieval") -> Lookup:
        """Return energies and counts of keys.

        The change is E(q′) − E(q), with q the queries of the layer's input x^(t−1) and q′ those that the same
        projections make of its output x^(t), both among the keys of x^(t−1).
        """
        import torch

        energy_BHQ = retrieval_energy(retrieval, retrieval.query_BHQK)
        return Lookup(
            energy_BHQ,
            retrieval_energy(retrieval, retrieval.stepped_BHQK) - energy_BHQ,
            keys_holding(retrieval),
            (scores(retrieval, retrieval.query_BHQK) > -torch.inf).sum(-1),
        )

    def measure(self, context: ProbeContext, activations: Activations) -> Measurement:
        """Measure attention/<layer>/; distributions are over heads, each the mean over sequences and positions."""
        measurement = Measurement()
        for t, reason in activations.attention_reasons.items():
            measurement.reasons[f"attention/{layer_label(t)}"] = reason
        for t, lookups in activations.attention.items():
            if t not in activations.attention_reasons:
                _add(measurement, f"attention/{layer_label(t)}", lookups)
        return measurement


def _add(measurement: Measurement, name: str, lookups: Sequence[Lookup]) -> None:
    import torch

    energy_BHQ = torch.cat([lookup.energy_BHQ for lookup in lookups])
    change_BHQ = torch.cat([lookup.change_BHQ for lookup in lookups])
    keys_BHQ = torch.cat([lookup.keys_BHQ for lookup in lookups])
    visible_BHQ = torch.cat([lookup.visible_BHQ for lookup in lookups])
    bad = int((~(energy_BHQ.isfinite() & change_BHQ.isfinite())).sum())
    if bad:
        measurement.reasons[name] = f"{bad} of {energy_BHQ.numel()} retrieval energies are not finite"
        return
    measurement.add_distribution(f"{name}/energy", energy_BHQ.mean((0, 2)))
    measurement.add_distribution(f"{name}/energy_change", change_BHQ.mean((0, 2)))
    measurement.add(f"{name}/steps_lowering_energy", float((change_BHQ < 0).double().mean()))
    measurement.add_distribution(f"{name}/keys_for_90_percent", keys_BHQ.double().mean((0, 2)))
    measurement.add(f"{name}/keys_visible_mean", float(visible_BHQ.double().mean()))


def scores(retrieval: "Retrieval", query_BHQK: "Tensor") -> "Tensor":
    """Return βkᵀq plus the bias, (B, H, Q, T) float64; minus infinity where a query may not see a key."""
    return retrieval.beta * query_BHQK @ retrieval.key_BHTK.transpose(-1, -2) + retrieval.bias_BHQT


def retrieval_energy(retrieval: "Retrieval", query_BHQK: "Tensor") -> "Tensor":
    """Return E(q) = −β⁻¹ lse(scores) + ½‖q‖² of queries among a layer's keys, (B, H, Q) float64."""
    return -scores(retrieval, query_BHQK).logsumexp(-1) / retrieval.beta + 0.5 * query_BHQK.square().sum(-1)


def keys_holding(retrieval: "Retrieval", mass: float = MASS) -> "Tensor":
    """Count the strongest keys that hold that share of a query's softmax mass, (B, H, Q)."""
    share_BHQT = scores(retrieval, retrieval.query_BHQK).softmax(-1).sort(dim=-1, descending=True).values
    return (share_BHQT.cumsum(-1) < mass).sum(-1) + 1
