"""Run trials by Ray Tune: hand them over, report what happens to them, end them in order on SIGTERM and Ctrl-C."""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from ray import cloudpickle as pickle
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.search import Searcher

from amscale.cluster.branch_points import After, BranchPoints
from amscale.cluster.early_stop import HopelessValues
from amscale.cluster.patience import Schedule
from amscale.cluster.ray_cluster import HeadMonitor
from amscale.errors import Preempted
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement


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


class JobQueue(Searcher):  # type: ignore[misc]
    """Hands over trials in order, one when Tune has room for it.

    A grid search would copy the whole list of jobs for every trial, which makes each dearer the more there are.

    Args:
        configs: of the trials, in the order in which they start.
        points: what they wait for.
    """

    def __init__(self, configs: Sequence[dict[str, Any]], points: BranchPoints) -> None:
        super().__init__()
        self._configs = deque(configs)
        self._points = points

    def suggest(self, trial_id: str) -> Any:
        """Return the next config that may start, None where all wait, or FINISHED after the last."""
        if not self._configs:
            return Searcher.FINISHED
        ready = next((c for c in self._configs if self._points.is_ready(c["job"]["label"])), None)
        if ready is not None:
            self._configs.remove(ready)
        return ready

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn nothing from a trial."""

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the sweep's folder tells what is left to do."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


_WAITING_SECONDS = 60.0
"""How long no trial runs before it is said that they wait."""


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


class EndStopper(tune.Stopper):  # type: ignore[misc]
    """Lets Tune end every trial, in order, once it is asked to: ranks write checkpoints within the grace.

    Args:
        requested: asked whenever Tune looks at its trials, several times a second.
    """

    def __init__(self, requested: Callable[[], bool] = lambda: False) -> None:
        self._requested = requested

    def __reduce__(self) -> Any:
        """Leave the question out: Tune pickles its settings for a restore that amscale never asks for."""
        return EndStopper, ()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """End no trial by its result: a trial says itself when it is done."""
        return False

    def stop_all(self) -> bool:
        """Return whether every trial is to end."""
        return self._requested()


def _label(trial: Any) -> str:
    return str(trial.config["job"]["label"])


@dataclass(frozen=True)
class Job:
    """One trial to run, or several by one process."""

    label: str
    location: TrialLocation
    placement: Placement
    grace: float
    """Seconds that its processes have to write a checkpoint when they are asked to end, at least."""
    stalled_after: float
    """Seconds without a record after which it counts as hung, whatever was learned from its intervals."""
    schedule: Schedule | None = None
    """What it does after which step; nothing is learned of its intervals without it."""
    warm: bool = False
    """Whether its ranks are forked from the machine's warm server."""
    avoided: tuple[str, ...] = ()
    """Ray's names of nodes that it must not get: their devices are not what it was planned for."""
    cell: str = ""
    """What trials have in common that differ in tuned settings alone, of which hopeless ones are stopped early; empty
    where none is."""
    steps: int = 0
    """Its optimiser steps, where a cell is given."""
    after: After | None = None
    """The trial that it branches off, where that has not left it a checkpoint yet."""
    members: "tuple[Job, ...]" = ()
    """The trials that one process trains together; label, location and placement are those of the first."""
    retries: int = 0
    """How often a member that fails alone begins again."""

    def to_dict(self) -> dict[str, Any]:
        """Return the job as plain data, for the trial's actor."""
        members = [member.to_dict() for member in self.members]
        plain = {"location": self.location.to_dict(), "placement": self.placement.to_dict(), "members": members}
        return {**asdict(self), **plain}


def run_jobs(
    jobs: Sequence[Job],
    listener: Listener,
    *,
    retries: int,
    concurrent: int | None,
    state: Path,
    head: HeadMonitor,
    trainable: type | None = None,
    end_requested: Callable[[], bool] = lambda: False,
) -> None:
    """Run every job, in the order given where machines are short; return when all have ended or failed.

    Args:
        jobs: trials to run, longest first.
        listener: gets every event.
        retries: how often a trial that failed begins again without having got on: a newer checkpoint than at its last
            failure makes the count begin anew.
        concurrent: at most this many at a time, or None.
        state: folder for Ray's notes.
        head: watches the cluster's head, and tells the listener when it is gone.
        trainable: the `tune.Trainable` that runs a job; `amscale.cluster.tune_trial.TrainingTrial` if None.
        end_requested: asked several times a second; once it is true, all trials end in order and this returns.

    Raises:
        Preempted: SIGTERM came, and all trials have ended in order.
        KeyboardInterrupt: the same after Ctrl-C.
    """
    import logging

    from ray import tune

    from amscale.cluster.tune_trial import TrainingTrial, placement_group

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    by_label = {job.label: job for job in jobs}
    points = BranchPoints((job.label, job.after) for job in jobs if job.after)

    def reserved(config: dict[str, Any]) -> tune.PlacementGroupFactory:
        job = by_label[config["job"]["label"]]
        return placement_group(job.placement, job.avoided)

    hopeless = HopelessValues()
    placed = tune.with_resources(trainable or TrainingTrial, reserved)
    signals = _EndSignals(head)
    tuner = tune.Tuner(
        placed,
        tune_config=tune.TuneConfig(
            search_alg=JobQueue([{"job": job.to_dict()} for job in jobs], points),
            scheduler=hopeless,
            num_samples=len(jobs),
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(state.parent),
            name=state.name,
            verbose=0,
            stop=EndStopper(lambda: signals.received or end_requested()),
            callbacks=[ListenerCallback(listener, retries, points, hopeless.stopped)],
            failure_config=tune.FailureConfig(max_failures=retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
        ),
    )
    with head.reporting_to(listener.lost), signals.caught():
        tuner.fit()


class _EndSignals:
    """Remembers SIGTERM and Ctrl-C while Tune runs, which then ends its trials in order: ranks write checkpoints.

    Not by an exception: one that is raised in a callback or a destructor is lost. A second Ctrl-C raises one.
    """

    def __init__(self, head: HeadMonitor) -> None:
        self._head = head

    @property
    def received(self) -> bool:
        """Whether a signal has come; `head.requested` says which."""
        return self._head.requested is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._head.requested is not None and number == signal.SIGINT:
            raise self._head.requested
        self._head.requested = self._head.requested or (KeyboardInterrupt if number == signal.SIGINT else Preempted)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch the signals while the block runs.

        Raises:
            Preempted: after the block, if SIGTERM came.
            KeyboardInterrupt: the same after Ctrl-C.
        """
        # Tune takes SIGUSR1 for itself.
        before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)}
        signal.signal(signal.SIGTERM, self._receive)
        if before[signal.SIGINT] != signal.SIG_IGN:  # as it is for a job that a script started in the background
            signal.signal(signal.SIGINT, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._head.requested is not None:
            raise self._head.requested
