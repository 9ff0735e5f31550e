"""How often a trial is probed, where the settings leave that to the run."""

import math

from amscale import models
from amscale.config import Experiment
from amscale.models import Shape
from amscale.trials.records import Placement

SHARED_EVERY = 250
"""What `auto` stands for where trials share a beginning, whose probes must be the same; the earlier default."""

_SHARE = 0.01
"""Share of the steps' time that the probes take, the last one not counted."""
_MOST = 50
"""Probes of a run before the last: more show nothing new of a curve."""
_FORWARD = 1 / 3
"""Arithmetic of a token that is probed, of one that is trained on."""
_ATTENTION_SEQUENCES = 32
"""Sequences that are run once more for the queries and keys of their attention."""
_LAYER_FLOPS = 2.5e8
"""What a probe takes of each layer beside its forward passes, as arithmetic: distances, energies, many small calls.
Measured on CPUs from 1.7k to 100k parameters, where it is most of a probe."""
_STEP_FLOPS = 3e7
"""The same of a step: calls, the optimiser, a record."""


def probe_interval(cell: Experiment, shape: Shape, steps: int, step_flops: float, placement: Placement) -> int:
    """Return the steps between probes: what the settings give, or as many as let the probes take 1 % of the time.

    The number of sequences is the same for every trial, since r̂ and the energies depend on it; so a short run is probed
    at its end alone, which is not counted.

    Args:
        cell: settings of the trial.
        shape: its model.
        steps: of its run.
        step_flops: arithmetic of one of them, on all ranks together.
        placement: each of its ranks runs all of a probe, and its part of a step.
    """
    probes = cell.probes
    if probes.every != "auto":
        return probes.every
    if cell.order == "nested":
        return SHARED_EVERY
    tokens = (2 * probes.sequences + _ATTENTION_SEQUENCES) * shape.context
    probe = _FORWARD * tokens * models.flops_per_token(shape) + shape.layers * _LAYER_FLOPS
    step = step_flops / placement.world_size + _STEP_FLOPS
    before_last = min(_MOST, int(_SHARE * steps * step / probe))
    return math.ceil(steps / (before_last + 1))
