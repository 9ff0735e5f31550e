"""The address of this machine among the machines of an allocation or of a host list.

    python -m amscale.cluster.address PEER …        prints ADDRESS:PORT, a free port on the address

A host name may resolve to loopback on its own host, and a machine may have several networks. What counts is the address
under which the other machines of the job reach this one.
"""

import socket
import sys
from collections.abc import Sequence

import psutil

from amscale.cluster.ports import Port

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


def knock(address: str, seconds: float) -> None:
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
