"""Own the ranks of one trial on this machine, as `accelerate launch` below `supervisor.py` would.

The warm server (`amscale/cluster/warm_server.py`) forks this process for every trial, and it forks the ranks.
Accelerate's own launcher makes their environment; where that would hand over to torch's, ranks are forked instead.
"""

import contextlib
import ctypes
import os
import runpy
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from amscale.cluster import supervisor
from amscale.cluster.network import bound_store
from amscale.cluster.warm_connection import peer, write_line

_OTHERS_SECONDS = 30.0
"""How long the other ranks have to end once one has failed, as torch's launcher gives them."""


def set_title(words: Sequence[str]) -> None:
    """Show `words` as this process's command line; what does not fit the present one's length is cut off."""
    with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"\0".join(word.encode("utf-8", "surrogateescape") for word in words)[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


class WarmSupervisor:
    """The process that owns the ranks of one trial on this machine, as `amscale/cluster/supervisor.py` does.

    Args:
        connection: to the process that asked for the ranks, which ends them by closing it.
        request: `command` (of `accelerate launch`), `environment`, `folder`, `log`, `grace`, `oom_score`.
    """

    def __init__(self, connection: socket.socket, request: dict[str, Any]) -> None:
        self._connection = connection
        self._command: list[str] = request["command"]
        self._environment: dict[str, str] = request["environment"]
        self._folder: str = request["folder"]
        self._log: str = request["log"]
        self._grace = float(request["grace"])
        self._oom_score: str = request["oom_score"]
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
        supervisor.end_descendants(os.getpid(), supervisor.measured_grace(os.path.dirname(self._log), self._grace))
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
        # Only a privileged process may lower it.
        with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
            file.write(self._oom_score)
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
        launch.launch_command(launch.launch_command_parser().parse_args(self._command[4:]))
        (store,) = found
        return store

    def _fork_ranks(self, arguments: Any) -> Any:
        """Fork the ranks with the variables that torch's launcher would give them; then open their store."""
        from torch.distributed.run import config_from_args

        config, _, _ = config_from_args(arguments)
        address, port = str(config.rdzv_configs["address"]), int(config.rdzv_configs["port"])
        size = config.nproc_per_node
        module, rest = str(arguments.training_script), list(arguments.training_script_args)
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
            self._fork(rank, partial(_run_rank, {**shared, **own}, module, rest))
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
            ready, _, _ = select.select([self._connection.fileno(), wake], [], [], limit)
            if requested or (self._connection.fileno() in ready and not self._connection.recv(1)):
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
