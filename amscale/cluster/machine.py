"""One machine of one trial: the command of its share, its address and port, and the processes it runs."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol

from amscale.cluster import network, supervisor
from amscale.cluster.environment import rank_environment
from amscale.cluster.network import Port
from amscale.files import packaged
from amscale.trials.attempt import ATTEMPT_MARK, ATTEMPT_VARIABLE, Diagnosis
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement
from amscale.trials.storage_errors import storage_errors
from amscale.trials.trial_store import TrialStore


def launch_command(
    placement: Placement, arguments: list[str], *, rank: int, address: str, port: int, module: str = "amscale.train"
) -> list[str]:
    """Return the argument vector of `accelerate launch` for one machine.

    Args:
        placement: machines, processes and stage of the whole trial.
        arguments: of the module.
        rank: this machine's rank, 0 for the one at `address`.
        address: rendezvous address, machine 0's.
        port: rendezvous port on machine 0.
        module: what every rank runs.
    """
    return [
        sys.executable,
        "-m",
        "amscale.cluster.without_trackers",
        "accelerate.commands.launch",
        # Without a file Accelerate reads the answers that this user once gave to `accelerate config`.
        "--config_file",
        str(packaged("launch") / "accelerate.yaml"),
        "--use_deepspeed",
        "--deepspeed_config_file",
        str(packaged("launch") / f"zero{placement.zero_stage}.json"),
        # `standard` starts ranks by torch's own launcher; the default would be pdsh over ssh.
        "--deepspeed_multinode_launcher",
        "standard",
        "--num_machines",
        str(placement.machines),
        "--num_processes",
        str(placement.world_size),
        "--machine_rank",
        str(rank),
        "--main_process_ip",
        address,
        "--main_process_port",
        str(port),
        *network.rendezvous_options(rank, address, port),
        # Ranks write to the trial's log; torch's launcher would leave an empty folder in /tmp for every attempt.
        "--log_dir",
        os.devnull,
        "--mixed_precision",
        "bf16" if placement.precision == "bf16" else "no",
        "--dynamo_backend",
        "no",
        "--module",
        module,
        *arguments,
    ]


LOG_VARIABLES = {"PYTHONIOENCODING": "utf-8"}
"""Environment variables of whatever writes a trial's log, which is read as UTF-8."""


def begin_log(log: Path, command: list[str]) -> None:
    """Add the line to a trial's log by which an attempt begins.

    Raises:
        StorageError: the log cannot be written.
    """
    with storage_errors(log.parent), log.open("a", encoding="utf-8") as file:
        file.write(f"{ATTEMPT_MARK}{datetime.now(UTC).isoformat(timespec='seconds')}: {shlex.join(command)}\n")


class SupervisedCommand:
    """A command that ends, with everything below it, when the process that started it does.

    Args:
        grace: seconds that processes have to end by themselves, at least (`supervisor.measured_grace`).
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._folder = ""
        self._supervisor: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        """Start the command with its output appended to `log`; end an earlier one first.

        Args:
            command: argument vector.
            environment: all variables of the command.
            log: path on this machine.
        """
        self.stop()
        self._folder = str(log.parent)
        begin_log(log, command)
        self._supervisor = subprocess.Popen(
            [sys.executable, "-S", "-E", supervisor.__file__, str(log), str(self._grace), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**environment, **LOG_VARIABLES},
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """Return the exit status of the command, or None while it runs."""
        return self._supervisor.poll() if self._supervisor else None

    def stop(self) -> None:
        """End the command and everything below it. Returns when nothing is left."""
        if self._supervisor is None:
            return
        if self._supervisor.stdin:
            self._supervisor.stdin.close()
        try:
            self._supervisor.wait(timeout=supervisor.measured_grace(self._folder, self._grace) + 10)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        self._supervisor = None


class Command(Protocol):
    """Starts a command of `accelerate launch` and owns what it becomes."""

    def start(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        """Start the command with its output appended to `log`; end an earlier one first."""

    def poll(self) -> int | None:
        """Return the exit status of the command, or None while it runs."""

    def stop(self) -> None:
        """End the command and everything below it. Returns when nothing is left."""


class Machine:
    """Starts, watches and ends the processes of one trial on this machine.

    Args:
        location: where the trial is kept.
        index: of the machine in the trial.
        grace: seconds that processes have to end by themselves, at least (`supervisor.measured_grace`).
        command: starts and ends the ranks; `SupervisedCommand` if None.
        packed: further trials that the same ranks train.
    """

    def __init__(
        self,
        location: TrialLocation,
        index: int,
        grace: float,
        command: Command | None = None,
        packed: Sequence[TrialLocation] = (),
    ) -> None:
        self._location = location
        self._index = index
        self._command = command or SupervisedCommand(grace)
        self._port: Port | None = None
        self._packed = [other.store(index) for other in packed]

    @cached_property
    def store(self) -> TrialStore:
        """The trial's store on this machine."""
        return self._location.store(self._index)

    def address(self) -> str:
        """Return the address of this machine in the Ray cluster."""
        import ray

        return str(ray.util.get_node_ip_address())

    def reserve_port(self, address: str) -> int:
        """Return a port on `address` for the rendezvous, kept from other trials until `stop`."""
        if self._port is None:
            self._port = Port(address)
        return self._port.number

    def join(self, attempt: str) -> None:
        """Take part in an attempt of the trial, as a machine other than the first.

        Raises:
            StorageError: storage is full, read-only, not shared, or out of reach.
        """
        self.store.join_attempt(attempt)

    def launch(self, placement: Placement, attempt: str, head: str, port: int, address: str) -> None:
        """Start this machine's ranks.

        Args:
            placement: of the whole trial.
            attempt: its name, which the ranks get.
            head: address of machine 0, for the rendezvous.
            port: of the rendezvous.
            address: of this machine, whose interface the collectives use.

        Raises:
            StorageError: the log cannot be written.
        """
        environment = rank_environment(placement) | {ATTEMPT_VARIABLE: attempt}
        environment |= network.interface_variables(address, os.environ)
        specs = [str(store.spec) for store in (self.store, *self._packed)]
        command = launch_command(placement, specs, rank=self._index, address=head, port=port)
        for store in self._packed:
            begin_log(store.log_of(self._index), command)
            with storage_errors(store.path), store.log.open("a", encoding="utf-8") as log:
                log.write(f"trained together with others: what its process says is in {self.store.log}\n")
        self._command.start(command, environment, self.store.log_of(self._index))

    def poll(self) -> int | None:
        """Return the exit status of the launcher, or None while it runs."""
        return self._command.poll()

    def diagnose(self) -> Diagnosis:
        """Upload this machine's records where they are kept as objects, and return what went wrong here."""
        self.store.push_last_records()
        return self.store.diagnose()

    def stop(self) -> None:
        """End the processes and give the port back. Returns when nothing is left."""
        self._command.stop()
        if self._port is not None:
            self._port.release()
            self._port = None
        self.store.clear()
