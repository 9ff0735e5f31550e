"""Who is told what happens to trials while they run.

The jobs of a sweep as Tune asks for them: one at a time, in order.

Tune's callbacks, turned into a listener's words.

Run trials by Ray Tune: start or join a Ray cluster, hand over what the ledger lacks, tell what happens.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ray import cloudpickle as pickle
from ray import tune
from ray.exceptions import RayActorError
from ray.tune.search import Searcher

from amscale.cluster.launcher import Placement
from amscale.cluster.network import check_reachable
from amscale.errors import InputError
from amscale.trials.place import TrialPlace


class Listener(Protocol):
    """Is told what happens to trials while they run."""

    def started(self, label: str) -> None:
        """The trial got its place."""

    def progress(self, label: str, report: dict[str, Any]) -> None:
        """The trial's newest numbers."""

    def noted(self, label: str, note: str) -> None:
        """Something about the trial that its user should know."""

    def lost(self, reason: str) -> None:
        """The cluster is gone, and this process ends next."""

    def ended(self, label: str) -> None:
        """The trial has its result."""

    def failed(self, label: str, reason: str, again: bool) -> None:
        """The trial failed, and is started again or not."""


class Queue(Searcher):  # type: ignore[misc]
    """Hands over a trial's config when Tune has room for it.

    A grid search would copy the whole list of jobs for every trial, which makes each dearer the more there are.

    Args:
        configs: of the trials, in the order in which they shall start.
    """

    def __init__(self, configs: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self._configs = deque(configs)

    def suggest(self, trial_id: str) -> Any:
        """The next config; FINISHED when there is none."""
        return self._configs.popleft() if self._configs else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learned from a trial."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept: what is left to do is in the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept."""


class Callback(tune.Callback):  # type: ignore[misc]
    """Tells a listener what Tune does."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._reasons: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its settings for a restore that amscale never asks for; a listener is not among them."""
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
        # A failure that another start would only repeat is reported as an end, since Tune would start the trial again.
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
            reason = _found(trial)
        self._listener.failed(_label(trial), reason, again)


def _found(trial: Any) -> str:
    """Why a trial's actor ended without a word: from Ray's error, and the last lines of the trial's log.

    Recorded in the trial's folder, where this machine has it.
    """
    path = trial.pickled_error_file  # `get_error` would read a copy that Tune makes later
    error = pickle.loads(Path(path).read_bytes()) if path and Path(path).is_file() else None
    if error is None or isinstance(error, RayActorError):
        reason = "the trial's actor was lost: it was killed, or its machine was lost or cut off"
    else:
        reason = str(error).strip().splitlines()[-1]
    folder = TrialPlace(**trial.config["job"]["place"]).folder(0)
    with suppress(OSError):
        reason = f"{reason}\n{folder.reason()}".strip()
        if folder.path.is_dir():
            folder.add_failure(reason)
    return reason


def _label(trial: Any) -> str:
    return str(trial.config["job"]["label"])


_KNOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Job:
    """One trial to run."""

    label: str
    place: TrialPlace
    placement: Placement
    grace: float
    """Seconds that its processes have to write a checkpoint when they are told to end."""
    stalled_after: float
    """Seconds without a record after which it counts as hung."""

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for the trial's actor."""
        return {**asdict(self), "place": self.place.to_dict(), "placement": self.placement.to_dict()}


@contextmanager
def ray_cluster(address: str | None, cpus: int) -> Iterator[None]:
    """Join the Ray cluster at `address`, or start one on this machine that ends with this block.

    Args:
        address: of a running cluster, or `auto`; None starts Ray here, reachable on loopback only.
        cpus: CPU cores to offer where Ray is started here.

    Raises:
        InputError: no cluster answers at the address.
    """
    # Tune must neither catch Ctrl-C nor keep records of its own: the ledger is the record.
    os.environ |= {
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "inf",
        # Trials that wait for a place at a time: enough to fill a cluster, few enough to keep their order.
        "TUNE_MAX_PENDING_TRIALS_PG": "16",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "configure_logging": True}
    if address is None:
        _listen_on_loopback()
        # `local` starts one even where RAY_ADDRESS or an earlier `ray start` on this machine names another.
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    else:
        try:
            _knock(address)
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


def _knock(address: str) -> None:
    """Fail at once where nobody listens; Ray itself would go on trying for minutes.

    Raises:
        OSError: nobody listens.
        ValueError: not an address.
    """
    if address == "auto":
        return
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        raise ValueError("write host:port, or auto")
    check_reachable(f"{host}:{port}", _KNOCK_SECONDS)


def run_jobs(
    jobs: Sequence[Job],
    listener: Listener,
    *,
    retries: int,
    concurrent: int | None,
    state: Path,
    trainable: type | None = None,
) -> None:
    """Run every job, in the order given where places are short; returns when all have ended or failed.

    Args:
        jobs: trials to run, longest first.
        listener: told of everything.
        retries: how often a failed trial is started again.
        concurrent: at most this many at a time, or None.
        state: folder for Ray's own notes.
        trainable: the `tune.Trainable` that runs a job; `amscale.cluster.tune_trial.Trial` if None.
    """
    import logging

    from ray import tune

    from amscale.cluster.head_monitor import watched
    from amscale.cluster.shutdown import graceful_shutdown
    from amscale.cluster.tune_trial import Trial, placement_group

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    placements = {job.label: job.placement for job in jobs}
    placed = tune.with_resources(trainable or Trial, lambda config: placement_group(placements[config["job"]["label"]]))
    tuner = tune.Tuner(
        placed,
        tune_config=tune.TuneConfig(
            search_alg=Queue([{"job": job.to_dict()} for job in jobs]),
            num_samples=len(jobs),
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(state.parent),
            name=state.name,
            verbose=0,
            callbacks=[Callback(listener)],
            failure_config=tune.FailureConfig(max_failures=retries),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
        ),
    )
    with watched(listener), graceful_shutdown():
        tuner.fit()
