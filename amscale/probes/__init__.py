"""Measurements inside a network while it trains.

A probe is one class in one file (docs/probes.md):

    probe           Probe, the interface, and what a probe is given
    measurement     Measurement, what a probe returns, and its columns of the report's table
    registry        probes by name, built-in and of installed packages; the section `probes` of a configuration
    energy, radius, memorisation, attention      the built-in probes
    suite           runs the forward passes once and merges what the probes measure
    patterns, capture, queries_keys      sequences and activations

Nothing that this package imports by itself imports torch: a plan and a report know the probes without it.
"""

from amscale.probes.interface import Activations, LayerPatterns, Probe, ProbeContext, ScalarChart
from amscale.probes.measurement import Measurement, ProbeColumn
from amscale.probes.registry import PROBES

__all__ = [
    "PROBES",
    "Activations",
    "LayerPatterns",
    "Measurement",
    "Probe",
    "ProbeColumn",
    "ProbeContext",
    "ScalarChart",
]
