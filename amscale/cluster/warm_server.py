"""Fork the ranks of trials from a process that has imported everything already: a start in a second instead of ten.

    python -u -m amscale.cluster.warm_server LISTENER OWNER TRIALS USED SWEEP PADDING

LISTENER and OWNER are inherited sockets; USED names the family, corpus and ZeRO stage of the trials; the process list
shows SWEEP; PADDING makes room there for ranks. Whoever holds a connection owns the server
(`amscale/cluster/warm_start.py`): it ends when the last one closes. Each connection is greeted by one line of JSON,
{"ready": true} or {"problem": "…"}. A launch request is one line on a connection, which from then on is the trial's:
the server forks a supervisor (`amscale/cluster/warm_supervisor.py`) and closes its own copy. The supervisor forks the
ranks, answers {"supervisor": process} and, at the end, {"status": number}; when the connection closes on the other side
it ends the ranks. The server itself runs nothing of a trial: it has no threads, no process group and no device, and no
end of a trial reaches it.

After so many TRIALS it starts afresh in place, so that nothing can pile up in it.
"""

import contextlib
import gc
import importlib
import os
import pkgutil
import select
import signal
import socket
import sys
import traceback
from collections.abc import Collection
from typing import Any

from amscale.cluster.warm_connection import peer, read_line, write_line
from amscale.cluster.warm_supervisor import WarmSupervisor, set_title
from amscale.cluster.without_trackers import without_trackers
from amscale.errors import one_line

_BLAS = ("numpy", "scipy.special")
"""Their libraries may start threads as they are loaded, and see to them in a fork by themselves."""
_PRELOADED = (
    "torch.distributed.run",
    "torch._dynamo",
    "torch.utils.tensorboard",
    "tensorboard.plugins.hparams.metadata",
    "transformers.integrations.deepspeed",
    "accelerate.commands.launch",
    "deepspeed",
    "deepspeed.ops.op_builder.all_ops",
    "deepspeed.module_inject.auto_ep_layer",
    "safetensors.torch",
    "amscale.training.failures",
    "amscale.training.resolve",
    "amscale.training.run",
    "amscale.probes.suite",
    "amscale.models.families",
    "amscale.cli",
)
"""What else a rank imports, directly or in the course of a trial."""
_PRELOADED_WITH_SHARDS = ("deepspeed.runtime.zero.muon.muon_optimizer",)
"""The same under ZeRO 1 to 3; it brings torch's compiler along, a second of imports."""
_PRELOADED_PACKAGES = ("amscale.models", "amscale.probes", "amscale.hopfield", "amscale.data")
"""Packages of which every module is imported that the trials may use."""
_CHOSEN_BY_NAME = ("amscale.models.families", "amscale.models.networks", "amscale.data.corpora")
"""Packages of which a trial uses the modules of its own family and corpus."""
SHARDS = "shards"
"""Among the names that are used, where trials run under ZeRO 1 to 3."""
_REQUEST_SECONDS = 10.0


