"""Run trials by Ray Tune: start or join a Ray cluster, hand over the trials, report what happens to them.

While trials run, the driver watches the head of its cluster (without it Ray gives up only after a minute, with pages of
logs), and ends its trials in order when SIGTERM or Ctrl-C asks for it.
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from ray import cloudpickle as pickle
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.search import Searcher

from amscale.cluster.network import check_reachable
from amscale.errors import InputError, Preempted
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


class JobQueue(Searcher):  # type: ignore[misc]
    """Hands over trials in order, one when Tune has room for it.

    A grid search would copy the whole list of jobs for every trial, which makes each dearer the more there are.

    Args:
        configs: of the trials, in the order in which they start.
    """

    def __init__(self, configs: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self._configs = deque(configs)

    def suggest(self, trial_id: str) -> Any:
        """Return the next config, or FINISHED after the last."""
        return self._configs.popleft() if self._configs else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn nothing from a trial."""

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the sweep's folder tells what is left to do."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class ListenerCallback(tune.Callback):  # type: ignore[misc]
    """Passes on what Tune does to a listener."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._reasons: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the listener out: Tune pickles its settings for a restore that amscale never asks for."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._listener.started(_label(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "failure" in result:
            self._reasons[_label(trial)] = result["failure"]
            return
        self._listener.progress(_label(trial), result)
        if "note" in result:
            self._listener.noted(_label(trial), result["note"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        # A failure that another attempt would only repeat is reported as an end: Tune would start the trial again.
        if trial.last_result.get("failed"):
            self._listener.failed(_label(trial), trial.last_result["failed"], again=False)
        else:
            self._listener.ended(_label(trial))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, again=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._failed(trial, again=False)

    def _failed(self, trial: Any, again: bool) -> None:
        reason = self._reasons.pop(_label(trial), None)
        if reason is None:  # the actor ended before it could say anything
            reason = _reason_of_lost_actor(trial)
        self._listener.failed(_label(trial), reason, again)


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


def _label(trial: Any) -> str:
    return str(trial.config["job"]["label"])


_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """One trial to run."""

    label: str
    location: TrialLocation
    placement: Placement
    grace: float
    """Seconds that its processes have to write a checkpoint when they are asked to end."""
    stalled_after: float
    """Seconds without a record after which it counts as hung."""
    warm: bool = False
    """Whether its ranks are forked from the machine's warm server."""

    def to_dict(self) -> dict[str, Any]:
        """Return the job as plain data, for the trial's actor."""
        return {**asdict(self), "location": self.location.to_dict(), "placement": self.placement.to_dict()}


@contextmanager
def ray_cluster(address: str | None, cpus: int) -> Iterator[None]:
    """Join the Ray cluster at `address`, or start one on this machine that ends with this block.

    Args:
        address: of a running cluster, or `auto`; None starts Ray here, reachable on loopback only.
        cpus: CPU cores to offer where Ray is started here.

    Raises:
        InputError: no cluster answers at the address.
    """
    # Tune must neither catch Ctrl-C nor keep records: the sweep's folder is the record.
    os.environ |= {
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "inf",
        # Trials that wait for machines at a time: enough to fill a cluster, few enough to keep their order.
        "TUNE_MAX_PENDING_TRIALS_PG": "16",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    # A trial's processes descend from Ray's workers, which would run at the lowest priority but one.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "configure_logging": True}
    if address is None:
        _listen_on_loopback()
        # `local` starts one even where RAY_ADDRESS or an earlier `ray start` on this machine names another.
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    else:
        try:
            _check_answers(address)
            ray.init(address=address, **quiet)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"launch.address={address!r}: no Ray cluster answers there ({reason})") from None
    try:
        yield
    finally:
        ray.shutdown()


def _listen_on_loopback() -> None:
    """Let a Ray that is started here, and the processes that it starts, listen on loopback and nowhere else."""
    from ray._private import ray_constants

    # Despite its name this is Ray's switch between a machine's address and loopback. Ray reads the environment when it
    # is imported, which it is here already; its other processes read it when they start.
    ray_constants.ENABLE_RAY_CLUSTER = False
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def _check_answers(address: str) -> None:
    """Check that something listens at an address; Ray itself would go on trying for minutes.

    Raises:
        OSError: nothing listens.
        ValueError: not an address.
    """
    if address == "auto":
        return
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        raise ValueError("write host:port, or auto")
    check_reachable(f"{host}:{port}", _ANSWER_SECONDS)


