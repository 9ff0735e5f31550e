"""One machine's share of one trial, without Ray: started by `slurm/trial.sbatch` or `launch/trial.sh` on every host.

    python -m amscale.cluster.run_machine RANK HEAD:PORT ATTEMPT SPEC PEER …

RANK is this machine's, HEAD:PORT the rendezvous on machine 0, ATTEMPT a name that all machines share and no earlier run
had. Machine 0 runs the trial as under Ray: it begins attempts, which are named ATTEMPT.0, ATTEMPT.1 and so on, and
decides what follows when one ends. The other machines follow the attempt's name in the trial's folder.

A machine ends everything it started when it is asked to (SIGTERM, or its standard input ends, as it does when the
connection breaks over which it was started). Ranks then write a checkpoint.

Exit status: 0 with a result; 75 when the ranks were asked to end and the same command continues; otherwise 1 or the
launcher's.
"""

import itertools
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from amscale.cluster import supervisor
from amscale.cluster.base_runner import FIRST_RECORD_SECONDS, TrialFailed
from amscale.cluster.machine import Machine
from amscale.cluster.network import LOOPBACK, own_address, split_port
from amscale.cluster.patience import Schedule
from amscale.cluster.runner import TrialRunner
from amscale.config import Experiment, parse
from amscale.errors import EXIT_PREEMPTED, InputError
from amscale.trials.attempt import Diagnosis
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement
from amscale.trials.trial_store import TrialStore
from amscale.trials.visibility import not_shared

_POLL_SECONDS = 0.5
_DECISION_SECONDS = 60.0
"""How long a machine that runs no ranks waits for machine 0 to begin an attempt or to give up."""


class EndRequest:
    """Remembers that this process was asked to end, by a signal or by the end of its standard input."""

    def __init__(self) -> None:
        self._requested = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        self._requested = True

    def __call__(self) -> bool:
        """Return whether an end was requested."""
        while not self._requested and select.select([0], [], [], 0)[0]:
            self._requested = not os.read(0, 4096)
        return self._requested


class HostMachines:
    """The machines of a trial without Ray: this host is machine 0, and the others follow through the shared folder.

    Args:
        location: where the trial is kept.
        grace: seconds that processes have to end by themselves.
        head: address and port of the rendezvous.
    """

    def __init__(self, location: TrialLocation, grace: float, head: tuple[str, int]) -> None:
        self._location = location
        self._own = Machine(location, 0, grace)
        self._head = head
        self._machines = 1

    def reserve(self, placement: Placement) -> None:
        """Note how many machines there are: the script has started a process on each of them."""
        self._machines = placement.machines

    def start(self, placement: Placement, attempt: str) -> None:
        """Start the ranks of this host; the others see that the attempt has begun."""
        host, port = self._head
        self._own.launch(placement, attempt, host, port, host)

    def poll(self) -> list[int | None]:
        """Return the exit status of this host's launcher, and 1 for the others once a rank has run out of memory.

        Of anything else that ends ranks on another host, the ranks here notice by the network, or the script ends all.
        """
        others = 1 if self._own.store.out_of_memory_marker.is_file() else None
        return [self._own.poll(), *[others] * (self._machines - 1)]

    def diagnose(self) -> list[Diagnosis]:
        """Return the diagnosis of every machine from its log, which is in the shared folder."""
        return [self._location.store(machine).diagnose() for machine in range(self._machines)]

    def remark(self) -> None:
        """Return nothing: ranks are started by `accelerate launch`."""

    def stop(self) -> None:
        """End the ranks of this host; the others end theirs when the next attempt begins."""
        self._own.stop()

    def release(self) -> None:
        """End the ranks of this host for good."""
        self._own.stop()