def _may_be_used(module: str, used: Collection[str]) -> bool:
    """Return whether trials may import a module of amscale, by the names of what they use; no names mean all."""
    package, _, name = module.rpartition(".")
    if not used:
        return True
    return name in used if package in _CHOSEN_BY_NAME else not name.startswith("hub_") or "hub" in used


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def _name(thread: str) -> str:
    with open(f"/proc/self/task/{thread}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()


class _Server:
    def __init__(self, listener: socket.socket, owners: list[socket.socket], trials: int) -> None:
        self._listener = listener
        self._owners = owners
        self._trials_left = trials
        self._blas_threads = 1
        self._problem = ""
        self._environment = dict(os.environ)
        self._set_by_imports: dict[str, str] = {}

    def preload(self, used: Collection[str]) -> None:
        """Import what ranks import; remember why where that fails.

        Args:
            used: names of families and corpora, and SHARDS; empty where the trials are not known.
        """
        # A quarter of the time of the imports would be looks for garbage, of which there is hardly any.
        gc.disable()
        names = _PRELOADED + (_PRELOADED_WITH_SHARDS if not used or SHARDS in used else ())
        try:
            for name in _BLAS:
                importlib.import_module(name)
            self._blas_threads = _threads()
            # Some start threads, and no fork has those.
            with without_trackers():
                for name in names:
                    # Where another release has no such module, ranks do without it.
                    with contextlib.suppress(ModuleNotFoundError):
                        importlib.import_module(name)
                for name in _PRELOADED_PACKAGES:
                    package = importlib.import_module(name)
                    for found in pkgutil.walk_packages(package.__path__, f"{name}."):
                        if _may_be_used(found.name, used):
                            importlib.import_module(found.name)
        except Exception as error:
            traceback.print_exc()
            self._problem = one_line(f"{type(error).__name__}: {error}", most=300)
        self._set_by_imports = {name: value for name, value in os.environ.items() if name not in self._environment}
        # Ranks share the server's memory as long as nobody writes to it; the collector would.
        gc.freeze()
        gc.enable()

    def serve(self) -> None:
        """Answer until every owner has gone, or it is time to start afresh."""
        wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while self._owners and self._trials_left:
            sources = {one.fileno(): one for one in self._owners}
            ready, _, _ = select.select([self._listener.fileno(), wake, *sources], [], [])
            for number in ready:
                if number in sources:
                    self._hear(sources[number])
                elif number == self._listener.fileno():
                    self._greet()
                else:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                    with contextlib.suppress(ChildProcessError):
                        while os.waitpid(-1, os.WNOHANG)[0]:
                            continue
        signal.set_wakeup_fd(-1)
        os.close(wake)
        os.close(wake_write)

    def restart(self) -> None:
        """Start afresh in place: sockets, owners and the trials' supervisors stay."""
        kept = [self._listener, *self._owners]
        for one in kept:
            one.set_inheritable(True)
        numbers = [str(self._listener.fileno()), ",".join(str(owner.fileno()) for owner in self._owners)]
        arguments = [sys.executable, "-u", "-m", __spec__.name, *numbers, *sys.argv[3:]]
        os.execve(sys.executable, arguments, self._environment)

    @property
    def owned(self) -> bool:
        """Whether anyone holds a connection."""
        return bool(self._owners)

    def _greet(self) -> None:
        connection, _ = self._listener.accept()
        if peer(connection)[1] != os.getuid():
            connection.close()
            return
        connection.settimeout(_REQUEST_SECONDS)
        problem = self._problem
        if not problem and _threads() > self._blas_threads:
            names = ", ".join(sorted({_name(thread) for thread in os.listdir("/proc/self/task")}))
            more = _threads() - self._blas_threads
            problem = f"{more} more thread{'s' * (more > 1)} run in it (of {names}), and a fork would lose them"
        write_line(connection, {"problem": problem} if problem else {"ready": True})
        self._owners.append(connection)

    def _hear(self, connection: socket.socket) -> None:
        try:
            request = read_line(connection)
        except (OSError, ValueError):
            request = None
        self._owners.remove(connection)
        if request is not None:
            self._trials_left -= 1
            if os.fork() == 0:
                self._become_supervisor(connection, request)
        connection.close()

    def _become_supervisor(self, connection: socket.socket, request: dict[str, Any]) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            # A library that sets a variable when it is imported is not imported again.
            environment = self._set_by_imports | request["environment"]
            status = WarmSupervisor(connection, request | {"environment": environment}).run()
        except BaseException as error:
            with contextlib.suppress(OSError):
                traceback.print_exc()
                write_line(connection, {"problem": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(status)


def main(listener: str, owners: str, trials: str, used: str, sweep: str) -> int:
    """Serve until the last owner has gone."""
    set_title([sys.executable, "-m", "amscale.cluster.warm_server", sweep])
    sockets = [socket.socket(fileno=int(number)) for number in [listener, *filter(None, owners.split(","))]]
    for one in sockets:
        one.set_inheritable(False)
    server = _Server(sockets[0], sockets[1:], int(trials))
    server.preload(set(filter(None, used.split(","))))
    server.serve()
    if server.owned:
        server.restart()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:6]))
