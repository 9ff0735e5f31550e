"""The trackers of a trial: which it reports to, as what run, and what its outcome is for them."""

import math
from typing import Any

from amscale.config import Experiment
from amscale.models import Shape
from amscale.settings import flatten
from amscale.trackers import TENSORBOARD
from amscale.trackers.reporting import Reporting
from amscale.trackers.tracker import TrackedRun
from amscale.trials.identity import settings_of
from amscale.trials.records import TrialResult
from amscale.trials.trial_store import TrialStore


def report_to(cell: Experiment, store: TrialStore, shape: Shape, D: int, step: int) -> Reporting | None:
    """Begin to report a trial to the trackers of `report_to`; None where there are none beside TensorBoard.

    Args:
        cell: settings of the trial.
        store: the trial's.
        shape: its model.
        D: its unique tokens.
        step: the step that training continues from.
    """
    names = [name for name in cell.report_to if name != TENSORBOARD]
    if not names:
        return None
    spec = store.read_spec()
    counts = {"N": shape.parameters.under("non_embedding"), "D": D}
    config = counts | dict(flatten(settings_of(cell)))
    folder = store.path.parent.parent
    return Reporting(names, TrackedRun(spec.trial, spec.label, cell.name, folder, config, step))


def outcome_of(result: TrialResult) -> dict[str, Any]:
    """Return a result's state, and its losses in nats per token."""
    losses = {name: value for name, value in result.losses.to_tree().items() if isinstance(value, float)}
    return {"state": result.state} | {name: value for name, value in losses.items() if math.isfinite(value)}
