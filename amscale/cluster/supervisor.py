"""Run a command, and leave nothing of its process tree behind, whichever process dies first.

    python supervisor.py LOG GRACE COMMAND [ARGUMENT …]

The supervisor is started by the process that owns a trial on one machine, with a pipe as standard input. When that pipe
closes (the owner ended, was killed, or asks for an end) or the supervisor gets SIGTERM, every descendant of the command
is ended: by SIGTERM first, and by SIGKILL after GRACE seconds, or those in the file
`grace` beside LOG if that is more. The command itself, a launcher, ends by itself once what
it started has ended: by SIGTERM it would end its ranks a second time, and leave a traceback in the log. Descendants
that moved to other sessions are found too: the supervisor is their subreaper, so a process that loses its parent
becomes its child. If the supervisor itself is killed, the kernel kills the command (parent-death signal), and
`accelerate launch`'s ranks end in the same way.

Standard library only, so that it starts in a few milliseconds and imports nothing that could hang.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_LAST_SECONDS = 3.0
"""How long a command that has nothing below it any more may take to end by itself."""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies; end at once if it is dead already."""
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def descendants(root: int) -> list[int]:
    """Return the process ids of everything below `root`, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                fields = stat.read().rpartition(")")[2].split()
                if fields[0] != "Z":
                    children.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def measured_grace(folder: str, least: float) -> float:
    """Return the seconds that the ranks of a trial have to end: what they have measured themselves, but `least`.

    Args:
        folder: the trial's, whose file `grace` the ranks write after each checkpoint.
        least: seconds.
    """
    try:
        with open(os.path.join(folder, "grace"), encoding="utf-8") as file:
            return max(least, float(file.read()))
    except (OSError, ValueError):  # nothing measured yet
        return least


def end_descendants(root: int, grace: float, command: int | None = None) -> None:
    """End everything below `root`: SIGTERM, `grace` seconds, then SIGKILL until nothing is left.

    Args:
        root: process id.
        grace: seconds.
        command: the process below `root` that started all others: it gets SIGTERM only if it stays behind alone.
    """
    _signal_all([process for process in descendants(root) if process != command], signal.SIGTERM)
    began = alone_since = time.monotonic()
    while (left := descendants(root)) and time.monotonic() < began + grace:
        if left != [command]:
            alone_since = time.monotonic()
        elif time.monotonic() > alone_since + _LAST_SECONDS:
            _signal_all(left, signal.SIGTERM)
        _reap()
        time.sleep(0.05)
    while left:
        _signal_all(left, signal.SIGKILL)
        _reap()
        time.sleep(0.02)
        left = descendants(root)


def _signal_all(processes: list[int], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def main(log: str, grace: float, command: list[str]) -> int:
    """Run the command with its output appended to `log`; return its exit status, or 128 + the signal that ended it."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    requested: list[int] = []
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda got, _: requested.append(got))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with open(log, "ab", buffering=0) as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    while child.poll() is None and not requested:
        ready, _, _ = select.select([0, wake_read], [], [])
        if wake_read in ready:
            os.read(wake_read, 4096)
        if 0 in ready and not os.read(0, 1):
            break
    status = child.poll()
    end_descendants(os.getpid(), measured_grace(os.path.dirname(log), grace), child.pid)
    if status is None:
        return 128 + signal.SIGTERM
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
