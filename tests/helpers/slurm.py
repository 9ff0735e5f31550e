"""A real Slurm on hosts of `hosts.py`: munged, slurmctld, and a slurmd in every network namespace.

Needs root, iproute2, and Debian's slurm-wlm and munge. Every daemon is this one's own (key, sockets, ports, folders),
and is ended by its process id.
"""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helpers import hosts as fleet
from helpers.hosts import Hosts

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")

CONFIGURATION = """
ClusterName=amscale
SlurmctldHost={controller}({address})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=8
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
JobRequeue=0
KillWait=5
SchedulerParameters=sched_interval=2,batch_sched_delay=0
MailProg=/bin/true
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP OverSubscribe=NO
"""


def missing() -> str | None:
    """Why Slurm cannot be started here, or None."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"needs Debian's slurm-wlm and munge ({', '.join(absent)} not found)" if absent else fleet.missing()


@dataclass
class Slurm:
    """A running Slurm."""

    hosts: Hosts
    folder: Path
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need to find this one."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def command(self, *words: str, **options) -> str:
        """Output of one of Slurm's commands."""
        environment = {**os.environ, **self.environment, **options.pop("env", {})}
        ran = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, **options)
        assert ran.returncode == 0, f"{words}: {ran.stdout}{ran.stderr}"
        return ran.stdout.strip()

    def submit(self, *words: str, **options) -> int:
        """Submit a batch job; returns its id."""
        return int(self.command("sbatch", "--parsable", *words, **options))

    def facts(self, job: int) -> dict[str, str]:
        """What `scontrol show job` says of a job."""
        said = self.command("scontrol", "show", "job", "--oneliner", str(job))
        return dict(word.split("=", 1) for word in said.split() if "=" in word)

    def wait(self, job: int, seconds: float) -> dict[str, str]:
        """Wait until a job has ended for good; returns what is said of it then."""
        deadline = time.monotonic() + seconds
        while True:
            facts = self.facts(job)
            if facts["JobState"] in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"):
                return facts
            assert time.monotonic() < deadline, f"job {job} has not ended after {seconds} s: {facts}"
            time.sleep(0.3)

    def start(self, *words: str, name: str) -> None:
        """Start a daemon, in the foreground, with its output in a file of that name."""
        with (self.folder / f"{name}.out").open("wb") as output:
            environment = {**os.environ, **self.environment}
            self.daemons.append(subprocess.Popen(words, stdout=output, stderr=output, env=environment))


@contextmanager
def slurm(count: int, cpus: int, subnet: int) -> Iterator[Slurm]:
    """A Slurm of that many hosts, with `cpus` CPUs each."""
    with fleet.hosts(count, subnet) as made:
        folder = made.folder
        folder.chmod(0o755)
        bed = Slurm(made, folder)
        try:
            _configure(bed, cpus, f"{fleet.NETWORK.format(subnet)}.254")
            socket_path = folder / "munge.socket"
            files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
            bed.start("munged", "--foreground", "--force", f"--socket={socket_path}", *files, name="munged")
            _until(socket_path.exists, "munged")
            bed.start("slurmctld", "-D", "-c", name="slurmctld")
            for host in made.hosts:
                # Not `ip netns exec`, which mounts a /sys of its own, without the cgroups that slurmd looks for.
                script = f"hostname {host.namespace}; exec slurmd -D -N {host.namespace} -b"
                namespace = f"--net=/run/netns/{host.namespace}"
                bed.start("nsenter", namespace, "unshare", "--uts", "sh", "-c", script, name=f"slurmd{host.index}")
            idle = ["idle"] * count
            _until(lambda: _answer(bed).split() == idle, "idle nodes", bed)
            yield bed
        finally:
            for daemon in reversed(bed.daemons):
                daemon.terminate()
            for daemon in bed.daemons:
                try:
                    daemon.wait(timeout=600)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


def _configure(bed: Slurm, cpus: int, address: str) -> None:
    (bed.folder / "state").mkdir()
    key = bed.folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    nodes = []
    for host in bed.hosts.hosts:
        (bed.folder / f"spool.{host.namespace}").mkdir()
        nodes.append(
            f"NodeName={host.namespace} NodeHostname={host.namespace} NodeAddr={host.address} "
            f"CPUs={cpus} RealMemory=2000 State=UNKNOWN"
        )
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    text = CONFIGURATION.format(
        controller=socket.gethostname().partition(".")[0],
        address=address,
        port=port,
        folder=bed.folder,
        nodes="\n".join(nodes),
    )
    (bed.folder / "slurm.conf").write_text(text)


def _answer(bed: Slurm) -> str:
    asked = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%t"],
        capture_output=True,
        text=True,
        env={**os.environ, **bed.environment},
        check=False,
    )
    return asked.stdout


def _until(condition, what: str, bed: Slurm | None = None, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        said = [f"{p.name}: {p.read_text()[-1500:]}" for p in bed.folder.glob("*.log")] if bed else []
        assert time.monotonic() < deadline, f"no {what} after {seconds} s\n" + "\n".join(said)
        time.sleep(0.2)
