"""Lines of JSON between the warm server, its trials and the processes that they belong to, over Unix sockets."""

import contextlib
import json
import socket
import struct
from typing import Any

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
