"""Fork the ranks of trials from a process that has imported everything already: a start in a second instead of ten.

    python -u -m amscale.cluster.warm_server LISTENER OWNER TRIALS SWEEP PADDING

LISTENER and OWNER are inherited sockets; the process list shows SWEEP; PADDING makes room there for ranks. Whoever holds a connection owns the
server (`amscale/cluster/warm_start.py`): it ends when the last one closes. Each connection is greeted by one line of
JSON, {"ready": true} or {"problem": "…"}. A launch request is one line on a connection, which from then on is the
trial's: the server forks a supervisor that forks the ranks, as `accelerate launch` below `supervisor.py` would start
them, and closes its own copy. The supervisor answers {"supervisor": process} and, at the end, {"status": number}; when
the connection closes on the other side it ends the ranks. The server itself runs nothing of a trial: it has no threads,
no process group and no device, and no end of a trial reaches it.

After so many TRIALS it starts afresh in place, so that nothing can pile up in it.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import shlex
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from amscale.cluster import supervisor

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
    "amscale.training.run",
    "amscale.probes.suite",
    "amscale.models.families",
    "amscale.cli",
)
"""What else a rank imports, directly or in the course of a trial."""
_PRELOADED_PACKAGES = ("amscale.models", "amscale.probes", "amscale.data")
"""Packages of which every module is imported."""
_REQUEST_SECONDS = 10.0
_OTHERS_SECONDS = 30.0
"""How long the other ranks have to end once one has failed, as torch's launcher gives them."""
_PEER = struct.Struct("3i")


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return process and user id of the other end of a Unix socket."""
    process, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return process, user


def read_line(connection: socket.socket) -> dict[str, Any] | None:
    """Read one line of JSON; None where the other end has closed the connection before its end.

    Raises:
        TimeoutError: the connection's time limit.
    """
    data = b""
    while not data.endswith(b"\n"):
        try:
            ahead = connection.recv(65536, socket.MSG_PEEK)
            more = connection.recv(ahead.find(b"\n") + 1 or len(ahead)) if ahead else b""
        except ConnectionError:
            more = b""
        if not more:
            return None
        data += more
    line: dict[str, Any] = json.loads(data)
    return line


def write_line(connection: socket.socket, line: dict[str, Any]) -> None:
    """Write one line of JSON; an other end that has gone is no error."""
    with contextlib.suppress(ConnectionError):
        connection.sendall(json.dumps(line).encode() + b"\n")


def set_title(words: Sequence[str]) -> None:
    """Show `words` as this process's command line; what does not fit the present one's length is cut off."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"\0".join(word.encode("utf-8", "surrogateescape") for word in words)[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


class _Server:
    def __init__(self, listener: socket.socket, owners: list[socket.socket], trials: int) -> None:
        self._listener = listener
        self._owners = owners
        self._trials_left = trials
        self._blas_threads = 1
        self._problem = ""
        self._environment = dict(os.environ)
        self._set_by_imports: dict[str, str] = {}

    def preload(self) -> None:
        """Import what ranks import; remember why where that fails."""
        try:
            for name in _BLAS:
                importlib.import_module(name)
            self._blas_threads = _threads()
            for name in _PRELOADED:
                # Where another release has no such module, ranks do without it.
                with contextlib.suppress(ModuleNotFoundError):
                    importlib.import_module(name)
            for name in _PRELOADED_PACKAGES:
                package = importlib.import_module(name)
                for found in pkgutil.walk_packages(package.__path__, f"{name}."):
                    importlib.import_module(found.name)
        except Exception as error:
            traceback.print_exc()
            self._problem = f"{type(error).__name__}: {error}"
        self._set_by_imports = {name: value for name, value in os.environ.items() if name not in self._environment}
        gc.collect()
        # Ranks share the server's memory as long as nobody writes to it; the collector would.
        gc.freeze()

    def serve(self) -> None:
        """Answer until every owner has gone, or it is time to start afresh."""
        wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while self._owners and self._trials_left:
            ready, _, _ = select.select([self._listener, wake, *self._owners], [], [])
            for source in ready:
                if source is self._listener:
                    self._greet()
                elif isinstance(source, socket.socket):
                    self._hear(source)
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
            problem = f"{_threads() - self._blas_threads} threads run in it, and a fork would lose them"
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
            status = _Supervisor(connection, request | {"environment": environment}).run()
        except BaseException as error:
            with contextlib.suppress(OSError):
                traceback.print_exc()
                write_line(connection, {"problem": f"{type(error).__name__}: {error}"})
        finally:
            os._exit(status)


