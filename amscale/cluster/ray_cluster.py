"""Join a Ray cluster, or start one on this machine that ends with the block, and notice when its head dies.

A cluster that is started here is private: it listens on loopback, has a token and a folder of its own, and leaves
nothing behind. Its head, and that of a cluster that was joined, is watched from the first moment (`ray_head`).
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from amscale.cluster import supervisor
from amscale.cluster.network import check_reachable
from amscale.cluster.ray_head import HeadMonitor, LocalHead, RemoteHead
from amscale.errors import InputError
from amscale.folders import ray_folder

OBJECT_STORE_BYTES = 78_643_200
"""Trials exchange files, not objects; this is Ray's least."""

_ANSWER_SECONDS = 5.0
_TRIALS_END_SECONDS = 60.0

SERVICES = ("start_monitor", "start_api_server", "start_log_monitor")
"""What starts processes of Ray's head that a local sweep does without."""
_NICENESS = "RAY_worker_niceness"
_VARIABLES = {
    # Tune must neither catch Ctrl-C nor keep records: the sweep's folder is the record.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "inf",
    # Trials that wait for machines at a time: enough to fill a cluster, few enough to keep their order.
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextmanager
def ray_cluster(
    address: str | None,
    cpus: int,
    gpus: int = 0,
    slices: Sequence[str] = (),
    lost: Callable[[str], None] | None = None,
) -> Iterator[HeadMonitor]:
    """Join the Ray cluster at `address`, or start one on this machine that ends with this block.

    Args:
        address: of a running cluster, or `auto`; None starts Ray here, reachable on loopback only.
        cpus: CPU cores to offer where Ray is started here.
        gpus: GPUs to offer where Ray is started here.
        slices: their UUIDs where they are slices (MIG): CUDA does not number them.
        lost: gets a sentence when the cluster is gone, before the process ends with status 1; printed if None.

    Raises:
        InputError: no cluster answers at the address or lets this user in, or none can be started here.
    """
    lost = lost or (lambda reason: print(reason, file=sys.stderr))
    with variables(_VARIABLES), tempfile.TemporaryDirectory(prefix="amscale-ray-") as notes:
        if address is None:
            with _local_cluster(cpus, gpus, slices, Path(notes), lost) as monitor:
                yield monitor
        else:
            with _joined_cluster(address, Path(notes), lost) as monitor:
                yield monitor


@contextmanager
def variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables of this process's environment while the block runs; None takes one away."""
    before = {name: os.environ.get(name) for name in values}

    def put(wanted: Mapping[str, str | None]) -> None:
        for name, value in wanted.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    put(values)
    try:
        yield
    finally:
        put(before)


@contextmanager
def _local_cluster(
    cpus: int, gpus: int, slices: Sequence[str], notes: Path, lost: Callable[[str], None]
) -> Iterator[HeadMonitor]:
    from ray._private import ray_constants

    folder = ray_folder()
    # Despite its name the switch between a machine's address and loopback. Ray reads the environment when it is
    # imported, which it is here already; its other processes read it when they start.
    ray_constants.ENABLE_RAY_CLUSTER = False
    # Without a mode Ray turns tokens on by itself; without a token it would write one into the home folder, which every
    # cluster that is started by hand would demand from then on.
    own: dict[str, str | None] = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": None,
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Ray's agents, which outlive a head that was killed, wait this long for another.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
        # Tune's actors have variables of their own, and so get other workers than those that Ray would start ahead.
        "RAY_prestart_worker_first_driver": "0",
        # A trial's processes descend from Ray's workers, which would run at nearly the lowest priority.
        _NICENESS: os.environ.get(_NICENESS, "0"),
    }

    if slices:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(slices)

    def clean_up() -> None:
        _end_ray_processes()
        shutil.rmtree(folder, ignore_errors=True)

    try:
        with variables(own):
            monitor = HeadMonitor(LocalHead(), lost, notes, clean_up)
            try:
                # `local` starts one even where RAY_ADDRESS or an earlier `ray start` on this machine names another.
                with _without_services():
                    _start_ray(
                        address="local",
                        num_cpus=cpus,
                        num_gpus=gpus,
                        include_dashboard=False,
                        object_store_memory=OBJECT_STORE_BYTES,
                        _temp_dir=str(folder),
                    )
                yield monitor
            except _StartError as error:
                monitor.is_gone = None  # Ray has ended its head itself; the reason is its own
                raise InputError(f"Ray cannot be started on this machine: {error}") from None
            finally:
                monitor.stop()
                _stop_ray()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _without_services() -> Iterator[None]:
    """Let Ray start no autoscaler, no API server and nobody who collects logs while the block runs.

    A cluster of one sweep and machine needs none of them. Each costs half a second of a core, and Ray waits for the API
    server before it starts anything else.
    """
    from ray._private.node import Node

    before = {name: getattr(Node, name) for name in SERVICES}
    for name in SERVICES:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Node, name, method)


