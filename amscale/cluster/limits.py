"""What this process is granted of its machine: by its affinity, a container's or a batch job's cgroup, and Slurm."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

_MEGABYTE = 2**20
_MOST_DIGITS = 20


def granted_cpus(environment: Mapping[str, str] = os.environ) -> int:
    """Return the CPU cores that this process may use, at least 1: a quota of 2.5 cores counts as 2."""
    cpus = len(os.sched_getaffinity(0))
    by_slurm = _number(environment.get("SLURM_CPUS_ON_NODE", "")) or cpus
    return max(1, int(min(cpus, by_slurm, cgroup_cpus())))


def granted_memory(environment: Mapping[str, str] = os.environ) -> int:
    """Return the bytes of main memory that this process may use."""
    limits = [psutil.virtual_memory().total, cgroup_memory(), slurm_memory(environment)]
    return min(limit for limit in limits if limit is not None)


def slurm_memory(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the bytes that Slurm grants this job on this node; None where that is all of it, or Slurm is not here."""

    def number(name: str) -> int:
        return _number(environment.get(name, "")) or 0

    for each, count in (
        (number("SLURM_MEM_PER_NODE"), 1),
        (number("SLURM_MEM_PER_CPU"), number("SLURM_CPUS_ON_NODE")),
        (number("SLURM_MEM_PER_GPU"), number("SLURM_GPUS_ON_NODE") or number("SLURM_GPUS_PER_NODE")),
    ):
        if each * count:  # 0 is all of the node
            return each * count * _MEGABYTE
    return None


def cgroup_cpus(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the cores of the least quota of this process's cgroups, versions 1 and 2; infinity without any."""
    least = float("inf")
    for folder in _folders(own, root, "cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        numbers = _number(quota), _number(period)
        if numbers[0] and numbers[1]:
            least = min(least, numbers[0] / numbers[1])
    return least


def cgroup_memory(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes of the least limit of this process's cgroups; None without any."""
    found = []
    for folder in _folders(own, root, "memory"):
        limits = (_read(folder / "memory.max"), _read(folder / "memory.high"), _read(folder / "memory.limit_in_bytes"))
        found += [number for limit in limits if (number := _number(limit))]
    return min(found, default=None)


def _folders(own: Path, root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and of all above it; in a container the root may stand for its own."""
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        mounts = [root / "unified", root] if not names else [root / names, root / controller]
        for mount in mounts:
            folder = mount / path.strip("/")
            while True:
                yield folder
                if folder == mount:
                    break
                folder = folder.parent


def _number(text: str) -> int | None:
    """Return a number in ASCII digits, of at most 20; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # no such limit in this version
        return ""
