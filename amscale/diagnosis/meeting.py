"""Meet the other machines: connect to each of them, compare clocks, and look for the files that they wrote.

    python -m amscale.diagnosis.meeting REQUEST        one a machine, at a time; prints JSON

REQUEST is JSON, with the arguments of `meet`.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from amscale.cluster.network import family_of
from amscale.diagnosis.shared_storage import forget, unseen

_ATTEMPT_SECONDS = 2.0


def meet(
    own: str,
    machines: Mapping[str, Sequence[Any]],
    seconds: float,
    storage: str,
    token: str,
    writers: list[str],
    visible_seconds: float,
) -> dict[str, Any]:
    """Return which machines this one does not reach, how far their clocks are ahead, and whose files it does not see.

    Args:
        own: name of this machine.
        machines: address and port of every machine, by name; each listens on its own.
        seconds: how long to try; the machines do not begin at the same moment.
        storage: a folder or a URI.
        token: name of the folder in it.
        writers: machines that have written to it.
        visible_seconds: how long to wait for their files.
    """
    deadline = time.monotonic() + seconds
    met: set[str] = set()
    others = {name: place for name, place in machines.items() if name != own}
    address, port = machines[own]
    with socket.create_server((address, port), family=family_of(address)) as listener:
        listener.settimeout(0.2)
        done = threading.Event()
        with ThreadPoolExecutor(len(machines) + 2) as threads:
            serving = threads.submit(_serve, listener, met, done)
            seen = threads.submit(unseen, storage, token, writers, visible_seconds)
            asked = {name: threads.submit(_ask, own, place, deadline) for name, place in others.items()}
            clocks = {name: answer.result() for name, answer in asked.items()}
            # The others may begin later: they need this machine until they have met it.
            while set(others) - met and time.monotonic() < deadline:
                time.sleep(0.05)
            done.set()
            serving.result()
            missing = seen.result()
    return {
        "unreached": [name for name, ahead in clocks.items() if ahead is None],
        "ahead": {name: ahead for name, ahead in clocks.items() if ahead is not None},
        "unseen": missing,
    }


def _serve(listener: socket.socket, met: set[str], done: threading.Event) -> None:
    """Answer each machine with this one's clock, and note its name."""
    while not done.is_set():
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.settimeout(_ATTEMPT_SECONDS)
            try:
                name = connection.recv(1024).decode()
                connection.sendall(repr(time.time()).encode())
            except OSError:  # the other end tries again
                continue
            met.add(name)


def _ask(own: str, place: Sequence[Any], deadline: float) -> float | None:
    """Return the seconds by which the clock of a machine is ahead of this one's; None if it is not reached."""
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(tuple(place), timeout=_ATTEMPT_SECONDS) as connection:
                before = time.time()
                connection.sendall(own.encode())
                theirs = float(connection.recv(64))
                return theirs - (before + time.time()) / 2
        except (OSError, ValueError):
            time.sleep(0.1)
    return None


def main(request: dict[str, Any]) -> None:
    """Print what a request asks for; of one that asks to forget, remove the files that this machine sees."""
    if request.pop("forget", False):
        forget(**request)
        print(json.dumps({}))
    else:
        print(json.dumps(meet(**request)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
