"""Ports for rendezvous, one owner each.

A port that was free a moment ago may be another trial's by the time it is used. So trials of amscale agree among
themselves by a lock file per port, and take ports below the range that the system hands out by itself.

A rendezvous for torch's launcher whose store listens on one address, and not on every interface as torch's own does.

torch finds it by the entry point `amscale` of the group `torchrun.handlers`. It is asked for by
`--rdzv_backend amscale --rdzv_conf rank=R,address=A,port=P`: the machine's rank, and where machine 0 listens.

The address of this machine among the machines of an allocation or of a host list.

    python -m amscale.cluster.network PEER …        prints ADDRESS:PORT, a free port on the address

A host name may resolve to loopback on its own host, and a machine may have several networks. What counts is the address
under which the other machines of the job reach this one.
"""

import fcntl
import os
import random
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

_FIRST, _LAST = 20000, 32000


class Port:
    """A TCP port that no other trial on this host takes until `release`, or until this process ends.

    Args:
        address: the address that will listen on it.
    """

    def __init__(self, address: str) -> None:
        folder = Path(tempfile.gettempdir()) / f"amscale-ports-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for number in random.Random().sample(range(_FIRST, _LAST), 200):
            lock = os.open(folder / str(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as probe:
                    probe.bind((address, number))
            except OSError:
                os.close(lock)
                continue
            self.number = number
            self._lock = lock
            return
        raise RuntimeError(f"no free port between {_FIRST} and {_LAST} on {address}")

    def release(self) -> None:
        """Let others take the port."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

BACKEND = "amscale"


def options(rank: int, address: str, port: int) -> list[str]:
    """The launcher's arguments that ask for this rendezvous."""
    return ["--rdzv_backend", BACKEND, "--rdzv_conf", f"rank={rank},address={address},port={port}"]


def handler() -> "Callable[[RendezvousParameters], RendezvousHandler]":
    """What torch calls with the launcher's arguments; torch imports this module, so that torch is not imported here."""
    return _create


def _create(parameters: "RendezvousParameters") -> "RendezvousHandler":
    from torch.distributed import TCPStore
    from torch.distributed.elastic.rendezvous import RendezvousInfo
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    class BoundRendezvous(StaticTCPRendezvous):
        def get_backend(self) -> str:
            """The name that torch holds against the one it was asked for."""
            return BACKEND

        def next_rendezvous(self) -> RendezvousInfo:
            """Meet the other machines; on machine 0, once its store listens on `master_addr` alone."""
            if self.rank == 0 and self._store is None:
                family = socket.AF_INET6 if ":" in self.master_addr else socket.AF_INET
                # The store takes no address to bind to, but it takes a socket that listens already, and owns it then.
                listener = socket.create_server((self.master_addr, self.master_port), family=family, backlog=2048)
                self.master_port = listener.getsockname()[1]  # of one machine's trial by hand, which asks for port 0
                self._store = TCPStore(
                    self.master_addr,
                    self.master_port,
                    self.world_size,
                    is_master=True,
                    timeout=self.timeout,
                    multi_tenant=True,
                    master_listen_fd=listener.detach(),
                )
            return super().next_rendezvous()

    config = parameters.config
    return BoundRendezvous(
        master_addr=str(config["address"]),
        master_port=int(config["port"]),
        rank=int(config["rank"]),
        world_size=parameters.max_nodes,
        run_id=parameters.run_id,
        timeout=int(config.get("timeout", 600)),
    )


LOOPBACK = "127.0.0.1"


def own_address(peers: Sequence[str]) -> str:
    """The IPv4 address by which the other peers reach this machine; loopback where there are no others.

    Args:
        peers: names or addresses of all machines of the job, this one included.

    Raises:
        RuntimeError: no peer can be resolved to an address that this machine has or has a route to.
    """
    if len(peers) == 1:
        return LOOPBACK
    own = {
        entry.address
        for addresses in psutil.net_if_addrs().values()
        for entry in addresses
        if entry.family == socket.AF_INET
    }
    found = [address for address in map(_resolve, peers) if address and not address.startswith("127.")]
    for address in found:
        if address in own:
            return address
    for address in found:
        # Nothing is sent: a datagram socket that is connected has the address from which it would send.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((address, 9))
            except OSError:
                continue
            return str(probe.getsockname()[0])
    raise RuntimeError(f"{socket.gethostname()} reaches none of {', '.join(peers)}")


def check_reachable(address: str, seconds: float) -> None:
    """See whether anybody listens at `address`, HOST:PORT.

    Raises:
        OSError: nobody does, or there is no answer within `seconds` (a TimeoutError).
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=seconds).close()


def _resolve(name: str) -> str | None:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None


def main(peers: Sequence[str]) -> None:
    """Print this machine's address and a port that is free on it."""
    address = own_address(peers)
    print(f"{address}:{Port(address).number}")


if __name__ == "__main__":
    main(sys.argv[1:])
