"""Pass on to a listener what Ray Tune does with trials, in order, with the reasons of their failures."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ray import cloudpickle as pickle
from ray import tune
from ray.exceptions import RayActorError

from amscale.cluster.branch_points import BranchPoints
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement

_WAITING_SECONDS = 60.0
"""How long no trial runs before it is said that they wait."""


class Listener(Protocol):
    """Takes note of what happens to trials while they run."""

    def started(self, label: str) -> None:
        """Take note that a trial got its machines."""

    def progress(self, label: str, report: dict[str, Any]) -> None:
        """Take a trial's newest numbers."""

    def noted(self, label: str, note: str) -> None:
        """Take a remark on a trial that its user should know."""

    def lost(self, reason: str) -> None:
        """Take note that the cluster is gone; this process ends next."""

    def ended(self, label: str) -> None:
        """Take note that a trial has its result."""

    def failed(self, label: str, reason: str, again: bool) -> None:
        """Take note that a trial failed, and whether it begins again."""

    def stopped(self, label: str, reason: str, report: dict[str, Any]) -> None:
        """Take note that a trial was stopped early, with its newest numbers."""


class ListenerCallback(tune.Callback):  # type: ignore[misc]
    """Passes on what Tune does to a listener, and lets a trial that gets on between its failures fail more often.

    Args:
        listener: gets every event.
        retries: how often a failed trial begins again without having got on.
        points: learns which steps trials have passed.
        stopped: why trials were stopped early, by label, as far as the run has got.
    """

    def __init__(
        self,
        listener: Listener,
        retries: int = 0,
        points: BranchPoints | None = None,
        stopped: Mapping[str, str] | None = None,
    ) -> None:
        self._listener = listener
        self._stopped = {} if stopped is None else stopped
        self._points = points or BranchPoints(())
        self._retries = retries
        self._reasons: dict[str, str] = {}
        self._waits_since = time.monotonic()
        self._reached: dict[str, int] = {}
        """Step of the newest checkpoint of each trial."""
        self._failed_at: dict[str, int] = {}
        """The same when it failed last."""
        self._ended_members: set[str] = set()
        """Trials of packs that have ended."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the listener out: Tune pickles its settings for a restore that amscale never asks for."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for label in self._labels(trial):
            self._listener.started(label)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Pass a report on; a newer checkpoint than at the trial's last failure makes its retries count anew."""
        label = _label(trial)
        reached = self._reached[label] = max(self._reached.get(label, 0), result.get("checkpoint", 0))
        if reached > self._failed_at.get(label, reached):
            trial.max_failures = trial.num_failures + self._retries
            self._failed_at.pop(label)
        if "failure" in result:
            self._reasons[label] = result["failure"]
            return
        if "members" in result:
            for member, report in result["members"].items():
                self._take_member(member, report)
            return
        self._points.passed(label, result.get("step", 0))
        self._listener.progress(_label(trial), result)
        if "note" in result:
            self._listener.noted(_label(trial), result["note"])

    def _take_member(self, label: str, report: dict[str, Any]) -> None:
        """Pass on what is new of one trial of a pack."""
        self._listener.progress(label, report)
        if "note" in report:
            self._listener.noted(label, report["note"])
        if report.get("done"):
            self._ended_members.add(label)
            if report.get("failed"):
                self._listener.failed(label, report["failed"], again=False)
            else:
                self._listener.ended(label)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.config["job"]["members"]:
            return  # each member's end was reported
        # A failure that another attempt would only repeat is reported as an end: Tune would start the trial again.
        if trial.last_result.get("failed"):
            self._listener.failed(_label(trial), trial.last_result["failed"], again=False)
        elif _label(trial) in self._stopped:
            self._listener.stopped(_label(trial), self._stopped[_label(trial)], trial.last_result)
        else:
            self._listener.ended(_label(trial))
        self._ended(_label(trial))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, again=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, again=False)
        self._ended(_label(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Say that trials wait for machines, which Ray does not, however long that takes."""
        waiting = [trial for trial in trials if trial.status == "PENDING"]
        if not waiting or len(waiting) < sum(not trial.is_finished() for trial in trials):
            self._waits_since = time.monotonic()
        elif time.monotonic() > self._waits_since + _WAITING_SECONDS:
            self._waits_since = time.monotonic()
            placement = Placement(**waiting[0].config["job"]["placement"])
            self._listener.noted(
                _label(waiting[0]),
                f"has waited {_WAITING_SECONDS:.0f} s for {placement.machines} machine(s) with "
                f"{describe_bundle(placement)} free on each: something else holds them, or a node has left the cluster",
            )

    def _ended(self, label: str) -> None:
        for branch in self._points.ended(label):
            self._listener.noted(branch, f"trains from its first step: {label}, which it was to branch off, has ended")

    def _failed(self, trial: Any, again: bool) -> None:
        self._failed_at[_label(trial)] = self._reached.get(_label(trial), 0)
        reason = self._reasons.pop(_label(trial), None)
        if reason is None:  # the actor ended before it could say anything
            reason = _reason_of_lost_actor(trial)
        for label in self._labels(trial):
            self._listener.failed(label, reason, again)

    def _labels(self, trial: Any) -> list[str]:
        """Return the label of a trial, or those of a pack whose ends were not reported."""
        members = [member["label"] for member in trial.config["job"]["members"]]
        return [label for label in members if label not in self._ended_members] if members else [_label(trial)]


def _reason_of_lost_actor(trial: Any) -> str:
    """Return why a trial's actor ended without a report: Ray's error, and the last lines of the trial's log.

    Record it in the trial's folder, where this machine has it.
    """
    path = trial.pickled_error_file  # `get_error` would read a copy that Tune makes later
    error = pickle.loads(Path(path).read_bytes()) if path and Path(path).is_file() else None
    if error is None or isinstance(error, RayActorError):
        reason = "the trial's actor was lost: it was killed, or its machine was lost or cut off"
    else:
        reason = str(error).strip().splitlines()[-1]
    store = TrialLocation(**trial.config["job"]["location"]).store()
    with suppress(OSError):
        reason = f"{reason}\n{store.reason()}".strip()
        if store.path.is_dir():
            store.add_failure(reason)
    return reason


def describe_bundle(placement: Placement) -> str:
    """Return what a trial reserves on each of its machines, in words."""
    processes = placement.processes_per_machine
    cores = f"{processes * placement.cpus_per_process} CPU core(s)"
    memory = f" with at least {placement.device_memory / 1e9:.1f} GB" if placement.device_memory else ""
    gpus = f"{processes * placement.gpu_fraction:g} GPU(s){memory}"
    return f"{gpus} and {cores}" if placement.device == "cuda" else cores


def _label(trial: Any) -> str:
    return str(trial.config["job"]["label"])
