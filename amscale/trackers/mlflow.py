"""MLflow: the server or store of MLFLOW_TRACKING_URI, else a database in the sweep's folder."""

import os
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from amscale.locks import FileLock
from amscale.trackers.tracker import TrackedRun, Tracker

_TAG = "amscale.trial"
_MOST = 100
"""Parameters and metrics that a request may hold at least."""


class MlflowTracker(Tracker):
    """A run of MLflow, found by a tag that holds the trial's id. The sweep is the experiment."""

    def start(self, run: TrackedRun) -> None:
        """Begin or continue the run that is tagged with the trial's id."""
        # Trials that start together must not both make the tables of a new database.
        with FileLock(run.folder / "mlflow.lock", wait=True):
            self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.folder}/mlflow.db")
            experiment = self._experiment(run.group)
        found = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{run.id}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(experiment, run_name=run.name, tags={_TAG: run.id}).info.run_id
        settings = [Param(key, str(value)[:500]) for key, value in run.config.items()]
        for first in range(0, len(settings), _MOST):
            self._client.log_batch(self._id, params=settings[first : first + _MOST])

    def _experiment(self, name: str) -> str:
        """Return the id of the sweep's experiment; sweeps and machines may make it at once."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def log(self, rows: list[tuple[int, float, dict[str, float]]]) -> None:
        """Record numbers by tag."""
        metrics = [
            Metric(tag, value, int(seconds * 1000), step)
            for step, seconds, values in rows
            for tag, value in values.items()
        ]
        for first in range(0, len(metrics), _MOST):
            self._client.log_batch(self._id, metrics=metrics[first : first + _MOST])

    def finish(self, outcome: Mapping[str, Any] | None) -> None:
        """End the run; a preempted one is to continue."""
        if outcome is None:
            self._client.set_terminated(self._id, status="SCHEDULED")
            return
        for name, value in outcome.items():
            self._client.set_tag(self._id, f"amscale.{name}", str(value))
        self._client.set_terminated(self._id)
