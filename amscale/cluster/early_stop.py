"""Stop hopeless values of tuned settings early, by Ray Tune's ASHA among those of one cell; never cells themselves."""

import math
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

_HALFWAY = 50
"""Percent of a trial's steps at which it is compared."""
_SURVIVORS = 3
"""Values of a cell that have got halfway before one is stopped, and that run to their end: what a parabola needs."""


class HopelessValues(FIFOScheduler):  # type: ignore[misc]
    """Compares each trial, at the first validation past half of its steps, with others of its cell that got there.

    By the least validation loss so far, which is what a fit takes: the latest is large where a good value over-fits.
    ASHA with one rung and a reduction factor of 2: what is worse than the median of at least three others is stopped,
    as long as more than three values of the cell are left. A sweep that goes on compares the trials of this run alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stopped: dict[str, str] = {}
        """Why each stopped trial was, by label."""
        self._cells: dict[str, ASHAScheduler] = {}
        self._values: dict[str, set[str]] = {}
        self._halfway: dict[str, set[str]] = {}
        self._least: dict[str, float] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Let a trial compete with the others of its cell."""
        job = trial.config["job"]
        if job["cell"]:
            if job["cell"] not in self._cells:
                # With 99 as the end there is one rung, and nothing is decided at the end of a run.
                self._cells[job["cell"]] = ASHAScheduler(
                    time_attr="percent",
                    metric="validation_loss",
                    mode="min",
                    max_t=99,
                    grace_period=_HALFWAY,
                    reduction_factor=2,
                    stop_last_trials=False,
                )
            self._cells[job["cell"]].on_trial_add(tune_controller, trial)
            self._values.setdefault(job["cell"], set()).add(job["label"])  # a trial that begins again is added again

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return whether a trial goes on."""
        job = trial.config["job"]
        cell, label, step = job["cell"], job["label"], result.get("validation_step")
        loss = min(self._least.get(label, math.inf), result.get("validation_least", math.inf))
        if not cell or not step or not math.isfinite(loss) or label in self.stopped:
            return str(TrialScheduler.CONTINUE)
        self._least[label] = loss
        compared = {"percent": 100 * step / job["steps"], "validation_loss": loss}
        decision = self._cells[cell].on_trial_result(tune_controller, trial, compared)
        before = self._halfway.setdefault(cell, set()) - {label}
        if compared["percent"] >= _HALFWAY:
            self._halfway[cell].add(label)
        left = self._values[cell] - set(self.stopped)
        if decision != TrialScheduler.STOP or min(len(before), len(left) - 1) < _SURVIVORS:
            return str(TrialScheduler.CONTINUE)
        self.stopped[label] = (
            f"ASHA: least validation loss {loss:.4g} at step {step} of {job['steps']}, worse than the median of the "
            "cell's other values there"
        )
        return str(TrialScheduler.STOP)
