"""Judge facts of machines: what is wrong, and how to mend it."""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Facts = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """One check of one machine, or of all together."""

    check: str
    host: str
    """`all` for a comparison of machines."""
    ok: bool
    says: str
    """What was found."""
    mend: str = ""
    """What to do; empty where nothing is wrong."""


_LEAST_OPEN_FILES = 4096
_LEAST_SHARED_MEMORY = 256 << 20
_LEAST_DISK = 2 << 30
_MOST_LATENCY = 2.0
_MOST_SKEW = 5.0


def of_machine(facts: Facts) -> list[Finding]:
    """Return the findings on one machine by itself."""
    return [
        Finding(name, facts["host"], not mend, says, mend)
        for name, check in _CHECKS.items()
        for says, mend in check(facts)
    ]


def of_all(machines: list[Facts], skews: dict[str, float]) -> list[Finding]:
    """Return the findings on machines beside each other.

    Args:
        machines: facts of each.
        skews: seconds by which the clock of a host cannot be right, beside this machine's.
    """
    found = []
    versions = {"python": {facts["host"]: facts["python"] for facts in machines}}
    for facts in machines:
        for package, number in facts["packages"].items():
            versions.setdefault(package, {})[facts["host"]] = number or "missing"
    for package, by_host in versions.items():
        if len(set(by_host.values())) > 1:
            usual = Counter(by_host.values()).most_common(1)[0][0]
            others = ", ".join(f"{value} on {host}" for host, value in by_host.items() if value != usual)
            said = f"{package} {usual}, but {others}"
            found.append(Finding("versions", "all", False, said, "use one environment on all machines"))
    if not found:
        said = f"python {machines[0]['python']}, torch {machines[0]['packages']['torch']}"
        found.append(Finding("versions", "all", True, f"{said}, the same everywhere"))
    kinds = {facts["host"]: _gpu_names(facts["gpus"]) for facts in machines}
    if len(set(kinds.values())) > 1:
        said = "; ".join(f"{host}: {names or 'none'}" for host, names in kinds.items())
        found.append(Finding("GPUs alike", "all", False, said, "give a trial machines with the same cards"))
    late = {host: skew for host, skew in skews.items() if abs(skew) > _MOST_SKEW}
    said = ", ".join(f"{host} is off by {skew:+.0f} s" for host, skew in late.items()) or "agree"
    found.append(Finding("clocks", "all", not late, said, "run an NTP client on each machine" if late else ""))
    return found


def _gpu_names(gpus: Any) -> str:
    return ", ".join(sorted(gpu["name"] for gpu in gpus)) if isinstance(gpus, list) else ""


Judged = Iterable[tuple[str, str]]
"""What was found, and what to do about it."""


def _open_files(facts: Facts) -> Judged:
    limit = facts["open_files"]
    enough = limit < 0 or limit >= _LEAST_OPEN_FILES
    yield "unlimited" if limit < 0 else f"{limit:,}", "" if enough else "ulimit -n 65536 (limits.conf, or LimitNOFILE)"


def _shared_memory(facts: Facts) -> Judged:
    free = facts["shared_memory"]
    mend = "docker run --shm-size=8g; Kubernetes: an emptyDir of medium Memory at /dev/shm"
    if free is None:
        yield "/dev/shm is missing", mend
    else:
        yield f"{_size(free)} free", "" if free >= _LEAST_SHARED_MEMORY else f"remove what fills /dev/shm, or {mend}"


def _disk(facts: Facts) -> Judged:
    for name, free in (("temporary folder", facts["temporary"]), ("storage", facts["storage"].get("free"))):
        if free is not None:
            few = free < _LEAST_DISK
            yield f"{name} {_size(free)} free", f"free space there, or set {_disk_settings[name]}" if few else ""


_disk_settings = {"temporary folder": "TMPDIR", "storage": "storage"}


