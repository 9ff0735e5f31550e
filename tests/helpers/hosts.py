"""Separate hosts on one machine: a network namespace each, joined by a bridge, with a Ray node in each.

Needs root and iproute2. Everything made here is removed again; only processes started here are ended.
"""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from amscale.cluster.network import join_port
from helpers.commands import wait_until

NETWORK = "10.77.{}"
IPV6_NETWORK = "fd77:{}::"
HEAD_PORT = 6390
PROMPT = {
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
    "RAY_worker_niceness": "0",
}
"""Ray as docs/faults.md and docs/clusters.md advise: a lost node counts as such after about 20 s, and so does a lost
head; ranks run at the usual priority."""


def missing() -> str | None:
    """Why hosts cannot be made here, or None."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    if shutil.which("ip") is None:
        return "needs iproute2's ip"
    probe = f"amscale{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False)
    if made.returncode:
        return "network namespaces cannot be made here"
    subprocess.run(["ip", "netns", "delete", probe], check=False)
    return None


def ip(*arguments: str) -> None:
    """Run one `ip` command."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Host:
    """One host: its namespace, address and Ray node."""

    index: int
    namespace: str
    address: str
    link: str
    node: subprocess.Popen[bytes] | None = None

    def run(self, *command: str, **options) -> subprocess.Popen[bytes]:
        """Start a command on this host."""
        return subprocess.Popen(["ip", "netns", "exec", self.namespace, *command], **options)

    def cut_off(self) -> None:
        """Take the host off the network."""
        ip("link", "set", self.link, "down")

    def reconnect(self) -> None:
        """Put the host back on the network."""
        ip("link", "set", self.link, "up")

    def processes(self) -> list[psutil.Process]:
        """Living processes in this host's namespace."""
        identity = os.stat(f"/run/netns/{self.namespace}").st_ino
        found = []
        for process in psutil.process_iter():
            try:
                if os.stat(f"/proc/{process.pid}/ns/net").st_ino == identity and process.status() != "zombie":
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found

    def ray_processes(self, *names: str) -> list[psutil.Process]:
        """Living processes of this host's Ray node whose name or command holds one of the names."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                line = f"{process.name()} {' '.join(process.cmdline()[:3])}"
                if any(name in line for name in names):
                    found.append(process)
        return found

    def listeners(self) -> set[tuple[str, str]]:
        """Address and command of each process that listens for TCP here."""
        lines = self.run("ss", "-Htlnp", stdout=subprocess.PIPE, text=True).communicate()[0].splitlines()
        found = set()
        for line in lines:
            address = line.split()[3].rpartition(":")[0].strip("[]").partition("%")[0].replace("*", "::")
            for identity in re.findall(r"pid=(\d+)", line):
                with contextlib.suppress(psutil.Error):  # it ended while it was being looked at
                    found.add((address, " ".join(psutil.Process(int(identity)).cmdline())))
        return found

    def listening(self) -> set[int]:
        """TCP ports that something listens on here."""
        table = self.run("cat", "/proc/net/tcp", "/proc/net/tcp6", stdout=subprocess.PIPE, text=True).communicate()[0]
        rows = [line.split() for line in table.splitlines()]
        return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == "0A"}


@dataclass
class Hosts:
    """Some hosts with a Ray cluster over them."""

    hosts: list[Host]
    folder: Path
    environment: dict[str, str] = field(
        default_factory=lambda: {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), **PROMPT}
    )
    """What every Ray process of this cluster and its drivers must have: token authentication is on."""

    @property
    def address(self) -> str:
        """Address of the Ray cluster."""
        return join_port(self.hosts[0].address, HEAD_PORT)

    def start_ray(self, host: Host, cpus: int = 1, gpus: int = 0, path: str = "") -> None:
        """Start the Ray node of a host, with a folder of programs first on its PATH; the first host is the head."""
        role = ["--head", f"--port={HEAD_PORT}", "--include-dashboard=false"] if host.index == 1 else []
        role = role or [f"--address={self.address}"]
        log = self.folder / f"node{host.index}.log"
        begins = log.stat().st_size if log.exists() else 0
        host.node = host.run(
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            *role,
            f"--node-ip-address={host.address}",
            f"--num-cpus={cpus}",
            f"--num-gpus={gpus}",
            f"--temp-dir={self.folder}/ray{host.index}",
            "--disable-usage-stats",
            "--block",
            env={**os.environ, **self.environment, "PATH": f"{path}:{os.environ['PATH']}"},
            stdout=log.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if host.index == 1:  # the others ask the head; its log costs less to read than Ray itself
            started = b"Ray runtime started"
            wait_until(lambda: started in log.read_bytes()[begins:] or host.node.poll() is not None, 600, "a Ray head")

    def start_all(self, cpus: int = 1) -> None:
        """Start the Ray node of every host, and wait for all of them."""
        for host in self.hosts:
            self.start_ray(host, cpus)
        self.wait_for_nodes(len(self.hosts))

    def wait_for_nodes(self, count: int, seconds: float = 600) -> None:
        """Wait until that many Ray nodes are alive."""
        # Many looks in one interpreter: each start of Ray's own client costs seconds.
        script = f"import ray, time; ray.init(address={self.address!r}, log_to_driver=False, logging_level=50)\n"
        script += (
            f"for _ in range(100):\n  alive = sum(n['Alive'] for n in ray.nodes())\n  if alive == {count}: break\n"
        )
        script += "  time.sleep(0.2)\nprint(alive)"
        deadline = time.monotonic() + seconds
        while True:
            asked = subprocess.run(
                ["ip", "netns", "exec", self.hosts[0].namespace, sys.executable, "-c", script],
                capture_output=True,
                text=True,
                env={**os.environ, **self.environment},
                check=False,
            )
            if asked.stdout.strip().endswith(str(count)):
                return
            assert time.monotonic() < deadline, f"{count} Ray nodes: {asked.stdout}{asked.stderr[-2000:]}"
            time.sleep(0.5)


@contextmanager
def ray_hosts(count: int, cpus: int = 1, subnet: int = 0) -> Iterator[Hosts]:
    """That many hosts, each with its own address and a Ray node of `cpus` CPUs."""
    with hosts(count, subnet) as made:
        made.start_all(cpus)
        yield made


@contextmanager
def hosts(count: int, subnet: int = 0, ipv6: bool = False) -> Iterator[Hosts]:
    """That many hosts on one bridge, with nothing running on them; with IPv6 addresses and no others where asked."""
    tag = f"{os.getpid() % 10000}x{subnet}"
    bridge, network = f"b{tag}", IPV6_NETWORK.format(subnet) if ipv6 else f"{NETWORK.format(subnet)}."
    # Without `nodad` an address waits for a second for an answer of another host that has it.
    length = ["/64", "nodad"] if ipv6 else ["/24"]
    made: list[Host] = []
    folder = Path(tempfile.mkdtemp(prefix="hosts"))
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("address", "add", f"{network}254{length[0]}", "dev", bridge, *length[1:])
        ip("link", "set", bridge, "up")
        for index in range(1, count + 1):
            host = Host(index, f"n{index}-{tag}", f"{network}{index}", f"v{index}-{tag}")
            made.append(host)
            ip("netns", "add", host.namespace)
            ip("link", "add", host.link, "type", "veth", "peer", "name", "e0", "netns", host.namespace)
            ip("link", "set", host.link, "master", bridge, "up")
            ip("-n", host.namespace, "address", "add", f"{host.address}{length[0]}", "dev", "e0", *length[1:])
            ip("-n", host.namespace, "link", "set", "e0", "up")
            ip("-n", host.namespace, "link", "set", "lo", "up")
        yield Hosts(made, folder)
    finally:
        for host in made:
            for process in host.processes():
                process.send_signal(signal.SIGKILL)
        time.sleep(0.2)
        for host in made:
            subprocess.run(["ip", "netns", "delete", host.namespace], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", bridge], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
