"""Ports for rendezvous, one owner each.

A port that was free a moment ago may be another trial's by the time it is used. So trials of amscale agree among
themselves by a lock file per port, and take ports below the range that the system hands out by itself.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

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
