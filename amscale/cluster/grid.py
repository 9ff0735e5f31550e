"""Run trials by Ray Tune: start or join a Ray cluster, hand over what the ledger lacks, tell what happens."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amscale.cluster.address import knock
from amscale.cluster.launcher import Placement
from amscale.cluster.listener import Listener
from amscale.errors import InputError
from amscale.storage import TrialPlace

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
    if address is None:
        # Despite its name this is Ray's switch between a machine's address and loopback; it is read on import.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "configure_logging": True}
    if address is None:
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
    knock(f"{host}:{port}", _KNOCK_SECONDS)


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
        trainable: the `tune.Trainable` that runs a job; `amscale.cluster.trial.Trial` if None.
    """
    import logging

    from ray import tune

    from amscale.cluster.callback import Callback
    from amscale.cluster.ending import told_to_end
    from amscale.cluster.queue import Queue
    from amscale.cluster.trial import Trial, placement_group
    from amscale.cluster.watch import watched

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
    with watched(listener), told_to_end():
        tuner.fit()
