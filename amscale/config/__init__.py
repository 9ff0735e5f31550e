"""The one configuration: a YAML file and `key=value` overrides in, typed frozen settings out.

    experiment = load("configs/quick.yaml", ["train.steps=200", "model.size=25k"])
    cells = expand(experiment)          # one Experiment per cell of the grid

A key named in `grid` is an axis. Overriding a key that is an axis narrows the axis to that value, so that one cell of a
grid can be run by hand.
"""

from amscale.config.grid import expand
from amscale.config.loading import load, parse, split_arguments
from amscale.config.schema import Experiment, FitSettings, LaunchSettings, TrainSettings

__all__ = [
    "Experiment",
    "FitSettings",
    "LaunchSettings",
    "TrainSettings",
    "expand",
    "load",
    "parse",
    "split_arguments",
]
