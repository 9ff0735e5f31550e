"""One machine of one trial: its address, its port, and the processes it runs.

The same object works in the trial's own actor (machine 0) and as a Ray actor on every further machine.
"""

import os
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from amscale.cluster import supervisor
from amscale.cluster.network import Port
from amscale.trials.folder import START_MARK
from amscale.trials.place import TrialPlace
from amscale.trials.site import Site
from amscale.trials.storage_errors import storage_errors


def interface_of(address: str) -> str:
    """Name of the network interface that carries an address.

    gloo and NCCL otherwise choose by host name, and hang where that resolves to loopback.

    Raises:
        RuntimeError: no interface of this machine has the address.
    """
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.family == socket.AF_INET and entry.address == address for entry in addresses):
            return name
    raise RuntimeError(f"no network interface of {socket.gethostname()} has the address {address}")


class Machine:
    """Starts, watches and ends the processes of one trial on this machine."""

    def __init__(self, grace: float) -> None:
        """
        Args:
            grace: seconds that processes have to end by themselves.
        """
        self._grace = grace
        self._guard: subprocess.Popen[bytes] | None = None
        self._port: Port | None = None
        self._site: Site | None = None

    def join(self, place: TrialPlace, machine: int, start: str) -> Path:
        """Take part, as a machine other than the first, in a start of a trial; returns the spec for the ranks.

        Raises:
            StorageError: storage is full, read-only, not shared, or out of reach.
        """
        self._site = Site(place, machine)
        return self._site.join(start)

    def account(self) -> dict[str, Any]:
        """What went wrong here; see `Site.account`."""
        assert self._site is not None
        self._site.push()
        return self._site.account()

    def address(self) -> str:
        """The address of this machine in the Ray cluster."""
        import ray

        return str(ray.util.get_node_ip_address())

    def reserve_port(self, address: str) -> int:
        """A port on `address` for the rendezvous, kept from other trials until the next `stop`."""
        if self._port is None:
            self._port = Port(address)
        return self._port.number

    def start(self, command: list[str], environment: dict[str, str], address: str, log: str) -> None:
        """Start a command, guarded, with its output appended to `log`.

        Args:
            command: argument vector.
            environment: variables on top of this process's own.
            address: this machine's address, whose interface the collectives shall use.
            log: path on this machine.
        """
        self._end()
        interface = interface_of(address)
        names = ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
        with storage_errors(Path(log).parent), Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{START_MARK}{datetime.now(UTC).isoformat(timespec='seconds')}: {shlex.join(command)}\n")
        self._guard = subprocess.Popen(
            [sys.executable, "-S", "-E", supervisor.__file__, log, str(self._grace), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(names, interface), **environment},
            start_new_session=True,
        )

    def poll(self) -> int | None:
        """Exit status of the command, or None while it runs."""
        return self._guard.poll() if self._guard else None

    def stop(self) -> None:
        """End the command and all below it, and give the port back. Returns when nothing is left."""
        self._end()
        if self._port is not None:
            self._port.release()
            self._port = None
        if self._site is not None:
            self._site.clear()

    def _end(self) -> None:
        if self._guard is None:
            return
        if self._guard.stdin:
            self._guard.stdin.close()
        try:
            self._guard.wait(timeout=self._grace + 10)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        self._guard = None
