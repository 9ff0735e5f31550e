"""Run this machine's Ray node, for a cluster that belongs to one job.

    python -m amscale.cluster.run_node HEAD:PORT PEER …

The machine that has the address HEAD is the head; the others join it. The node ends with standard input or by SIGTERM,
and leaves nothing behind: Ray's processes end first, then the supervisors of trials, each after the grace that its
ranks have to write a checkpoint, and what is left is killed.

All ports but two of the head's are the system's choice, and temporary files have a new folder, so that jobs can share a
host. `RAY_AUTH_MODE=token` and `RAY_AUTH_TOKEN` of the environment keep others out.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from amscale.cluster import supervisor
from amscale.cluster.limits import granted_cpus, slurm_memory
from amscale.cluster.network import LOOPBACK, Port, check_reachable, own_address, split_port
from amscale.cluster.ray_cluster import OBJECT_STORE_BYTES
from amscale.errors import InputError
from amscale.folders import ray_folder

_END_SECONDS = 15.0
_JOIN_SECONDS = 120.0


def start_command(head: str, address: str, temporary: str, client_port: int) -> list[str]:
    """Return the argument vector of `ray start` on this machine.

    Args:
        head: address and port of the head.
        address: of this machine.
        temporary: folder for Ray's files.
        client_port: a free port for the head's server of Ray's client, which cannot be switched off.
    """
    host, port = split_port(head)
    role = [f"--address={head}"]
    if host == address:
        role = ["--head", f"--port={port}", f"--ray-client-server-port={client_port}", "--dashboard-host=127.0.0.1"]
    memory = slurm_memory()
    return [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", *role),
        f"--node-ip-address={address}",
        f"--num-cpus={granted_cpus()}",
        f"--temp-dir={temporary}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        *([f"--memory={memory}"] if memory else []),
        *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),
        "--disable-usage-stats",
        "--block",
    ]


def _wait_for_head(head: str) -> None:
    deadline = time.monotonic() + _JOIN_SECONDS
    while True:
        try:
            check_reachable(head, 5)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"no Ray head at {head} after {_JOIN_SECONDS:.0f} s: {error}") from None
            time.sleep(0.2)


def _is_taken(head: str) -> bool:
    try:
        check_reachable(head, 5)
    except OSError:
        return False
    return True


def _is_supervisor(process: int) -> bool:
    try:
        return supervisor.__file__.encode() in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False


def main(head: str, peers: Sequence[str]) -> int:
    """Run the node until standard input ends; return 0 then, 1 when Ray ended by itself."""
    ctypes.CDLL(None, use_errno=True).prctl(supervisor.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    address = own_address(peers)
    if split_port(head)[0] != address:
        _wait_for_head(head)
    elif _is_taken(head):  # Ray would look for its head there for half a minute, and not say why
        raise InputError(
            f"head {head}: another program listens on that port of this machine; give a free one, which `python -m "
            "amscale.cluster.network PEER …` prints and keeps"
        )
    signals: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    temporary = ray_folder()
    client_port = Port(address)
    environment = {
        # Ranks are children of Ray's workers, which would run at the lowest priority on a host that others share.
        "RAY_worker_niceness": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # The memory of a trial is not in Ray's workers: killing them when a host is full frees nothing.
        "RAY_memory_monitor_refresh_ms": "0",
        # A lost machine or head counts as such after about 20 s.
        "RAY_health_check_period_ms": "2000",
        "RAY_health_check_timeout_ms": "5000",
        "RAY_health_check_failure_threshold": "3",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    }
    if address == LOOPBACK:
        # Despite its name this is Ray's switch between a machine's address and loopback.
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    node = subprocess.Popen(
        start_command(head, address, str(temporary), client_port.number),
        stdin=subprocess.DEVNULL,
        env={**environment, **os.environ},
        preexec_fn=supervisor.die_with_parent,
    )
    while node.poll() is None and not signals:
        ready, _, _ = select.select([0], [], [], 0.5)
        if ready and not os.read(0, 4096):
            break
    ended = node.poll()
    if ended is None:
        node.terminate()
    deadline = time.monotonic() + _END_SECONDS
    while (left := supervisor.descendants(os.getpid())) and time.monotonic() < deadline:
        if any(map(_is_supervisor, left)):
            deadline = time.monotonic() + _END_SECONDS
        node.poll()
        time.sleep(0.1)
    supervisor.end_descendants(os.getpid(), 0)
    shutil.rmtree(temporary, ignore_errors=True)
    return 0 if ended is None else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], sys.argv[2:]))
    except (InputError, RuntimeError) as error:
        sys.exit(f"run_node: {error}")
