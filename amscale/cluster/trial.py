"""One trial as Ray Tune sees it: an actor in the trial's placement group that starts, watches and ends its machines.

The actor itself is machine 0. Every further bundle of the placement group holds a `Machine` actor that this one owns:
Ray ends them when this actor ends, and their guards then end what they started.

What can go wrong, and when it is noticed:

* a rank or the launcher ends: at the next poll, a fraction of a second later;
* another machine stops answering: after _ANSWER_SECONDS, or earlier if Ray has noticed that it died;
* ranks hang, in a collective say, and record nothing: after `launch.stalled_after`;
* this actor or its machine dies: Ray tells Tune, which starts the trial again elsewhere.
"""

import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from amscale.cluster.launcher import Placement, launch_command, launch_environment
from amscale.cluster.machine import LOOPBACK, Machine
from amscale.cluster.news import News
from amscale.ledger import TrialFolder

_POLL_SECONDS = 0.2
_REPORT_SECONDS = 1.0
_ANSWER_SECONDS = 30.0
_START_SECONDS = 120.0


class TrialFailed(RuntimeError):
    """A trial's processes ended, or stopped answering, without a result."""


class Trial(tune.Trainable):  # type: ignore[misc]
    """Tune's view of one training run.

    Config `job`: `label`; `folder`, the trial's folder on storage that all machines share; `placement`, as plain data;
    `grace` and `stalled_after`, in seconds, of the launch settings.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the trial's processes on each of its machines."""
        job = config["job"]
        self._folder = TrialFolder(Path(job["folder"]))
        self._placement = Placement(**job["placement"])
        self._grace: float = job["grace"]
        self._stalled_after: float = job["stalled_after"]
        self._machine = Machine(self._grace)
        self._others: list[Any] = []
        self._news = News(self._folder.metrics)
        if self._folder.done():
            return
        try:
            self._reserve()
            self._start()
        except RayError as error:
            raise self._failed(f"a machine of the trial was lost while it started: {_first_line(error)}") from None

    def step(self) -> dict[str, Any]:
        """Wait for news of the trial and report it; the last report is done.

        Raises:
            TrialFailed: the trial cannot go on, with the reason and the last lines of the log.
        """
        deadline = time.monotonic() + _REPORT_SECONDS
        while time.monotonic() < deadline:
            if self._folder.done():
                return self._news.latest | {"done": True}
            statuses = self._statuses()
            if any(statuses) or all(status == 0 for status in statuses):
                if self._folder.done():
                    continue
                if self._folder.preempted.exists():
                    self._continue()
                    continue
                raise self._failed(self._why(statuses))
            time.sleep(_POLL_SECONDS)
        silent = self._news.read()
        if silent > self._stalled_after:
            limit = f"launch.stalled_after={self._stalled_after:g}"
            raise self._failed(f"no record for {silent:.0f} s ({limit})\n{self._folder.reason()}")
        return dict(self._news.latest)

    def cleanup(self) -> None:
        """End the trial's processes on every machine that answers; the guards of the others do so by themselves."""
        stopping = [other.stop.remote() for other in self._others]
        self._machine.stop()
        ray.wait(stopping, num_returns=len(stopping), timeout=self._grace + 10) if stopping else None
        for other in self._others:
            ray.kill(other)
        self._others = []

    def _reserve(self) -> None:
        """An actor in every bundle but the first, which is this actor's own."""
        group = ray.util.get_current_placement_group()
        assert group is not None
        for index in range(1, self._placement.machines):
            strategy = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)
            actor = ray.remote(Machine).options(scheduling_strategy=strategy, **bundle_options(self._placement))
            self._others.append(actor.remote(self._grace))

    def _start(self) -> None:
        self._folder.preempted.unlink(missing_ok=True)
        addresses = ray.get([other.address.remote() for other in self._others], timeout=_START_SECONDS)
        # Alone, a trial meets itself on loopback: nothing listens where others could reach it.
        own = self._machine.address() if self._others else LOOPBACK
        port = self._machine.reserve_port(own)
        environment = launch_environment(self._placement)
        starting = []
        for rank, address in enumerate([own, *addresses]):
            command = launch_command(self._placement, [str(self._folder.spec)], rank=rank, address=own, port=port)
            log = str(self._folder.log_of(rank))
            if rank == 0:
                self._machine.start(command, environment, address, log)
            else:
                starting.append(self._others[rank - 1].start.remote(command, environment, address, log))
        ray.get(starting, timeout=_START_SECONDS)
        self._news.restart()

    def _continue(self) -> None:
        """Ranks were told to end, wrote a checkpoint and did: start them again where they were."""
        self._machine.stop()
        ray.get([other.stop.remote() for other in self._others], timeout=self._grace + 10)
        self._start()

    def _statuses(self) -> list[int | None]:
        """Exit status of each machine's launcher, None while it runs.

        Raises:
            TrialFailed: a machine does not answer.
        """
        try:
            asked = [other.poll.remote() for other in self._others]
            return [self._machine.poll(), *ray.get(asked, timeout=_ANSWER_SECONDS)]
        except GetTimeoutError:
            raise self._failed(f"a machine of the trial has not answered for {_ANSWER_SECONDS:.0f} s") from None
        except RayError as error:
            raise self._failed(f"a machine of the trial was lost: {_first_line(error)}") from None

    def _failed(self, reason: str) -> TrialFailed:
        self._folder.add_failure(reason)
        return TrialFailed(reason)

    def _why(self, statuses: list[int | None]) -> str:
        ended = [f"machine {rank} exit status {status}" for rank, status in enumerate(statuses) if status is not None]
        first = next((rank for rank, status in enumerate(statuses) if status), 0)
        return f"{', '.join(ended)}\n{self._folder.reason(first)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def bundle_options(placement: Placement) -> dict[str, float]:
    """What one machine of a trial reserves, as options of a Ray actor."""
    processes = placement.processes_per_machine
    return {
        "num_cpus": processes * placement.cpus_per_process,
        "num_gpus": processes if placement.device == "cuda" else 0,
    }


def placement_group(placement: Placement) -> tune.PlacementGroupFactory:
    """One bundle per machine, each on a machine of its own."""
    options = bundle_options(placement)
    bundle = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}
    bundles = [{name: amount for name, amount in bundle.items() if amount} for _ in range(placement.machines)]
    return tune.PlacementGroupFactory(bundles, strategy="STRICT_SPREAD" if placement.machines > 1 else "PACK")
