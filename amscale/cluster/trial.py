"""One trial as Ray Tune sees it: an actor in the trial's placement group that starts, watches and ends its machines.

The actor itself is machine 0. Every further bundle of the placement group holds a `Machine` actor that this one owns:
Ray ends them when this actor ends, and their guards then end what they started.
"""

import json
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from amscale.cluster.launcher import Placement, launch_command, launch_environment
from amscale.cluster.machine import LOOPBACK, Machine
from amscale.ledger import TrialFolder

_POLL_SECONDS = 0.2
_REPORT_SECONDS = 1.0


class TrialFailed(RuntimeError):
    """A trial's processes ended without a result."""


class Trial(tune.Trainable):  # type: ignore[misc]
    """Tune's view of one training run.

    Config `job`: `label`; `folder`, the trial's folder on storage that all machines share; `placement`, as plain data.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Start the trial's processes on each of its machines."""
        job = config["job"]
        self._folder = TrialFolder(Path(job["folder"]))
        placement = Placement(**job["placement"])
        self._machine = Machine()
        self._others: list[Any] = []
        self._read = self._folder.metrics.stat().st_size if self._folder.metrics.is_file() else 0
        self._last: dict[str, Any] = {}
        if self._folder.done():
            return
        group = ray.util.get_current_placement_group()
        assert group is not None
        for index in range(1, placement.machines):
            strategy = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)
            actor = ray.remote(Machine).options(scheduling_strategy=strategy, **bundle_options(placement))
            self._others.append(actor.remote())
        addresses = ray.get([other.address.remote() for other in self._others])
        # Alone, a trial meets itself on loopback: nothing listens where others could reach it.
        own = self._machine.address() if self._others else LOOPBACK
        port = self._machine.reserve_port(own)
        environment = launch_environment(placement)
        commands = [
            launch_command(placement, [str(self._folder.spec)], rank=rank, address=own, port=port)
            for rank in range(placement.machines)
        ]
        log = str(self._folder.log)
        self._machine.start(commands[0], environment, own, log)
        ray.get(
            [
                other.start.remote(command, environment, address, f"{log}.machine{rank}")
                for rank, (other, command, address) in enumerate(
                    zip(self._others, commands[1:], addresses, strict=True), start=1
                )
            ]
        )

    def step(self) -> dict[str, Any]:
        """Wait for news of the trial and report it; the last report is done.

        Raises:
            TrialFailed: a machine's processes ended without a result, with the last lines of the log.
        """
        deadline = time.monotonic() + _REPORT_SECONDS
        while time.monotonic() < deadline:
            if self._folder.done():
                return self._last | {"done": True}
            statuses = [self._machine.poll(), *ray.get([other.poll.remote() for other in self._others])]
            if any(status is not None for status in statuses) and not self._ending(statuses):
                reason = self._why(statuses)
                self._folder.add_failure(reason)
                raise TrialFailed(reason)
            time.sleep(_POLL_SECONDS)
        self._last |= self._news()
        return dict(self._last)

    def cleanup(self) -> None:
        """End the trial's processes on every machine."""
        self._machine.stop()
        for other in self._others:
            ray.get(other.stop.remote())
            ray.kill(other)

    def _ending(self, statuses: list[int | None]) -> bool:
        """Whether the processes end well: a machine may be done a moment before the result is visible."""
        if any(status for status in statuses):
            return False
        return self._folder.done() or any(status is None for status in statuses)

    def _why(self, statuses: list[int | None]) -> str:
        failed = [f"machine {rank} exit status {status}" for rank, status in enumerate(statuses) if status is not None]
        return f"{', '.join(failed)}\n{self._folder.reason()}"

    def _news(self) -> dict[str, Any]:
        """The newest numbers from metrics.jsonl."""
        news: dict[str, Any] = {}
        if not self._folder.metrics.is_file():
            return {"state": "starting"}
        size = self._folder.metrics.stat().st_size
        if size < self._read:
            self._read = 0
        with self._folder.metrics.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                record = json.loads(line)
                if record["kind"] == "train":
                    news |= {"step": record["step"], "loss": record["loss"], "tokens": record["tokens"]}
                    news |= {"seconds": record["time"], "state": "training"}
                elif record["kind"] == "validation":
                    news["validation_loss"] = record["loss"]
        return news


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
