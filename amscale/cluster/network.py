"""Addresses, ports and the rendezvous of a trial's machines.

    python -m amscale.cluster.network PEER …        prints ADDRESS:PORT, a port that is free on this machine's address

The command keeps the port from other jobs on this host until its standard input ends. Machines meet by IPv4, or by IPv6
where their names have no other addresses; then ADDRESS is in brackets.

A host name may resolve to loopback on the host itself, and a machine may have several networks. What counts is the
address under which the other machines of the job reach this one.

torch finds the rendezvous by the entry point `amscale` of the group `torchrun.handlers`; `rendezvous_options` returns
the launcher's arguments that ask for it.
"""

import ipaddress
import os
import random
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil

from amscale.errors import InputError
from amscale.folders import private_folder
from amscale.locks import FileLock, LockHeld, LocksUnsupported

if TYPE_CHECKING:
    from torch.distributed import TCPStore
    from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters

_FIRST, _LAST = 20000, 32000
LOOPBACK = "127.0.0.1"
BACKEND = "amscale"


class Port:
    """A TCP port that no other trial on this host takes until `release`, or until this process ends.

    A port that was free a moment ago may be another trial's by the time it is used. So trials agree by a lock file for
    each port, and take ports below the range that the system hands out by itself.

    Args:
        address: the address that will listen on it.

    Raises:
        RuntimeError: no port is free, or the temporary folder has no file locks.
        InputError: the folder of the locks is another user's.
    """

    def __init__(self, address: str) -> None:
        # Not below TMPDIR, which may differ between jobs that share this host.
        folder = private_folder("amscale-ports", "/tmp")
        for number in random.Random().sample(range(_FIRST, _LAST), 200):
            try:
                lock = FileLock(folder / str(number), mode=0o600)
            except LockHeld:
                continue
            except LocksUnsupported as error:
                raise RuntimeError(
                    f"no file locks on the disk of the temporary folder ({error}); set TMPDIR to a local disk"
                ) from None
            try:
                with socket.socket(family_of(address)) as probe:
                    probe.bind((address, number))
            except OSError:
                lock.release()
                continue
            self.number = number
            self._lock = lock
            return
        raise RuntimeError(f"no free port between {_FIRST} and {_LAST} on {address}")

    def release(self) -> None:
        """Let others take the port."""
        self._lock.release()


def rendezvous_options(rank: int, address: str, port: int) -> list[str]:
    """Return the launcher's arguments that ask for this rendezvous.

    Args:
        rank: this machine's rank.
        address: where machine 0 listens.
        port: the same.
    """
    return ["--rdzv_backend", BACKEND, "--rdzv_conf", f"rank={rank},address={address},port={port}"]


def handler() -> "Callable[[RendezvousParameters], RendezvousHandler]":
    """Return the function that torch calls with the launcher's arguments."""
    return _create


def _create(parameters: "RendezvousParameters") -> "RendezvousHandler":
    # torch imports this module for its entry point: it must not import torch before.
    from torch.distributed.elastic.rendezvous import RendezvousInfo
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

    class BoundRendezvous(StaticTCPRendezvous):
        """A rendezvous whose store listens on one address, and not on every interface as torch's does."""

        def get_backend(self) -> str:
            """Return the name that torch compares with the one that was asked for."""
            return BACKEND

        def next_rendezvous(self) -> RendezvousInfo:
            """Meet the other machines; on machine 0 let the store listen on `master_addr` alone first."""
            if self.rank == 0 and self._store is None:
                self._store = bound_store(self.master_addr, self.master_port, self.world_size, self.timeout)
                self.master_port = self._store.port  # of one machine's trial by hand, which asks for port 0
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


