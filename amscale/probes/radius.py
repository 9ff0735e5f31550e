"""Radii of the stored patterns of each layer beside r*, and the partition function over balls of these radii."""

from amscale.probes.interface import LayerPatterns, Probe, ProbeContext, ScalarChart
from amscale.probes.measurement import Measurement, ProbeColumn


class Radius(Probe):
    """Measure r̂ of the stored patterns by layer, how many are separated, log Z and the losses that it implies."""

    name = "radius"
    wants = ("patterns",)
    groups = ("radius", "partition")
    columns = (
        ProbeColumn("radius", "radius/{layer}/sampled_median"),
        ProbeColumn("r*", "radius/{layer}/r_star"),
        ProbeColumn("separated at r*", "radius/{layer}/separated_r_star", share=True),
        ProbeColumn("duplicates", "radius/{layer}/duplicates"),
        ProbeColumn("log Z = loss_energy", "partition/{layer}/log_Z_squared"),
        ProbeColumn("loss_paper", "partition/{layer}/loss_paper_squared"),
        ProbeColumn("loss_density", "partition/{layer}/loss_density_squared"),
    )
    charts = (
        ScalarChart("associative memory", "radius beside r*", ("^radius/layer_[0-9]+/(sampled_median|r_star)$",)),
        ScalarChart("associative memory", "log Z, unsquared distance", ("^partition/layer_[0-9]+/log_Z_unsquared$",)),
    )

    def measure_layer(self, context: ProbeContext, layer: LayerPatterns) -> Measurement:
        """Measure radius/<layer>/ and partition/<layer>/: r̂ beside r*, and log Z over balls of radius r̂.

        Exact duplicates are one ball and are counted under `duplicates`. The separated share is that of patterns whose
        ball meets no other. `separated_own`, of each pattern's r̂, is 1 by construction but for duplicates;
        `separated_median` and `separated_r_star` take one radius for all patterns: the median r̂, and r*.
        """
        from amscale.hopfield.cross_entropy import loss_density, loss_energy, loss_paper
        from amscale.hopfield.neighbours import nearest_neighbours
        from amscale.hopfield.volume import DISTANCES, log_partition, r_star

        measurement, name, group = Measurement(), f"radius/{layer.label}", f"partition/{layer.label}"
        count, dimension = layer.stored_PN.shape
        measurement.add(f"{name}/r_star", r_star(dimension))
        try:
            neighbours = nearest_neighbours(layer.stored_PN)
        except ValueError:
            reason = f"the {count} stored patterns of {layer.label} are equal: no pattern has a neighbour or a radius"
            measurement.reasons |= {name: reason, group: reason}
            measurement.add(f"{name}/duplicates", count - 1)
            return measurement
        radius_U = neighbours.radius_U
        median, radii_U = float(radius_U.quantile(0.5)), radius_U.cpu().numpy()
        measurement.histograms[f"{name}/sampled"] = radii_U
        measurement.add(f"{name}/sampled_mean", float(radius_U.mean()))
        measurement.add(f"{name}/sampled_median", median)
        measurement.add(f"{name}/duplicates", neighbours.duplicates)
        measurement.add(f"{name}/separated_own", neighbours.separated_share_of_own_radius())
        measurement.add(f"{name}/separated_median", neighbours.separated_share(median))
        measurement.add(f"{name}/separated_r_star", neighbours.separated_share(r_star(dimension)))
        for distance in DISTANCES:
            log_z = log_partition(dimension, radii_U, distance)
            measurement.add(f"{group}/log_Z_{distance}", log_z)
            measurement.add(f"{group}/loss_paper_{distance}", float(loss_paper(log_z)))
            measurement.add(f"{group}/loss_energy_{distance}", float(loss_energy(log_z)))
            measurement.add(f"{group}/loss_density_{distance}", loss_density(dimension, radii_U, distance))
        return measurement
