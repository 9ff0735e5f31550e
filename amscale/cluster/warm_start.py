"""Start a trial's ranks by this machine's warm server, which is started where there is none yet.

There is one server a sweep, machine and environment (`amscale/cluster/warm_server.py`). It listens on an abstract Unix
socket, which has no file, no length limit worth naming, and is seen in this network namespace only; either side checks
the other's user. Every process that uses the server keeps a connection to it: it ends with the last of them.
"""

import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar

from amscale.cluster import supervisor, warm_server
from amscale.cluster.environment import rank_environment, set_variables
from amscale.cluster.machine import LOG_VARIABLES, SupervisedCommand, begin_log
from amscale.cluster.warm_connection import peer, read_line, write_line
from amscale.trials.location import TrialLocation, is_uri
from amscale.trials.records import Placement

_READY_SECONDS = 120.0
"""How long the server's imports may take; then the trial starts without it."""
MOST_TRIALS = 200
"""After so many the server starts afresh, so that nothing can pile up in it."""
_BACKLOG = 128
_TITLE_ROOM = " " * 4096
"""Room for the command line of a rank, which takes the place of the server's."""


class NoWarmStart(Exception):
    """The warm server cannot be used; the message is the reason."""


def can_start_warm(placement: Placement) -> bool:
    """Return whether a trial's ranks can be forked: on one machine's CPUs.

    Accelerate's launcher looks at a GPU before it starts ranks, and a process that has done so cannot fork others that
    use it. Ranks of several machines meet by torch's launchers.
    """
    return placement.device == "cpu" and placement.machines == 1


@contextmanager
def started_ahead(location: TrialLocation, placement: Placement, used: Collection[str]) -> Iterator[None]:
    """Let the server that trials of a sweep will ask import already, where they can be started by one.

    Where it cannot be started nothing is said yet: the trials try again, and tell.

    Args:
        location: of one of the trials.
        placement: of the trials.
        used: what they use, as `WarmServer.hold` takes it.
    """
    server = WarmServer.of(name_of_sweep(location), placement)
    if can_start_warm(placement):
        with suppress(NoWarmStart):
            server.hold(used)
    try:
        yield
    finally:
        server.release()


def name_of_sweep(location: TrialLocation) -> str:
    """Return the sweep's folder, or its name where it is kept as objects: a URI may hold a key."""
    return location.sweep if is_uri(location.storage) else str(Path(location.storage) / location.sweep)


class WarmServer:
    """This process's connection to the warm server of a sweep on this machine; opened when it is first needed.

    Args:
        sweep: a name that its trials on this machine share; the process list shows it.
        placement: of the trials. Libraries read some variables when they are imported: trials whose placement sets
            others have another server.
    """

    _of_this_process: ClassVar["dict[bytes, WarmServer]"] = {}

    def __init__(self, sweep: str, placement: Placement) -> None:
        self._sweep = sweep
        self._placement = placement
        self._owned: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.name = self._name()

    @classmethod
    def of(cls, sweep: str, placement: Placement) -> "WarmServer":
        """Return the one of this process, which keeps it as long as it lives."""
        made = cls(sweep, placement)
        return cls._of_this_process.setdefault(made.name, made)

    def hold(self, used: Collection[str] = ()) -> None:
        """Let the server start, if there is none, and live until `release` or the end of this process.

        Returns at once: the server imports while this process goes on.

        Args:
            used: names of the families and corpora of its trials, and `warm_server.SHARDS`; others' modules are
                imported by the ranks. Empty: the modules of all.

        Raises:
            NoWarmStart: it cannot be started.
        """
        if self._owned is not None and not _closed(self._owned):
            return
        for _ in range(50):
            try:
                self._owned = self._connected()
            except ConnectionRefusedError:
                try:
                    self._owned = self._started(used)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise NoWarmStart(f"it cannot be started: {error}") from None
                    time.sleep(0.1)  # another process starts it just now, or the one before it is ending
                    continue
            except OSError as error:
                raise NoWarmStart(str(error)) from None
            return
        raise NoWarmStart("another process has its address and does not answer")

    def connect(self) -> socket.socket:
        """Return a new connection to the server, once it is ready.

        Raises:
            NoWarmStart: it is not, and will not be.
        """
        for number in range(10):
            if number:  # one that is just ending takes connections until its memory is given back
                time.sleep(0.1)
            self.hold()
            began = time.monotonic()
            try:
                connection = self._connected()
                connection.settimeout(_READY_SECONDS)
                greeting = read_line(connection)
            except ConnectionRefusedError:
                continue
            except (OSError, ValueError) as error:
                raise NoWarmStart(f"it does not answer ({type(error).__name__}: {error})") from None
            if greeting and "problem" not in greeting:
                return connection
            connection.close()
            if greeting:
                raise NoWarmStart(greeting["problem"])
            if time.monotonic() > began + 1:  # it had begun to import
                break
        raise NoWarmStart("it ended while it started")

    def release(self) -> None:
        """Let the server end; where this process started it, end it, even if it is still importing."""
        if self._owned is not None:
            self._owned.close()
            self._owned = None
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self.name)
            if peer(connection)[1] != os.getuid():
                raise PermissionError("another user has its address")
        except OSError:
            connection.close()
            raise
        return connection

    def _started(self, used: Collection[str]) -> socket.socket:
        """Start the server; return a connection that it has from its start."""
        own, other = socket.socketpair()
        with socket.socket(socket.AF_UNIX) as listener, other:
            listener.bind(self.name)
            listener.listen(_BACKLOG)
            numbers = (listener.fileno(), other.fileno())
            arguments = [*map(str, numbers), str(MOST_TRIALS), ",".join(sorted(used)), self._sweep, _TITLE_ROOM]
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", warm_server.__name__, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**rank_environment(self._placement), **LOG_VARIABLES},
                pass_fds=numbers,
                start_new_session=True,
            )
        return own

    def _name(self) -> bytes:
        spaces = [os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("net", "mnt", "pid", "user")]
        imported = sorted(set_variables(self._placement).items())
        told = [self._sweep, imported, sys.executable, warm_server.__file__, spaces]
        return b"\0amscale-" + hashlib.sha256(json.dumps([os.getuid(), *told]).encode()).hexdigest().encode()


