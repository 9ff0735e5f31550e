"""One trial as Ray Tune sees it: an actor in the trial's placement group that starts, watches and ends its machines.

The actor itself is machine 0. Every further bundle of the placement group holds a `Machine` actor that this one owns:
Ray ends them when this actor ends, and their guards then end what they started.

What can go wrong, and when it is noticed:

* a rank or the launcher ends: at the next poll, a fraction of a second later;
* another machine stops answering: after _ANSWER_SECONDS, or earlier if Ray has noticed that it died;
* ranks hang, in a collective say, and record nothing: after `launch.stalled_after`, and _FIRST_RECORD_SECONDS more
  before the first record of a start;
* this actor or its machine dies: Ray tells Tune, which starts the trial again elsewhere;
* a rank runs out of memory: as when it ends; the trial goes on with half the micro-batch;
* storage is full, read-only or not shared: as when a rank ends; the trial is not started again;
* this machine was given up by Ray but still runs: at the next poll, when the trial has been started elsewhere.
"""

import time
from contextlib import suppress
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from amscale.cluster import out_of_memory
from amscale.cluster.launcher import ATTEMPT_VARIABLE, Placement, launch_command, launch_environment
from amscale.cluster.machine import Machine
from amscale.cluster.network import LOOPBACK
from amscale.trials.folder import TrialFolder, replace_placement
from amscale.trials.metrics import MetricsTail
from amscale.trials.place import TrialPlace
from amscale.trials.site import Site
from amscale.trials.storage_errors import OutOfReach, StorageError, storage_errors

_POLL_SECONDS = 0.2
_REPORT_SECONDS = 1.0
_ANSWER_SECONDS = 30.0
_START_SECONDS = 120.0
_FIRST_RECORD_SECONDS = 300.0
"""How much longer than between records ranks may be silent before the first one: imports, and extensions compiled."""


class TrialFailed(RuntimeError):
    """A trial's processes ended, or stopped answering, without a result."""


