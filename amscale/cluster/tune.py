"""Run trials by Ray Tune: hand them over, report what happens to them, end them in order on SIGTERM and Ctrl-C."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from amscale.cluster.branch_points import After, BranchPoints
from amscale.cluster.early_stop import HopelessValues
from amscale.cluster.listener import Listener, ListenerCallback
from amscale.cluster.patience import Schedule
from amscale.cluster.ray_head import HeadMonitor
from amscale.cluster.without_trackers import without_trackers
from amscale.errors import Preempted
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement


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

    # Tune counts the callbacks of its own trackers, and imports these where they are installed.
    with without_trackers():
        for name in ("mlflow", "wandb"):
            import_module(f"ray.air.integrations.{name}")
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
        if number == signal.SIGINT:
            if self._head.requested is not None:
                raise self._head.requested
            with suppress(OSError):  # by the descriptor: a handler may have come in the middle of a print
                os.write(2, b"\nending: trials write checkpoints; Ctrl-C once more does not wait for them\n")
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
