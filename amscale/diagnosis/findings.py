"""Judge facts of machines: what is wrong, and how to mend it."""

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import log2
from statistics import median_low
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
_LEAST_MEMORY = 2 << 30
_MAIN_PACKAGES = ("torch", "deepspeed", "ray", "amscale")


def of_machine(facts: Facts) -> list[Finding]:
    """Return the findings on one machine by itself."""
    return [
        Finding(name, facts["host"], not mend, says, mend)
        for name, check in _CHECKS.items()
        for says, mend in check(facts)
    ]


def of_all(machines: list[Facts]) -> list[Finding]:
    """Return the findings on machines beside each other."""
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
        numbers = machines[0]["packages"]
        said = ", ".join(f"{name} {numbers[name]}" for name in _MAIN_PACKAGES)
        found.append(Finding("versions", "all", True, f"Python {machines[0]['python']}, {said}"))
    times = {facts["host"]: facts["storage"]["latency"] for facts in machines if "latency" in facts["storage"]}
    if times:
        slowest = max(times, key=lambda host: times[host])
        said = f"{1e3 * times[slowest]:.0f} ms for a small file" + (
            f" on {slowest}, the slowest" if len(times) > 1 else ""
        )
        found.append(Finding("storage", "all", True, said))
    kinds = {facts["host"]: _gpu_names(facts["gpus"]) for facts in machines if not facts["gpu_trouble"]}
    if len(set(kinds.values())) > 1:
        said = "; ".join(f"{host}: {names or 'none'}" for host, names in kinds.items())
        found.append(Finding("GPUs alike", "all", False, said, "give a trial machines with the same cards"))
    return found


def of_meeting(met: dict[str, dict[str, Any]]) -> list[Finding]:
    """Return the findings on how machines met (`amscale.diagnosis.meeting`), by the name of each."""
    found = []
    for host, others in met.items():
        if others["unreached"]:
            mend = "open all TCP ports from 1024 between the machines, and look at their routes and interfaces"
            found.append(Finding("network", host, False, f"does not reach {', '.join(others['unreached'])}", mend))
    if len(met) > 1 and not found:
        found.append(Finding("network", "all", True, "each machine reaches the others"))
    for host, others in met.items():
        if others["unseen"]:
            said = f"does not see what {', '.join(others['unseen'])} wrote"
            mend = "give storage a folder that all machines share, or a URI such as s3://bucket/prefix"
            found.append(Finding("shared storage", host, False, said, mend))
    if len(met) > 1 and not any(others["unseen"] for others in met.values()):
        found.append(Finding("shared storage", "all", True, "each machine sees what the others wrote"))
    found += _clocks(met)
    return found


def of_collectives(measured: dict[str, dict[str, Any]]) -> list[Finding]:
    """Return the findings on an all-reduce (`amscale.diagnosis.collectives`), as each machine measured it."""
    first = next(iter(measured.values()))
    found = []
    within = {host: answer["within"]["bytes_per_second"] for host, answer in measured.items() if "within" in answer}
    if within:
        slowest = min(within, key=lambda host: within[host])
        said = f"{_speed(within[slowest])} by {first['backend']}"
        if len(within) > 1:
            said += f" on {slowest}, the slowest; {_speed(max(within.values()))} on the fastest"
        found.append(_sums("all-reduce within", measured, "within", said))
    if "across" in first:
        interfaces = "+".join(sorted({answer["interface"] for answer in measured.values()}))
        said = f"{_speed(first['across']['bytes_per_second'])} by {first['backend']} over {interfaces}"
        found.append(_sums("all-reduce across", measured, "across", said))
    return found


def _sums(check: str, measured: dict[str, dict[str, Any]], name: str, said: str) -> Finding:
    wrong = [host for host, answer in measured.items() if name in answer and not answer[name]["right"]]
    mend = f"the sum is wrong on {', '.join(wrong)}: test memory, cards and network there" if wrong else ""
    return Finding(check, "all", not wrong, said, mend)


def _speed(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:.2f} GB/s"


def _clocks(met: dict[str, dict[str, Any]]) -> list[Finding]:
    if not met:
        return []
    host, others = max(met.items(), key=lambda entry: len(entry[1]["ahead"]))
    ahead = {host: 0.0, **others["ahead"]}
    if len(ahead) < 2:
        return []
    usual = median_low(ahead.values())
    off = {name: seconds - usual for name, seconds in ahead.items() if abs(seconds - usual) > _MOST_SKEW}
    if not off:
        most = max(ahead.values()) - min(ahead.values())
        return [Finding("clocks", "all", True, "within a second" if most < 1 else f"within {most:.0f} s")]
    return [
        Finding("clocks", name, False, f"{abs(s):,.0f} s {'ahead' if s > 0 else 'behind'}", "run an NTP client there")
        for name, s in off.items()
    ]


def _gpu_names(gpus: list[dict[str, Any]]) -> str:
    names = Counter(gpu["name"] for gpu in gpus)
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items()))


Judged = Iterable[tuple[str, str]]
"""What was found, and what to do about it."""