@contextmanager
def _joined_cluster(address: str, notes: Path, lost: Callable[[str], None]) -> Iterator[HeadMonitor]:
    import ray

    try:
        _check_answers(address)
    except (OSError, ValueError) as error:
        raise InputError(f"launch.address={address!r}: no Ray cluster answers there ({_first(error)})") from None
    monitor = HeadMonitor(None if address == "auto" else RemoteHead(address.removeprefix("ray://")), lost, notes)
    try:
        try:
            _start_ray(address=address)
        except _StartError as error:
            if address == "auto":
                raise InputError(f"launch.address='auto': no Ray cluster answers there ({error})") from None
            # Ray itself does not say that it was refused for want of the token.
            raise InputError(
                f"launch.address={address!r}: what listens there does not let this driver in ({error}); set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's (on its head: `ray get-auth-token`), and see "
                f"that it is the head of a Ray {ray.__version__}"
            ) from None
        if monitor.is_gone is None:
            monitor.is_gone = RemoteHead(ray.get_runtime_context().gcs_address)
        yield monitor
    finally:
        monitor.stop()
        _stop_ray()


class _StartError(Exception):
    """Ray did not start, or could not join; the message is the first line of its own."""


def _start_ray(**options: Any) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL", "configure_logging": True}
    try:
        ray.init(**quiet, **options)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _StartError(_first(error)) from error
    except Exception as error:
        if type(error) is not Exception:  # Ray raises the bare class where a node was not up within 30 s
            raise
        raise _StartError(f"{_first(error)} Is the machine busy? Run the same command again") from error


def _stop_ray() -> None:
    import ray

    ray.shutdown()


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_answers(address: str) -> None:
    """Check that something listens at an address; Ray itself would go on trying for minutes.

    Raises:
        OSError: nothing listens.
        ValueError: not an address.
    """
    if address == "auto":
        return
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        raise ValueError("write host:port, or auto")
    if ":" in host and not re.fullmatch(r"\[.*\]", host):
        raise ValueError("write an IPv6 address in brackets, [address]:port")
    check_reachable(f"{host}:{port}", _ANSWER_SECONDS)


def _end_ray_processes() -> None:
    """Kill what is left of the Ray that this process started, and wait until the supervisors have ended its trials.

    Ray's agents would wait for the head for long, since they know no other.
    """
    supervisors = []
    for number in supervisor.descendants(os.getpid()):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{number}/cmdline").read_bytes()
            if supervisor.__file__.encode() in line:
                supervisors.append(number)
            elif line.startswith(b"ray::") or b"/ray/" in line[:400]:
                os.kill(number, signal.SIGKILL)
    deadline = time.monotonic() + _TRIALS_END_SECONDS
    while any(map(psutil.pid_exists, supervisors)) and time.monotonic() < deadline:
        time.sleep(0.1)