def _closed(connection: socket.socket) -> bool:
    """Return whether the other end has gone; what it said is not read."""
    try:
        while connection.recv(4096, socket.MSG_DONTWAIT):
            continue
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


class WarmCommand:
    """The ranks that `accelerate launch` would start, forked by the warm server; started cold where that fails.

    Args:
        grace: seconds that processes have to end by themselves, at least (`supervisor.measured_grace`).
        sweep: a name that its trials on this machine share; the process list shows it.
        placement: of the trial.
    """

    def __init__(self, grace: float, sweep: str, placement: Placement) -> None:
        self._grace = grace
        self._sweep = sweep
        self._placement = placement
        self._cold = SupervisedCommand(grace)
        self._folder = ""
        self._connection: socket.socket | None = None
        self._supervisor = 0
        self._status: int | None = None
        self.problem = ""
        """Why the last start was a cold one; empty where it was not."""

    def start(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        """Start the command's ranks with their output appended to `log`; end earlier ones first.

        Args:
            command: argument vector of `accelerate launch`.
            environment: all variables of the ranks.
            log: path on this machine.
        """
        self.stop()
        self.problem, self._folder = "", str(log.parent)
        try:
            connection = WarmServer.of(self._sweep, self._placement).connect()
            begin_log(log, command)
            self._ask(connection, command, environment, log)
        except NoWarmStart as problem:
            self.problem = str(problem)
            self._cold.start(command, environment, log)

    def _ask(self, connection: socket.socket, command: list[str], environment: dict[str, str], log: Path) -> None:
        request = {
            "command": command,
            "environment": {**environment, **LOG_VARIABLES},
            "folder": os.getcwd(),
            "log": str(log.absolute()),
            "grace": self._grace,
            # How soon the kernel ends a process for want of memory: Ray lets that of its workers be high.
            "oom_score": Path("/proc/self/oom_score_adj").read_text(encoding="utf-8"),
        }
        write_line(connection, request)
        try:
            answer = read_line(connection)
        except (OSError, ValueError) as error:
            answer = {"problem": f"no answer ({type(error).__name__}: {error})"}
        if not answer or "problem" in answer:
            connection.close()
            raise NoWarmStart(answer["problem"] if answer else "it ended when it was asked for a trial")
        self._connection, self._supervisor, self._status = connection, answer["supervisor"], None

    def poll(self) -> int | None:
        """Return the exit status of the ranks, or None while they run."""
        if self._connection is None:
            return self._cold.poll()
        if self._status is None:
            self._connection.settimeout(0)
            try:
                answer = read_line(self._connection)
            except BlockingIOError:
                return None
            self._status = answer["status"] if answer else 128 + signal.SIGKILL
        return self._status

    def stop(self) -> None:
        """End the ranks and everything below them. Returns when nothing is left."""
        self._cold.stop()
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        with connection:
            try:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(supervisor.measured_grace(self._folder, self._grace) + 10)
                while read_line(connection) is not None:
                    continue
            except TimeoutError:
                os.kill(self._supervisor, signal.SIGKILL)
                connection.settimeout(None)
                while connection.recv(4096):
                    continue
            except OSError:  # it has ended already
                pass
