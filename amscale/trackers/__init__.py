"""Trackers of experiments: services and folders that show the trials of a sweep as runs.

A tracker is one class in one file. The registry TRACKERS, or an entry point of the group `amscale.trackers`, gives it
by the name that `report_to` lists. TensorBoard needs none: every trial has its event files.
"""

from amscale.errors import InputError
from amscale.registry import Registry
from amscale.trackers.tracker import TrackedRun, Tracker

TRACKERS: Registry[type[Tracker]] = Registry(
    "amscale.trackers",
    {
        "wandb": "amscale.trackers.wandb:WandbTracker",
        "mlflow": "amscale.trackers.mlflow:MlflowTracker",
        "trackio": "amscale.trackers.trackio:TrackioTracker",
    },
)
"""Every tracker by its name."""

TENSORBOARD = "tensorboard"
"""The name that stands for the event files of every trial."""


def find_tracker(name: str) -> type[Tracker]:
    """Return the tracker of that name.

    Raises:
        InputError: no such name, what is registered is no tracker, or its package is not installed.
    """
    try:
        found = TRACKERS.find(name, "report_to")
    except ImportError as error:
        raise InputError(
            f"report_to={name!r} needs a package that is not installed ({error}): pip install 'amscale[{name}]'"
        ) from None
    if not (isinstance(found, type) and issubclass(found, Tracker)):
        raise InputError(f"amscale.trackers: {name!r} is {found!r}; it must be a subclass of amscale.trackers.Tracker")
    return found


__all__ = ["TENSORBOARD", "TRACKERS", "TrackedRun", "Tracker", "find_tracker"]