def _storage(facts: Facts) -> Judged:
    found = facts["storage"]
    if "error" in found:
        yield found["error"], "give storage a folder or URI that every machine may write"
        return
    said = f"written and read in {1e3 * found['latency']:.0f} ms; {found['seen']} of {found['machines']} machines seen"
    if found["seen"] < found["machines"]:
        yield said, "give storage a folder that all machines share, or a URI such as s3://bucket/prefix"
    else:
        yield said, "" if found["latency"] < _MOST_LATENCY else "use a faster disk: every checkpoint waits for it"


def _gpus(facts: Facts) -> Judged:
    gpus, torch = facts["gpus"], facts.get("torch")
    if isinstance(gpus, str):
        yield gpus, "mend the driver, or reboot the machine"
        return
    said = ", ".join(f"{gpu['name']} {gpu['memory.total']} driver {gpu['driver_version']}" for gpu in gpus) or "none"
    if torch is None:
        yield said, ""
    elif gpus and not torch["devices"]:
        built = f"CUDA {torch['cuda']}" if torch["cuda"] else "CPUs alone"
        yield (
            f"{said}; torch, built for {built}, sees none",
            "install a torch for this driver; see CUDA_VISIBLE_DEVICES",
        )
    else:
        bf16 = "" if not torch["devices"] else f"; CUDA {torch['cuda']}, bf16 {'yes' if torch['bf16'] else 'no'}"
        yield f"{said}{bf16}", ""


def _limits(facts: Facts) -> Judged:
    quota, limit = facts["cpu_quota"], facts["memory_limit"]
    said = f"{facts['cpus']} CPU cores, {_size(limit or facts['memory'])} memory"
    if quota is not None and quota < facts["cpus"] - 0.01:
        yield f"{said}; a quota of {quota:g} cores", f"give the container {facts['cpus']} cores, or pin it to {quota:g}"
    elif limit is not None and limit < facts["memory"]:
        yield f"{said}, of {_size(facts['memory'])} on the machine", ""
    else:
        yield said, ""


def _accelerate(facts: Facts) -> Judged:
    file = facts["accelerate_config"]
    yield f"{file}: passed over, trials are given their own" if file else "none", ""


def _proxies(facts: Facts) -> Judged:
    found = facts["proxies"]
    used = sorted(name for name in found if name not in ("no_proxy", "no_grpc_proxy"))
    if not used:
        yield "none", ""
        return
    spared = [part.strip() for part in f"{found.get('no_proxy', '')},{found.get('no_grpc_proxy', '')}".split(",")]
    needed = ["localhost", "127.0.0.1", facts.get("address", "127.0.0.1")]
    lacking = [name for name in dict.fromkeys(needed) if not any(_spares(part, name) for part in spared)]
    mend = f"export no_proxy={','.join([*filter(None, spared), *lacking])}: Ray asks the proxy for its own machines"
    yield ", ".join(used), mend if lacking else ""


def _spares(part: str, name: str) -> bool:
    if part == "*" or part == name:
        return True
    try:
        return ipaddress.ip_address(name) in ipaddress.ip_network(part, strict=False)
    except ValueError:
        return False


def _leftovers(facts: Facts) -> Judged:
    found = " ".join(map(str, facts["leftovers"]))
    yield f"processes {found}" if found else "none", f"kill {found}" if found else ""


def _ports(facts: Facts) -> Judged:
    if "network_error" in facts:
        yield facts["network_error"], "give addresses by which the machines reach each other"
    else:
        yield f"{facts['address']}:{facts['port']} is free", ""


_CHECKS: dict[str, Callable[[Facts], Judged]] = {
    "GPUs": _gpus,
    "CPU and memory": _limits,
    "storage": _storage,
    "disk": _disk,
    "/dev/shm": _shared_memory,
    "open files": _open_files,
    "ports": _ports,
    "accelerate config": _accelerate,
    "proxies": _proxies,
    "left over": _leftovers,
}


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"
