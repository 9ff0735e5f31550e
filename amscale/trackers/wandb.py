"""Weights & Biases: online, or offline with WANDB_MODE=offline."""

import os
from collections.abc import Mapping
from typing import Any

import wandb

from amscale.trackers.tracker import TrackedRun, Tracker


class WandbTracker(Tracker):
    """A run of Weights & Biases. The project is WANDB_PROJECT, or `amscale`; the sweep is the group."""

    def start(self, run: TrackedRun) -> None:
        """Begin or continue the run whose id is the trial's."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "amscale"),
            id=run.id,
            name=run.name,
            group=run.group,
            config=dict(run.config),
            dir=os.environ.get("WANDB_DIR", str(run.folder)),
            resume="allow",
            reinit="create_new",  # a process may train several trials
            settings=wandb.Settings(console="off", disable_git=True, save_code=False, silent=True),
        )

    def log(self, rows: list[tuple[int, float, dict[str, float]]]) -> None:
        """Record numbers by tag; the service leaves out steps that the run has already."""
        for step, _, values in rows:
            self._run.log(values, step=step)

    def finish(self, outcome: Mapping[str, Any] | None) -> None:
        """End the run, with the outcome in its summary."""
        if outcome:
            self._run.summary.update(dict(outcome))
        self._run.finish(exit_code=0)
