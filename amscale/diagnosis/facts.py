"""Gather facts about this machine that a trial depends on: plain data, without an opinion.

    python -m amscale.diagnosis.facts REQUEST        prints them as JSON; REQUEST is JSON too

The request holds the arguments of `gather`.
"""

import json
import math
import os
import platform
import resource
import shutil
import sys
import tempfile
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from amscale.cluster.gpus import GpuSearch, find_gpus
from amscale.cluster.limits import cgroup_cpus, granted_cpus, granted_memory
from amscale.cluster.network import Port, interface_of, own_address
from amscale.diagnosis.shared_storage import write
from amscale.errors import InputError
from amscale.trials.attempt import ATTEMPT_VARIABLE

PACKAGES = ("amscale", "torch", "deepspeed", "accelerate", "transformers", "ray", "numpy")
_DRIVER = Path("/sys/module/nvidia/version")


def gather(storage: str, peers: list[str], own: str, token: str, gpus: bool) -> dict[str, Any]:
    """Return the facts of this machine.

    Args:
        storage: of sweeps, a folder or a URI.
        peers: names or addresses of all machines, this one included.
        own: which of them this one is.
        token: name of a folder in the storage, in which all machines write.
        gpus: whether to ask for GPUs: a driver may take seconds, or hang.
    """
    quota = cgroup_cpus()
    facts: dict[str, Any] = {
        "host": own,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cores": len(os.sched_getaffinity(0)),
        "quota": quota if math.isfinite(quota) else None,
        "granted_cpus": granted_cpus(),
        "memory": psutil.virtual_memory().total,
        "granted_memory": granted_memory(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "shared_memory": free_bytes(Path("/dev/shm")),
        "temporary": free_bytes(Path(tempfile.gettempdir())),
        "accelerate_config": accelerate_config(),
        "proxies": proxies(),
        "leftovers": leftovers(),
    }
    try:
        facts["address"] = own_address(peers)
        facts["interface"] = os.environ.get("NCCL_SOCKET_IFNAME") or interface_of(facts["address"])
        facts["port"] = Port(facts["address"]).number
    except (RuntimeError, InputError) as error:
        facts["network_error"] = str(error)
    found = find_gpus() if gpus else GpuSearch(note="not asked for")
    facts |= {"gpus": [asdict(gpu) for gpu in found.gpus], "gpu_trouble": found.trouble, "gpu_note": found.note}
    facts["driver"] = _DRIVER.read_text(encoding="utf-8").strip() if _DRIVER.is_file() else None
    if found.gpus:
        facts["torch"] = torch_facts()
    facts["storage"] = write(storage, token, own)
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

    The launcher of a trial that was started by hand has none, and may have outlived its shell.
    """
    found = []
    for process in psutil.process_iter(["cmdline", "uids", "ppid", "environ"]):
        words = process.info["cmdline"] or []
        mine = process.info["uids"] and process.info["uids"].real == os.getuid()
        if not mine or process.info["ppid"] != 1 or "amscale.train" not in words:
            continue
        # Of a rank that was forked, /proc shows the environment of the process that forked it.
        supervised = ATTEMPT_VARIABLE in (process.info["environ"] or {}) or "accelerate.commands.launch" not in words
        if supervised and not any(word.endswith("supervisor.py") for word in words):
            found.append(process.pid)
    return found


def torch_facts() -> dict[str, Any]:
    """Return what torch has of GPUs: how many it sees, and the CUDA that it was built for."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a library of CUDA that is not there
        return {"cuda": None, "devices": 0, "error": f"{type(error).__name__}: {error}"}
    return {"cuda": torch.version.cuda, "devices": torch.cuda.device_count() if torch.cuda.is_available() else 0}


def main(request: str) -> None:
    """Print the facts that a request asks for."""
    print(json.dumps(gather(**json.loads(request))))


if __name__ == "__main__":
    main(sys.argv[1])
