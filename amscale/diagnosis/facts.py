"""Gather facts about this machine that a trial depends on: plain data, without an opinion.

    python -m amscale.diagnosis.facts REQUEST        prints them as JSON; REQUEST is JSON too

The request names the storage and the machines (`peers`), and whether to import torch (`full`).
"""

import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from amscale.cluster.network import Port, own_address
from amscale.trials.attempt import ATTEMPT_VARIABLE
from amscale.trials.location import working_folder
from amscale.trials.objects import ObjectStore, is_uri
from amscale.trials.storage_errors import StorageError

PACKAGES = ("amscale", "torch", "deepspeed", "accelerate", "transformers", "ray", "numpy")
_NVIDIA_SECONDS = 20.0


def gather(storage: str, peers: list[str], token: str, seconds: float, full: bool) -> dict[str, Any]:
    """Return the facts of this machine.

    Args:
        storage: of sweeps, a folder or a URI.
        peers: names or addresses of all machines, this one included.
        token: name under which all machines write to the storage; each sees then who else did.
        seconds: how long to wait for the others' files.
        full: whether to look at GPUs and torch, which takes seconds, and for the others' files.
    """
    facts: dict[str, Any] = {
        "host": socket.gethostname(),
        "time": time.time(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_quota": cpu_quota(),
        "memory": psutil.virtual_memory().total,
        "memory_limit": memory_limit(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "shared_memory": free_bytes(Path("/dev/shm")),
        "temporary": free_bytes(Path(tempfile.gettempdir())),
        "accelerate_config": accelerate_config(),
        "proxies": proxies(),
        "leftovers": leftovers(),
        "gpus": nvidia() if full else [],
    }
    try:
        facts["address"] = own_address(peers)
        facts["port"] = Port(facts["address"]).number
    except RuntimeError as error:
        facts["network_error"] = str(error)
    if full:
        facts["torch"] = torch_facts()
    facts["storage"] = storage_facts(storage, token, len(peers) if full else 1, seconds)
    return facts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def free_bytes(folder: Path) -> int | None:
    """Return the free bytes of a folder's disk; None where there is no such folder."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Return the CPU cores that the container may use at a time; None without a limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass  # no version 2
    try:
        quota_us = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        return quota_us / int((root / "cpu" / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    except (OSError, ValueError):
        return None


def memory_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes of memory that the container may use; None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = int((root / name).read_text())
        except (OSError, ValueError):
            continue
        return limit if limit < 1 << 60 else None
    return None


def accelerate_config() -> str | None:
    """Return the file with this user's answers to `accelerate config`, or None."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    found = (home / "accelerate" / f"default_config.{kind}" for kind in ("yaml", "json"))
    return next((str(file) for file in found if file.is_file()), None)


def proxies() -> dict[str, str]:
    """Return the proxies of the environment, and what they are not used for (`no_proxy`)."""
    names = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy")
    either = {name: os.environ.get(name) or os.environ.get(name.upper()) for name in names}
    return {name: value for name, value in either.items() if value}


def leftovers() -> list[int]:
    """Return this user's ranks and launchers of trials whose supervisor has gone.

    A trial that was started by hand has none, and may have outlived its shell.
    """
    found = []
    for process in psutil.process_iter(["cmdline", "uids", "ppid", "environ"]):
        words = process.info["cmdline"] or []
        mine = process.info["uids"] and process.info["uids"].real == os.getuid()
        supervised = ATTEMPT_VARIABLE in (process.info["environ"] or {})
        supervises = any(word.endswith("supervisor.py") for word in words)
        if mine and process.info["ppid"] == 1 and "amscale.train" in words and supervised and not supervises:
            found.append(process.pid)
    return found


def nvidia() -> list[dict[str, str]] | str:
    """Return name, memory and driver of each NVIDIA GPU here, or why `nvidia-smi` does not say."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    fields = ("name", "memory.total", "driver_version")
    try:
        answer = subprocess.run(
            [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_NVIDIA_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"nvidia-smi has not answered for {_NVIDIA_SECONDS:.0f} s"
    if answer.returncode:
        return (answer.stdout + answer.stderr).strip().splitlines()[-1] if answer.stdout + answer.stderr else "failed"
    rows = [line.split(", ") for line in answer.stdout.splitlines() if line.strip()]
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]


def torch_facts() -> dict[str, Any]:
    """Return what torch has of GPUs: their number, its CUDA, and whether they compute in bf16."""
    import torch

    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    capability = [torch.cuda.get_device_capability(index) for index in range(devices)]
    return {"cuda": torch.version.cuda, "devices": devices, "bf16": all(major >= 8 for major, _ in capability)}


def storage_facts(storage: str, token: str, machines: int, seconds: float) -> dict[str, Any]:
    """Write to the storage, read it back, and wait for what the other machines write; return what was seen.

    Args:
        storage: a folder or a URI.
        token: name of the folder in which all machines write.
        machines: how many will.
        seconds: how long to wait for the others.
    """
    folder = Path(storage).expanduser().absolute()
    try:
        if is_uri(storage):
            disk = working_folder(storage)
            disk.mkdir(parents=True, exist_ok=True)
            objects = ObjectStore(storage).at(token)
        else:
            disk = folder
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied", str(folder))
            objects = ObjectStore(folder.as_uri()).at(token)
        name = f"{socket.gethostname()}-{os.getpid()}"
        began = time.perf_counter()
        objects.write(name, name.encode())
        if objects.read(name) != name.encode():
            return {"error": f"{storage}: what was written is not what is read"}
        latency = time.perf_counter() - began
        deadline = time.monotonic() + seconds
        while len(seen := set(objects.entries())) < machines and time.monotonic() < deadline:
            time.sleep(0.1)
        return {"latency": latency, "seen": len(seen), "machines": machines, "free": free_bytes(disk)}
    except StorageError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": f"{error.filename or storage}: {error.strerror or error}"}


def main(request: str) -> None:
    """Print the facts that a request asks for."""
    print(json.dumps(gather(**json.loads(request))))


if __name__ == "__main__":
    main(sys.argv[1])
