"""The configuration: from a YAML file and `key=value` overrides to typed, frozen settings.

    experiment = load("configs/quick.yaml", ["train.steps=200", "model.size=25k"])
    cells = expand(experiment)          # one Experiment per cell of the grid

A key named in `grid` is an axis. Overriding it narrows the axis to the given value, so that one cell can be run alone.
"""

from amscale.config.loading import expand, load, parse, split_arguments
from amscale.config.schema import Experiment, FitSettings, LaunchSettings, TrainSettings
from amscale.config.validating import Validating, validating

__all__ = [
    "Experiment",
    "FitSettings",
    "LaunchSettings",
    "TrainSettings",
    "Validating",
    "expand",
    "load",
    "parse",
    "split_arguments",
    "validating",
]