def bound_store(address: str, port: int, machines: int, timeout: timedelta) -> "TCPStore":
    """Open the store at which the ranks of a trial meet; it listens on `address` alone, unlike torch's own."""
    from torch.distributed import TCPStore

    # The store takes no address to bind to, but it takes a socket that listens already, and owns it then.
    listener = socket.create_server((address, port), family=family_of(address), backlog=2048)
    return TCPStore(
        address,
        listener.getsockname()[1],
        machines,
        is_master=True,
        timeout=timeout,
        multi_tenant=True,
        master_listen_fd=listener.detach(),
    )


def family_of(address: str) -> socket.AddressFamily:
    """Return the family of sockets of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def join_port(address: str, port: int | str) -> str:
    """Return ADDRESS:PORT, with an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def split_port(place: str) -> tuple[str, int]:
    """Return address and port of ADDRESS:PORT, an IPv6 address without its brackets.

    Raises:
        ValueError: there is no port.
    """
    address, _, port = place.rpartition(":")
    return address.removeprefix("[").removesuffix("]"), int(port)


def own_address(peers: Sequence[str]) -> str:
    """Return the address by which the other peers reach this machine; loopback where there are no others.

    IPv6 counts where no peer has an IPv4 address beyond loopback.

    Args:
        peers: names or addresses of all machines of the job, this one included.

    Raises:
        RuntimeError: no peer can be resolved to an address that this machine has or has a route to.
    """
    if len(peers) == 1:
        return LOOPBACK
    own = {entry.address for addresses in psutil.net_if_addrs().values() for entry in addresses}
    for family in (socket.AF_INET, socket.AF_INET6):
        found = [address for peer in peers for address in _resolve(peer, family)]
        for address in found:
            if address in own:
                return address
        for address in found:
            # Nothing is sent: a datagram socket that is connected has the address from which it would send.
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                try:
                    probe.connect((address, 9))
                except OSError:
                    continue
                return str(probe.getsockname()[0])
    raise RuntimeError(f"{socket.gethostname()} reaches none of {', '.join(peers)}")


INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def interface_variables(address: str, site: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which collectives use the network interface that carries an address.

    gloo and NCCL otherwise choose by host name, and hang where that resolves to loopback.

    Args:
        address: of this machine.
        site: the environment; what it says of an interface is kept, for a site may have a faster network beside. Ranks
            that meet on loopback are alone: they use no other interface.

    Raises:
        RuntimeError: no interface of this machine has the address.
    """
    alone = ipaddress.ip_address(address).is_loopback
    missing = [name for name in INTERFACE_VARIABLES if alone or not site.get(name)]
    return dict.fromkeys(missing, interface_of(address)) if missing else {}


def interface_of(address: str) -> str:
    """Return the name of the network interface that carries an address.

    Raises:
        RuntimeError: no interface of this machine has the address.
    """
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    raise RuntimeError(f"no network interface of {socket.gethostname()} has the address {address}")


def check_reachable(address: str, seconds: float) -> None:
    """Check that something listens at `address`, HOST:PORT.

    Raises:
        OSError: nothing does, or there is no answer within `seconds` (a TimeoutError).
    """
    socket.create_connection(split_port(address), timeout=seconds).close()


def _resolve(name: str, family: socket.AddressFamily) -> list[str]:
    """Return the addresses of a name by which other machines may reach it: neither loopback nor of one link only."""
    try:
        found = {str(entry[4][0]): None for entry in socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)}
    except OSError:
        return []
    addresses = {text: ipaddress.ip_address(text) for text in found}
    of_one_link = [address for address in addresses.values() if address.version == 6 and address.is_link_local]
    return [text for text, address in addresses.items() if not address.is_loopback and address not in of_one_link]


def main(peers: Sequence[str]) -> None:
    """Print this machine's address and a port that is free on it, and keep the port until standard input ends."""
    address = own_address(peers)
    port = Port(address)
    print(join_port(address, port.number), flush=True)
    while os.read(0, 4096):
        continue
    port.release()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (InputError, RuntimeError) as error:
        sys.exit(str(error))