def _open_files(facts: Facts) -> Judged:
    limit = facts["open_files"]
    mend = "ulimit -n 65536; for good by limits.conf, or LimitNOFILE of the service that starts processes here"
    if limit < 0:
        yield "unlimited", ""
    else:
        yield f"{limit:,} at a time", "" if limit >= _LEAST_OPEN_FILES else mend


def _shared_memory(facts: Facts) -> Judged:
    free = facts["shared_memory"]
    mend = "docker run --shm-size=8g; Kubernetes: an emptyDir of medium Memory at /dev/shm"
    if free is None:
        yield "/dev/shm is missing", mend
    elif free < _LEAST_SHARED_MEMORY:
        yield f"{free / 2**20:,.0f} MiB free", f"remove what fills /dev/shm, or enlarge it: {mend}"
    else:
        yield _at_least(free), ""


def _disk(facts: Facts) -> Judged:
    for name, free in (("temporary folder", facts["temporary"]), ("storage", facts["storage"].get("free"))):
        if free is not None and free < _LEAST_DISK:
            yield f"{name}: {_size(free)} free", f"free space there, or set {_disk_settings[name]}"
        elif free is not None:
            yield f"{name}: {_at_least(free)}", ""


_disk_settings = {"temporary folder": "TMPDIR", "storage": "storage"}


def _storage(facts: Facts) -> Judged:
    found = facts["storage"]
    if "error" in found:
        yield found["error"], "give storage a folder or URI that every machine may write"
    elif found["latency"] > _MOST_LATENCY:
        said = f"written and read in {found['latency']:.1f} s"
        yield said, "give storage a faster disk: every checkpoint waits for it"
    else:
        yield "written and read", ""


def _gpus(facts: Facts) -> Judged:
    gpus, torch = facts["gpus"], facts.get("torch", {})
    if facts["gpu_trouble"]:
        yield facts["gpu_trouble"], "mend the driver, or reboot the machine; launch.device=cpu trains without GPUs"
        return
    if not gpus:
        yield facts["gpu_note"] or "none", ""
        return
    memory = sorted({gpu["memory"] for gpu in gpus if gpu["memory"]})
    said = _gpu_names(gpus) + "".join(f", {size / 1e9:.0f} GB each" for size in memory[:1])
    said += f", driver {facts['driver']}" if facts["driver"] else ""
    if "error" in torch:
        yield f"{said}; torch: {torch['error']}", "install a torch for this driver"
    elif torch["devices"] < len(gpus):
        built = f"CUDA {torch['cuda']}" if torch["cuda"] else "CPUs alone"
        yield f"{said}; torch, built for {built}, sees {torch['devices']}", "install a torch for this driver"
    else:
        bf16 = "bf16" if all(gpu["bf16"] for gpu in gpus) else "no bf16 (older than Ampere): trials use fp32"
        yield f"{said}, CUDA {torch['cuda']}, {bf16}", ""


def _limits(facts: Facts) -> Judged:
    cores, granted, quota = facts["cores"], facts["granted_cpus"], facts["quota"]
    memory, most = facts["granted_memory"], facts["memory"]
    said = f"{granted} of {cores} CPU cores" if granted < cores else f"{cores} CPU cores"
    said += f", {_size(memory)} of {_size(most)} memory" if memory < most else f", {_size(memory)} memory"
    mend = []
    if quota is not None and quota < 1:
        said = f"{quota:g} of {said.partition(' of ')[2] or said}"
        mend.append("a quota of at least one CPU core for each process")
    if memory < _LEAST_MEMORY:
        mend.append(f"at least {_size(_LEAST_MEMORY)}: Ray and one process need that much")
    yield said, f"give the container or the job {', and '.join(mend)}" if mend else ""


def _accelerate(facts: Facts) -> Judged:
    file = facts["accelerate_config"]
    yield f"{file}: not read, trials have their own" if file else "none", ""


def _proxies(facts: Facts) -> Judged:
    found = facts["proxies"]
    used = sorted(name for name in found if name not in ("no_proxy", "no_grpc_proxy"))
    if not used:
        yield "none", ""
        return
    spared = [part.strip() for part in f"{found.get('no_proxy', '')},{found.get('no_grpc_proxy', '')}".split(",")]
    needed = ["localhost", "127.0.0.1", *facts.get("peers", ()), facts.get("address", "127.0.0.1")]
    lacking = [name for name in dict.fromkeys(needed) if not any(_spares(part, name) for part in spared)]
    mend = f"export no_proxy={','.join([*filter(None, spared), *lacking])}: Ray asks the proxy for its own machines"
    yield ", ".join(used), mend if lacking else ""


def _spares(part: str, name: str) -> bool:
    if part == "*" or part == name or (part and name.endswith(f".{part.lstrip('.')}")):
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
        yield f"free ones on {facts['interface']}", ""


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


def _at_least(free: float) -> str:
    """Say how much is free in powers of two, so that machines that are alike say the same."""
    return f"{2 ** int(log2(free / 2**30)):,} GiB or more free" if free >= 2**30 else f"{free / 2**20:,.0f} MiB free"


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"
