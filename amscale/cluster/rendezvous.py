"""A rendezvous for torch's launcher whose store listens on one address, and not on every interface as torch's own does.

torch finds it by the entry point `amscale` of the group `torchrun.handlers`. It is asked for by
`--rdzv_backend amscale --rdzv_conf rank=R,address=A,port=P`: the machine's rank, and where machine 0 listens.
"""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

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