def main(rank: int, head: str, attempt: str, spec: str, peers: Sequence[str]) -> int:
    """Run this machine's share to its end; return the exit status."""
    requested = EndRequest()
    path = Path(spec).absolute().parent
    try:
        cell = parse(TrialStore(path).read_spec().settings)
    except InputError as error:
        print(f"run_machine: {error}", file=sys.stderr)
        return 2
    launch = cell.launch
    location = TrialLocation(str(path.parents[2]), None, path.parents[1].name, path.name, launch.visible_after)
    host, port = split_port(head)
    address = host if rank == 0 else own_address(peers)
    if len(peers) == 1:
        host = address = LOOPBACK
    if rank == 0:
        machines = HostMachines(location, launch.least_grace, (host, port))
        return _lead(location.store(), machines, attempt, cell, requested)
    machine = Machine(location, rank, launch.least_grace)
    patience = _DECISION_SECONDS + launch.least_grace + launch.visible_after
    return _follow(machine, rank, (host, port, address), attempt, requested, patience)


def _lead(store: TrialStore, machines: HostMachines, attempt: str, cell: Experiment, requested: EndRequest) -> int:
    """Run the trial as its machine 0."""
    names = (f"{attempt}.{number}" for number in itertools.count())
    placement = store.read_spec().placement
    runner = TrialRunner(
        store,
        placement,
        machines,
        cell.launch.stalled_after,
        names.__next__,
        requested,
        resumes=False,
        schedule=Schedule.of(cell, cell.train.steps),
    )
    failure = None
    try:
        runner.start()
        while not requested():
            report = runner.step()
            if report.note:
                print(report.note, file=sys.stderr, flush=True)
            if report.done:
                failure = report.failure
                break
    except TrialFailed as failed:
        failure = str(failed)
    finally:
        runner.release()
        store.end_attempt(_ended(attempt))
    if store.done():
        return 0
    if failure is None and store.preempted.exists():
        return EXIT_PREEMPTED
    print(f"machine 0: {failure or 'asked to end'}", file=sys.stderr)
    return 1


def _follow(
    machine: Machine,
    rank: int,
    network: tuple[str, int, str],
    attempt: str,
    requested: EndRequest,
    decision_seconds: float,
) -> int:
    """Take part in every attempt that machine 0 begins, until there is a result or no further attempt.

    Args:
        decision_seconds: that machine 0 may take to begin another attempt, its ranks' grace included, and storage to
            show it. The first attempt
            may take as long as the first record: machine 0 may still be importing.
    """
    store, (head, port, address) = machine.store, network
    status, waits_since = None, time.monotonic()
    try:
        while not requested() and not store.done():
            current = store.current_attempt() or ""
            if current != store.attempt and current.startswith(f"{attempt}."):
                machine.stop()
                machine.join(current)
                placement = store.read_spec().placement
                machine.launch(placement, current, head, port, address)
            elif store.attempt and current != store.attempt:  # machine 0 has ended, or another run took its place
                break
            status = machine.poll()
            if store.attempt and status is None:
                waits_since = time.monotonic()
            limit = FIRST_RECORD_SECONDS + store.visible_seconds
            if store.attempt:
                limit = max(decision_seconds, _DECISION_SECONDS + supervisor.measured_grace(str(store.path), 0.0))
            if (status == 0 and not store.preempted.exists()) or time.monotonic() > waits_since + limit:
                break
            time.sleep(_POLL_SECONDS)
        if not store.attempt and not requested() and not store.done():
            raise not_shared(store.path, "machine 0", FIRST_RECORD_SECONDS + store.visible_seconds)
    except InputError as error:
        print(f"machine {rank}: {error}", file=sys.stderr)
        return 1
    finally:
        machine.stop()
    if store.done():
        return 0
    if store.preempted.exists():
        return EXIT_PREEMPTED
    if status == 0:
        return 0
    ending = "asked to end" if status is None else f"exit status {status}"
    print(f"machine {rank}: {ending}\n{store.reason(rank)}", file=sys.stderr)
    return status or 1


def _ended(attempt: str) -> str:
    """Return what the trial's folder holds instead of an attempt's name once machine 0 has ended."""
    return f"{attempt} has ended"


if __name__ == "__main__":
    _, _rank, _head, _attempt, _spec, *_peers = sys.argv
    sys.exit(main(int(_rank), _head, _attempt, _spec, _peers))
