"""One trial as Ray Tune sees it: an actor in the trial's placement group that runs a `TrialRunner`.

The actor itself is machine 0. Every further bundle of the placement group holds a `Machine` actor that this one owns:
Ray ends them when this actor ends, and their supervisors then end what they started. When this actor or its machine
dies, Ray tells Tune, which starts the trial again elsewhere.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray import tune
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from amscale.cluster import supervisor
from amscale.cluster.base_runner import MachineLost, Report, TrialFailed
from amscale.cluster.machine import Machine
from amscale.cluster.network import LOOPBACK
from amscale.cluster.pack_runner import Member as PackMember
from amscale.cluster.pack_runner import PackRunner
from amscale.cluster.patience import Schedule
from amscale.cluster.runner import TrialRunner
from amscale.cluster.warm_start import WarmCommand, can_start_warm, name_of_sweep
from amscale.trials.attempt import Diagnosis
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement
from amscale.trials.storage_errors import StorageError

_ANSWER_SECONDS = 30.0
"""A machine that takes longer to answer is lost; earlier if Ray has noticed that it died."""
_START_SECONDS = 120.0


class RayMachines:
    """The machines of a trial in a placement group: this process, and an actor in every other bundle.

    Args:
        location: where the trial is kept.
        grace: seconds that processes have to end by themselves.
        placement: as planned.
        warm: whether the ranks of a trial of one machine's CPUs are forked from its warm server.
        packed: further trials that the same ranks train.
    """

    def __init__(
        self,
        location: TrialLocation,
        grace: float,
        placement: Placement,
        warm: bool,
        packed: Sequence[TrialLocation] = (),
    ) -> None:
        self._location = location
        self._grace = grace
        self._warm: WarmCommand | None = None
        if warm and can_start_warm(placement):
            self._warm = WarmCommand(grace, name_of_sweep(location), placement)
        self._own = Machine(location, 0, grace, self._warm, packed)
        self._others: list[Any] = []

    def reserve(self, placement: Placement) -> None:
        """Start an actor in every bundle but the first, which is this process's."""
        group = ray.util.get_current_placement_group()
        assert group is not None
        with _answers(_START_SECONDS):
            for index in range(1, placement.machines):
                strategy = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)
                actor = ray.remote(Machine).options(scheduling_strategy=strategy, **bundle_options(placement))
                self._others.append(actor.remote(self._location, index, self._grace))

    def start(self, placement: Placement, attempt: str) -> None:
        """Let every machine join the attempt and start its ranks."""
        seconds = _START_SECONDS + self._location.visible_seconds
        with _answers(seconds):
            ray.get([other.join.remote(attempt) for other in self._others], timeout=seconds)
        with _answers(_START_SECONDS):
            addresses = ray.get([other.address.remote() for other in self._others], timeout=_START_SECONDS)
            # A trial of one machine meets on loopback: nothing listens where others could reach it.
            head = self._own.address() if self._others else LOOPBACK
            port = self._own.reserve_port(head)
            self._own.launch(placement, attempt, head, port, head)
            starting = [
                other.launch.remote(placement, attempt, head, port, address)
                for other, address in zip(self._others, addresses, strict=True)
            ]
            ray.get(starting, timeout=_START_SECONDS)

    def poll(self) -> list[int | None]:
        """Return the exit status of each machine's launcher, None while it runs."""
        return [self._own.poll(), *self._ask("poll")]

    def diagnose(self) -> list[Diagnosis]:
        """Return what each machine knows of why the attempt ended."""
        return [self._own.store.diagnose(), *self._ask("diagnose")]

    def remark(self) -> str | None:
        """Return why the ranks were not forked, where they should have been."""
        if self._warm is None or not self._warm.problem:
            return None
        return f"started by `accelerate launch`, which takes longer: no warm start ({self._warm.problem})"

    def stop(self) -> None:
        """End the ranks on every machine."""
        seconds = self._end_seconds()
        with _answers(seconds):
            stopping = [other.stop.remote() for other in self._others]
            self._own.stop()
            ray.get(stopping, timeout=seconds)

    def release(self) -> None:
        """End the ranks on every machine that answers; the supervisors of the others do so by themselves."""
        stopping = [other.stop.remote() for other in self._others]
        self._own.stop()
        if stopping:
            ray.wait(stopping, num_returns=len(stopping), timeout=self._end_seconds())
        for other in self._others:
            ray.kill(other)
        self._others = []

    def _end_seconds(self) -> float:
        """Return how long a machine may take to end its ranks."""
        return supervisor.measured_grace(str(self._own.store.path), self._grace) + 10

    def _ask(self, method: str) -> list[Any]:
        with _answers(_ANSWER_SECONDS):
            asked = [getattr(other, method).remote() for other in self._others]
            return list(ray.get(asked, timeout=_ANSWER_SECONDS))