class Trial(tune.Trainable):  # type: ignore[misc]
    """Tune's view of one training run.

    Config `job`: `label`; `place`, where the trial is kept, and `placement`, as plain data; `grace` and
    `stalled_after`, in seconds, of the launch settings.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the trial's processes on each of its machines."""
        job = config["job"]
        self._place = TrialPlace(**job["place"])
        self._placement = Placement(**job["placement"])
        self._grace: float = job["grace"]
        self._stalled_after: float = job["stalled_after"]
        self._machine = Machine(self._grace)
        self._others: list[Any] = []
        self._start_name = ""
        self._refused = ""
        self._failure = ""
        self._told = False
        self._site = Site(self._place, 0)
        self._folder = self._site.folder
        self._news = MetricsTail(self._folder.metrics)
        try:
            self._begin()
        except TrialFailed as failure:
            self._failure = str(failure)

    def _begin(self) -> None:
        try:
            self._site.open()
            self._news = MetricsTail(self._folder.metrics)
            self._placement = out_of_memory.fitting(self._folder, self._placement)
            if not self._folder.done():
                self._reserve()
        except StorageError as error:
            self._refuse(error)
            return
        except RayError as error:
            raise self._failed(f"a machine of the trial was lost while it started: {_first_line(error)}") from None
        if not self._folder.done():
            self._start()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Run another trial of the same places in this actor: its start alone would take seconds."""
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for news of the trial and report it; the last report is done.

        Raises:
            TrialFailed: the trial cannot go on, with the reason and the last lines of the log.
        """
        # Tune tells its callbacks that a trial failed, and not why: so the reason goes ahead, in a report of its own.
        if self._told:
            raise TrialFailed(self._failure)
        if not self._failure:
            try:
                return self._watch()
            except TrialFailed as failure:
                self._failure = str(failure)
        self._told = True
        return self._news.latest | {"failure": self._failure}

    def _watch(self) -> dict[str, Any]:
        if self._refused:
            return self._last(self._refused)
        deadline = time.monotonic() + _REPORT_SECONDS
        while time.monotonic() < deadline:
            if self._folder.done():
                return self._news.latest | {"done": True}
            statuses = self._statuses()
            if self._folder.newest_start() != self._start_name:
                raise TrialFailed("this start of the trial ends: a newer one has taken its place")
            if any(statuses) or all(status == 0 for status in statuses):
                if self._folder.done():
                    continue
                if self._folder.preempted.exists():
                    self._continue()
                    return dict(self._news.latest)
                return self._ended(statuses)
            time.sleep(_POLL_SECONDS)
        silent = self._news.read()
        if silent > self._stalled_after + (0 if self._news.heard else _FIRST_RECORD_SECONDS):
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
        self._site.clear()

    def _reserve(self) -> None:
        """An actor in every bundle but the first, which is this actor's own."""
        group = ray.util.get_current_placement_group()
        assert group is not None
        for index in range(1, self._placement.machines):
            strategy = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)
            actor = ray.remote(Machine).options(scheduling_strategy=strategy, **bundle_options(self._placement))
            self._others.append(actor.remote(self._grace))

    def _start(self) -> None:
        """Start the trial's processes on its machines, or take note that storage refuses.

        Raises:
            TrialFailed: a machine was lost.
        """
        try:
            with storage_errors(self._folder.path):
                self._start_all()
        except (StorageError, RayError) as error:
            cause = getattr(error, "cause", error)  # what another machine raised
            if not isinstance(cause, StorageError):
                words = f"a machine of the trial was lost while it started: {_first_line(error)}"
                raise self._failed(words) from None
            self._refuse(cause)

    def _start_all(self) -> None:
        self._start_name = self._folder.new_start()
        self._folder.preempted.unlink(missing_ok=True)
        self._folder.out_of_memory_marker.unlink(missing_ok=True)
        replace_placement(self._folder, self._placement)
        self._site.begin(self._start_name)
        joining = [o.join.remote(self._place, i, self._start_name) for i, o in enumerate(self._others, start=1)]
        specs = [self._folder.spec, *ray.get(joining, timeout=_START_SECONDS)]
        addresses = ray.get([other.address.remote() for other in self._others], timeout=_START_SECONDS)
        # Alone, a trial meets itself on loopback: nothing listens where others could reach it.
        own = self._machine.address() if self._others else LOOPBACK
        port = self._machine.reserve_port(own)
        environment = launch_environment(self._placement) | {ATTEMPT_VARIABLE: self._start_name}
        starting = []
        for rank, address in enumerate([own, *addresses]):
            command = launch_command(self._placement, [str(specs[rank])], rank=rank, address=own, port=port)
            log = str(TrialFolder(specs[rank].parent).log_of(rank))
            if rank == 0:
                self._machine.start(command, environment, address, log)
            else:
                starting.append(self._others[rank - 1].start.remote(command, environment, address, log))
        ray.get(starting, timeout=_START_SECONDS)
        self._news.restart()

    def _continue(self) -> None:
        """Start the trial's processes again on the same machines, from the newest checkpoint."""
        try:
            self._machine.stop()
            ray.get([other.stop.remote() for other in self._others], timeout=self._grace + 10)
        except RayError as error:
            raise self._failed(f"a machine of the trial was lost: {_first_line(error)}") from None
        self._start()

    def _ended(self, statuses: list[int | None]) -> dict[str, Any]:
        """Ranks ended without a result: the report of what follows from it.

        Raises:
            TrialFailed: another start may do better.
        """
        accounts = self._asked([other.account.remote() for other in self._others])
        accounts = [self._site.account(), *accounts]
        storage = next((account["storage"] for account in accounts if account["storage"]), None)
        if storage is not None:
            return self._last(storage)
        memory_words = next((account["out_of_memory"] for account in accounts if account["out_of_memory"]), None)
        if memory_words is not None:
            self._folder.out_of_memory_marker.write_text(memory_words, encoding="utf-8")
            return self._shrink()
        ended = [f"machine {rank} exit status {status}" for rank, status in enumerate(statuses) if status is not None]
        first = next((rank for rank, status in enumerate(statuses) if status), 0)
        raise self._failed(f"{', '.join(ended)}\n{accounts[first]['reason']}")

    def _refuse(self, error: StorageError) -> None:
        """Storage does not serve: raise if another start may do better, otherwise let the next step say so."""
        if isinstance(error, OutOfReach):
            raise self._failed(str(error)) from None
        self._refused = str(error)

    def _last(self, words: str) -> dict[str, Any]:
        """The report of a failure that another start would only repeat."""
        self._record(words)
        return self._news.latest | {"done": True, "failed": words}

    def _shrink(self) -> dict[str, Any]:
        """Go on with a smaller micro-batch; the report of it, which is the trial's last where there is none."""
        before, smaller = self._placement.micro_batch, out_of_memory.halved(self._placement)
        reason = out_of_memory.record(self._folder, self._placement)
        if smaller is None:
            words = f"out of memory with a micro-batch of 1: {out_of_memory.ADVICE}\n{reason}"
            return self._last(words)
        self._placement = smaller
        self._continue()
        return self._news.latest | {
            "note": f"out of memory with a micro-batch of {before}: goes on with {smaller.micro_batch} and "
            f"{smaller.accumulation} forward passes a step, the same global batch ({reason})"
        }

    def _statuses(self) -> list[int | None]:
        """Exit status of each machine's launcher, None while it runs.

        Raises:
            TrialFailed: a machine does not answer.
        """
        return [self._machine.poll(), *self._asked([other.poll.remote() for other in self._others])]

    def _asked(self, answers: list[Any]) -> list[Any]:
        """Answers of the other machines.

        Raises:
            TrialFailed: a machine does not answer.
        """
        try:
            return list(ray.get(answers, timeout=_ANSWER_SECONDS))
        except GetTimeoutError:
            raise self._failed(f"a machine of the trial has not answered for {_ANSWER_SECONDS:.0f} s") from None
        except RayError as error:
            raise self._failed(f"a machine of the trial was lost: {_first_line(error)}") from None

    def _failed(self, reason: str) -> TrialFailed:
        self._record(reason)
        return TrialFailed(reason)

    def _record(self, reason: str) -> None:
        with suppress(OSError):  # where the disk is full, the driver hears the reason all the same
            self._folder.add_failure(reason)
        self._site.push()


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
