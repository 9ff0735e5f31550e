"""Run the real commands, and look at what they leave running."""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from amscale import cli
from amscale.cluster import supervisor
from amscale.cluster.cards import peak_flops

# What a script starts in the background ignores Ctrl-C, and so would the commands that the tests start there.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = """
name: tiny
grid: {model.size: [1.7k, 6.6k], data.size: [4k, 8k], seed: [0]}
model: {family: vanilla, layers: 2, dropout: 0.1}
data: {corpus: question_formation, documents: 2k, validation: 200}
train: {steps: 30, batch_tokens: 700, learning_rate: 1e-2, validate_every: 10, validation_tokens: 2000}
probes: {every: 20, sequences: 16}
"""


def environment() -> dict[str, str]:
    """Return the environment of a user's shell, without the settings of the test run."""
    return {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}


def command(
    name: str, *arguments: str, timeout: float = 600, interpreter: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `python -m amscale.<name>` to its end."""
    return subprocess.run(
        [sys.executable, *interpreter, "-m", f"amscale.{name}", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        check=False,
    )


def ended(function: Callable[..., Any], *arguments: str, name: str | None = None) -> int:
    """Run a command's function in this process as its command line does; return the exit status."""
    try:
        cli.run(function, list(arguments), name)
    except SystemExit as end:
        return int(end.code or 0)


def processes_naming(path: Path) -> list[psutil.Process]:
    """Return living processes whose command line names a path: the ranks, launchers and supervisors of its trials."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        arguments = " ".join(process.info["cmdline"] or [])
        if str(path) in arguments and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(process)
    return found


def ranks_of(folder: Path) -> list[psutil.Process]:
    """Return the rank processes of a sweep: neither launchers nor supervisors."""
    # The command line as it was listed: a process may end while it is being looked at.
    named = [(process, " ".join(process.info["cmdline"])) for process in processes_naming(folder)]
    others = ("accelerate", Path(supervisor.__file__).name)
    return [p for p, line in named if "amscale.train" in line and not any(word in line for word in others)]


def recorded_losses(trial: Path) -> list[tuple[str, int, float]]:
    """Return kind, step and loss of everything that training and validation recorded, bit for bit."""
    records = [json.loads(line) for line in (trial / "metrics.jsonl").read_text().splitlines()]
    return [(r["kind"], r["step"], r.get("loss")) for r in records if r["kind"] != "probe"]


def wait_until(condition, seconds: float, what: str) -> None:
    """Poll until a condition holds; fail with `what` if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@dataclass
class Driver:
    """A sweep that runs in the background."""

    process: subprocess.Popen[str]
    folder: Path

    def steps(self, label: str) -> int:
        """Steps that a trial has recorded."""
        path = self.folder / "trials" / label / "metrics.jsonl"
        return path.read_text().count('"kind": "train"') if path.is_file() else 0

    def end(self, number: int) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(timeout=600)


@dataclass(frozen=True)
class Finished:
    """A finished sweep and what its command printed."""

    folder: Path
    output: str
    storage: Path
    listeners: frozenset[tuple[str, str]]
    """Address and command line of every process of the sweep that listened for TCP."""
    temporary: tuple[str, ...]
    """Names that were left in the folder for temporary files."""

    def results(self) -> list[dict]:
        """Return the results of the trials."""
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("trials/*/result.json"))]


def check_results(results: list[dict], count: int, device: str, precision: str) -> None:
    """Check that so many trials have learnt something, each in one process under DeepSpeed on that device."""
    assert len(results) == count
    for result in results:
        assert result["state"] == "finished"
        engine = result["engine"]
        assert engine["distributed_type"] == "DEEPSPEED"
        assert engine["engine"] == "DeepSpeedEngine"
        assert engine["world_size"] == 1
        assert (engine["device"].partition(":")[0], engine["precision"]) == (device, precision)
        assert ("mfu" in result["flops"]) == (device == "cuda" and peak_flops(engine["device_name"]) is not None)
        assert 0 < result["flops"].get("mfu", 0.5) < 1
        assert result["data"]["tokens_seen"] > result["data"]["unique_tokens"] > 0
        assert result["losses"]["validation_least"] < 4.0


def is_loopback(address: str) -> bool:
    """Return whether an address is on loopback."""
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