class _Supervisor:
    """The process that owns the ranks of one trial on this machine, as `amscale/cluster/supervisor.py` does.

    Args:
        connection: to the process that asked for the ranks, which ends them by closing it.
        request: `command` (of `accelerate launch`), `environment`, `folder`, `log`, `grace`.
    """

    def __init__(self, connection: socket.socket, request: dict[str, Any]) -> None:
        self._connection = connection
        self._command: list[str] = request["command"]
        self._environment: dict[str, str] = request["environment"]
        self._folder: str = request["folder"]
        self._log: str = request["log"]
        self._grace = float(request["grace"])
        self._ranks: dict[int, int] = {}

    def run(self) -> int:
        """Start the ranks and wait for their end; return what the connection was told."""
        os.setsid()
        ctypes.CDLL(None, use_errno=True).prctl(supervisor.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        owner = f"owner={peer(self._connection)[0]}"
        set_title([sys.executable, supervisor.__file__, self._log, str(self._grace), *self._command, owner])
        self._replace_inherited()
        wake, requested = self._catch_signals()
        store = self._launch()
        write_line(self._connection, {"supervisor": os.getpid()})
        status = self._watch(wake, requested)
        del store
        supervisor.end_descendants(os.getpid(), self._grace)
        if status is None:
            status = 128 + signal.SIGTERM
        write_line(self._connection, {"status": status})
        return status

    def _replace_inherited(self) -> None:
        """Have the streams, files, folder and environment that a new process would have, and no others."""
        kept = self._connection.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, max(map(int, os.listdir("/proc/self/fd"))) + 1)
        sources = (os.open(os.devnull, os.O_RDONLY), os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666))
        for number, source in ((0, sources[0]), (1, sources[1]), (2, sources[1])):
            os.dup2(source, number)
        for source in sources:
            os.close(source)
        os.chdir(self._folder)
        os.environ.clear()
        os.environ.update(self._environment)

    def _catch_signals(self) -> tuple[int, list[int]]:
        requested: list[int] = []
        wake, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda got, _: requested.append(got))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return wake, requested

    def _launch(self) -> Any:
        """Run Accelerate's launcher up to where it hands over to torch's, and fork the ranks there.

        Returns:
            The store at which the ranks meet.
        """
        import torch.distributed.run as torch_launcher
        from accelerate.commands import launch

        found: list[Any] = []
        torch_launcher.run = lambda arguments: found.append(self._fork_ranks(arguments))
        launch.launch_command(launch.launch_command_parser().parse_args(self._command[3:]))
        (store,) = found
        return store

    def _fork_ranks(self, arguments: Any) -> Any:
        """Fork the ranks with the variables that torch's launcher would give them; then open their store."""
        from torch.distributed.run import config_from_args

        from amscale.cluster.network import bound_store

        config, _, _ = config_from_args(arguments)
        address, port = str(config.rdzv_configs["address"]), int(config.rdzv_configs["port"])
        size = config.nproc_per_node
        module, *rest = arguments.training_script, *arguments.training_script_args
        shared = {
            **os.environ,
            "GROUP_RANK": "0",
            "ROLE_NAME": config.role,
            "LOCAL_WORLD_SIZE": str(size),
            "WORLD_SIZE": str(size),
            "GROUP_WORLD_SIZE": "1",
            "ROLE_WORLD_SIZE": str(size),
            "MASTER_ADDR": address,
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RESTART_COUNT": "0",
            "TORCHELASTIC_MAX_RESTARTS": str(config.max_restarts),
            "TORCHELASTIC_RUN_ID": config.run_id,
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_SIGNALS_TO_HANDLE": config.signals_to_handle,
            "TORCH_NCCL_ASYNC_ERROR_HANDLING": os.getenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
        }
        for rank in range(size):
            own = dict.fromkeys(("RANK", "LOCAL_RANK", "ROLE_RANK"), str(rank))
            self._fork(rank, lambda own=own: _run_rank({**shared, **own}, module, rest))
        # Not before: the store has threads.
        return bound_store(address, port, 1, timedelta(seconds=600))

    def _fork(self, rank: int, run: Callable[[], int]) -> None:
        process = os.fork()
        if process:
            self._ranks[process] = rank
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            supervisor.die_with_parent()
            os.setsid()
            os.closerange(3, 64)
            status = run()
        except BaseException:
            with contextlib.suppress(OSError):
                traceback.print_exc()
        finally:
            os._exit(status)

    def _watch(self, wake: int, requested: list[int]) -> int | None:
        """Return the status of the first rank that failed, 0 where none did, None where an end was asked for."""
        failed, deadline = 0, float("inf")
        while self._ranks and time.monotonic() < deadline:
            limit = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([self._connection, wake], [], [], limit)
            if requested or (self._connection in ready and not self._connection.recv(1)):
                return None
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
            for rank, status in self._ended():
                if not status or failed:
                    continue
                failed, deadline = status, time.monotonic() + _OTHERS_SECONDS
                if status > 128:
                    print(f"rank {rank} was ended by signal {status - 128}", flush=True)
                for other in self._ranks:
                    os.kill(other, signal.SIGTERM)
        return failed

    def _ended(self) -> list[tuple[int, int]]:
        """Return rank and status of those that have ended since; signals count from 128."""
        found = []
        with contextlib.suppress(ChildProcessError):
            while True:
                process, how = os.waitpid(-1, os.WNOHANG)
                if not process:
                    break
                status = os.waitstatus_to_exitcode(how)
                if process in self._ranks:
                    found.append((self._ranks.pop(process), status if status >= 0 else 128 - status))
        return found


def _run_rank(environment: dict[str, str], module: str, arguments: list[str]) -> int:
    """Be `python -u -m MODULE ARGUMENTS` with that environment; return the exit status."""
    import numpy as np

    os.environ.clear()
    os.environ.update(environment)
    set_title([sys.executable, "-u", "-m", module, *arguments])
    np.random.seed()  # as in a new process, and not as in every rank of the server; `random` does so by itself
    sys.argv = [module, *arguments]
    sys.path[0] = os.getcwd()
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr, flush=True)
        return 1
    return 0


def main(listener: str, owners: str, trials: str, sweep: str) -> int:
    """Serve until the last owner has gone."""
    set_title([sys.executable, "-m", "amscale.cluster.warm_server", sweep])
    sockets = [socket.socket(fileno=int(number)) for number in [listener, *filter(None, owners.split(","))]]
    for one in sockets:
        one.set_inheritable(False)
    server = _Server(sockets[0], sockets[1:], int(trials))
    server.preload()
    server.serve()
    if server.owned:
        server.restart()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