@contextmanager
def _answers(seconds: float) -> Iterator[None]:
    """Turn what Ray raises in the block into MachineLost, or into the StorageError that a machine raised."""
    try:
        yield
    except GetTimeoutError:
        raise MachineLost(f"a machine of the trial has not answered for {seconds:.0f} s") from None
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, StorageError):
            raise cause from None
        raise MachineLost(f"a machine of the trial was lost ({str(error).strip().splitlines()[0]})") from None


class TrainingTrial(tune.Trainable):  # type: ignore[misc]
    """Tune's view of one training run.

    Config `job`: `label`; `location` and `placement` of the trial, as plain data; `grace` and `stalled_after`, in
    seconds, and `warm` of the launch settings; `schedule`, the trial's, as plain data; `members`, the jobs of a pack,
    and `retries` of each.
    """

    _ending: threading.Thread | None = None
    """Ends what is left of the trial before."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take a trial, without beginning an attempt of it.

        Tune may give up an actor that it is making for a trial, and give the trial to one that has become free
        meanwhile; both set it up, and only one gets its steps.
        """
        job = config["job"]
        self._runner: TrialRunner | PackRunner = _pack_runner(job) if job.get("members") else _trial_runner(job)
        self._begun = False
        self._failure = ""
        self._failure_reported = False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Run another trial of the same size in this actor: starting one takes seconds.

        What is left of a trial of one machine that has its result ends meanwhile: its launcher takes seconds too.
        """
        ended, before = self._runner, self._ending
        if self._begun and ended.done() and ended.placement.machines == 1:
            self._ending = threading.Thread(target=ended.release)
            self._ending.start()
        elif self._begun:
            ended.release()
        if before is not None:
            before.join()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for new metrics of the trial and report them; the last report has `done`. The first begins an attempt.

        Raises:
            TrialFailed: the trial cannot go on.
        """
        # Tune tells its callbacks that a trial failed, and not why: the reason goes ahead, in a report by itself.
        if self._failure_reported:
            raise TrialFailed(self._failure)
        if not self._failure:
            try:
                if not self._begun:
                    self._begun = True
                    self._runner.start()
                reports = self._runner.step()
            except TrialFailed as failure:
                self._failure = str(failure)
            else:
                if isinstance(reports, Report):
                    return _plain(reports)
                members = {label: _plain(report) for label, report in reports.items()}
                ended = isinstance(self._runner, PackRunner) and all(m.reported for m in self._runner.members)
                return {**self._runner.latest, "members": members, **({"done": True} if ended else {})}
        self._failure_reported = True
        return self._runner.latest | {"failure": self._failure}

    def cleanup(self) -> None:
        """End the trial's processes, and what is left of the one before."""
        if self._begun:  # else another actor may have the trial, and its folder on this machine
            self._runner.release()
        if self._ending is not None:
            self._ending.join()


def _plain(report: Report) -> dict[str, Any]:
    optional = {"failed": report.failure, "note": report.note, "done": report.done or None}
    return report.latest | {name: value for name, value in optional.items() if value is not None}


def _trial_runner(job: dict[str, Any]) -> TrialRunner:
    location, placement = TrialLocation(**job["location"]), Placement(**job["placement"])
    return TrialRunner(
        location.store(),
        placement,
        RayMachines(location, job["grace"], placement, job["warm"]),
        job["stalled_after"],
        schedule=Schedule(**job["schedule"]) if job["schedule"] else None,
    )


def _pack_runner(job: dict[str, Any]) -> PackRunner:
    first, *others = locations = [TrialLocation(**member["location"]) for member in job["members"]]
    placement = Placement(**job["placement"])
    members = [
        PackMember(member["label"], location.store(), partial(_trial_runner, member))
        for member, location in zip(job["members"], locations, strict=True)
    ]
    machines = RayMachines(first, job["grace"], placement, job["warm"], others)
    return PackRunner(members, placement, machines, job["stalled_after"], job["retries"])


def bundle_options(placement: Placement) -> dict[str, float]:
    """Return what one machine of a trial reserves, as options of a Ray actor."""
    processes = placement.processes_per_machine
    return {
        "num_cpus": processes * placement.cpus_per_process,
        "num_gpus": processes * placement.gpu_fraction if placement.device == "cuda" else 0,
    }


def placement_group(placement: Placement, avoided: Sequence[str] = ()) -> tune.PlacementGroupFactory:
    """Return a placement group with one bundle per machine, each on another node.

    Args:
        placement: of the trial.
        avoided: Ray's names of nodes that the trial must not get. A node that joins later is none of them.
    """
    options = bundle_options(placement)
    bundle = {"CPU": options["num_cpus"], "GPU": options["num_gpus"]}
    bundles = [{name: amount for name, amount in bundle.items() if amount} for _ in range(placement.machines)]
    elsewhere = {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(avoided)})"}] * placement.machines}
    return tune.PlacementGroupFactory(
        bundles, strategy="STRICT_SPREAD" if placement.machines > 1 else "PACK", **(elsewhere if avoided else {})
    )