def run_jobs(
    jobs: Sequence[Job],
    listener: Listener,
    *,
    retries: int,
    concurrent: int | None,
    state: Path,
    trainable: type | None = None,
) -> None:
    """Run every job, in the order given where machines are short; return when all have ended or failed.

    Args:
        jobs: trials to run, longest first.
        listener: gets every event.
        retries: how often a failed trial begins again.
        concurrent: at most this many at a time, or None.
        state: folder for Ray's notes.
        trainable: the `tune.Trainable` that runs a job; `amscale.cluster.tune_trial.TrainingTrial` if None.
    """
    import logging

    from ray import tune

    from amscale.cluster.tune_trial import TrainingTrial, placement_group

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    placements = {job.label: job.placement for job in jobs}
    placed = tune.with_resources(
        trainable or TrainingTrial, lambda config: placement_group(placements[config["job"]["label"]])
    )
    tuner = tune.Tuner(
        placed,
        tune_config=tune.TuneConfig(
            search_alg=JobQueue([{"job": job.to_dict()} for job in jobs]),
            num_samples=len(jobs),
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(state.parent),
            name=state.name,
            verbose=0,
            callbacks=[ListenerCallback(listener)],
            failure_config=tune.FailureConfig(max_failures=retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
        ),
    )
    with head_monitored(listener), graceful_shutdown():
        tuner.fit()


_LOOK_SECONDS = 1.0
_REFUSALS = 3
"""A head that refuses connections this many times in a row is dead."""
_HEAD_ANSWER_SECONDS = 30.0
"""A head that cannot be reached this long is given up: a network may come back."""


@contextmanager
def head_monitored(listener: Listener) -> Iterator[None]:
    """End this process with status 1 when the head of its Ray cluster is gone, while the block runs."""
    import ray

    address = ray.get_runtime_context().gcs_address
    over = threading.Event()
    threading.Thread(target=_monitor, args=(address, listener, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _monitor(address: str, listener: Listener, over: threading.Event) -> None:
    refused = silent = 0.0
    while not over.wait(_LOOK_SECONDS):
        try:
            check_reachable(address, _HEAD_ANSWER_SECONDS / 3)
            refused = silent = 0
        except TimeoutError:
            silent += _HEAD_ANSWER_SECONDS / 3
        except OSError:  # refused, or no way to the host
            refused += 1
        if refused >= _REFUSALS or silent >= _HEAD_ANSWER_SECONDS:
            break
    if not over.is_set():
        try:
            listener.lost(
                f"the Ray cluster is gone: its head at {address} does not answer. Trials end by themselves within a "
                "minute; start the cluster and give the same command again to go on from their checkpoints"
            )
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            # The main thread is inside Ray, which would wait for the head; what Ray started here ends with it.
            os._exit(1)


@contextmanager
def graceful_shutdown() -> Iterator[None]:
    """While the block runs Tune, SIGTERM and Ctrl-C end its trials in order: ranks write checkpoints within the grace.

    Not by an exception: one that is raised in a callback or a destructor is lost. A second Ctrl-C raises one.

    Raises:
        Preempted: after the block, if SIGTERM came.
        KeyboardInterrupt: the same after Ctrl-C.
    """
    requested: type[BaseException] | None = None

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        again = requested is not None and number == signal.SIGINT
        requested = requested or (KeyboardInterrupt if number == signal.SIGINT else Preempted)
        if again or signal.getsignal(signal.SIGUSR1) == before[signal.SIGUSR1]:  # or no trial runs yet
            raise requested
        # Tune's own handler of this one: it leaves its loop and stops every trial.
        signal.raise_signal(signal.SIGUSR1)

    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, receive)
    if before[signal.SIGINT] != signal.SIG_IGN:  # as it is for a job that a script started in the background
        signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if requested is not None:
        raise requested
