"""Wait until this machine sees what another one wrote to a shared disk, which may take a minute.

NFS answers from memory for a while, up to 60 s by default: that a name is not there, too. Listing and opening a folder
asks the server.
"""

import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from amscale.trials.storage_errors import OutOfReach

VISIBLE_SECONDS = 120.0
"""How long a shared file system may take to show what another machine wrote, if nothing else is set."""


def wait_to_see(seen: Callable[[], bool], path: Path, writer: str, seconds: float) -> None:
    """Wait until this machine sees what another process wrote into a trial's folder.

    Args:
        seen: whether it does.
        path: the trial's folder.
        writer: the other process, for messages.
        seconds: to wait at most.

    Raises:
        OutOfReach: it does not; another attempt may, where a server was away meanwhile.
    """
    deadline = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > deadline:
            raise not_shared(path, writer, seconds)
        for folder in (*path.parents[2::-1], path):
            _look_again(folder)
        time.sleep(0.2)


def not_shared(path: Path, writer: str, seconds: float) -> OutOfReach:
    """Return the error of a machine that has not seen for so long what another process wrote."""
    return OutOfReach(
        f"storage not shared: {socket.gethostname()}{_address()} does not see what {writer} wrote to {path}, after "
        f"{seconds:.0f} s; give storage a folder that all machines share, or a URI such as s3://bucket/prefix; a slow "
        "disk needs a higher launch.visible_after"
    )


def _look_again(folder: Path) -> None:
    """Let a network file system ask its server for a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.listdir(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _address() -> str:
    """Return this machine's address in the Ray cluster, in brackets: hosts may share a name."""
    ray = sys.modules.get("ray")
    return f" ({ray.util.get_node_ip_address()})" if ray and ray.is_initialized() else ""
