"""Ownership of processes, ports, and the launch command, without a cluster."""

import itertools
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from helpers.commands import wait_until

from amscale.cluster.machine import SupervisedCommand, launch_command
from amscale.cluster.network import INTERFACE_VARIABLES, Port, interface_of, interface_variables, join_port, split_port
from amscale.folders import private_folder
from amscale.locks import FileLock, LockHeld
from amscale.trials.records import Placement

# A process that ignores SIGTERM, moves to a session of its own, and starts another that does the same.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid() if os.getpgrp() != os.getpid() else None
depth = int(sys.argv[1])
if depth:
    source = open(sys.argv[2]).read()
    subprocess.Popen([sys.executable, "-c", source, str(depth - 1), sys.argv[2]], start_new_session=True)
print("up", depth, flush=True)
time.sleep(600)
"""


@pytest.fixture
def stubborn(tmp_path):
    script = tmp_path / "stubborn.py"
    script.write_text(STUBBORN)
    yield [sys.executable, "-c", STUBBORN, "2", str(script)]
    for process in alive(tmp_path):
        process.kill()


def alive(path) -> list[psutil.Process]:
    return [
        p
        for p in psutil.process_iter(["cmdline", "status"])
        if str(path) in " ".join(p.info["cmdline"] or []) and p.info["status"] != "zombie" and p.pid != os.getpid()
    ]


def all_up(log) -> bool:
    """Whether all three stubborn processes have said so; the log's first line quotes their source."""
    return log.exists() and sum(line.startswith("up ") for line in log.read_text().splitlines()) == 3


def started(supervised: SupervisedCommand, command: list[str], folder) -> None:
    supervised.start(command, dict(os.environ), folder / "log.txt")
    wait_until(lambda: all_up(folder / "log.txt"), 600, "three processes")
    assert len(alive(folder)) >= 3


def test_stop_ends_even_what_ignores_it_and_left_its_session(stubborn, tmp_path):
    supervised = SupervisedCommand(0.5)
    started(supervised, stubborn, tmp_path)
    supervised.stop()
    assert not alive(tmp_path)


SLOW_TO_END = """
import pathlib, signal, subprocess, sys, time
folder = pathlib.Path(sys.argv[1])
def end(number, frame):
    time.sleep(2)
    (folder / "checkpoint").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
(folder / "up").touch()
signal.pause()
"""
LAUNCHER = """
import signal, subprocess, sys
rank = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]])
def end(number, frame):
    rank.kill()
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
rank.wait()
"""
"""torch's launcher kills its ranks like this, after 30 s."""


@pytest.mark.parametrize(
    ("grace", "measured", "written"), [(600.0, None, True), (0.1, "600", True), (0.1, None, False)]
)
def test_ranks_have_the_grace_that_they_measured_and_no_launcher_cuts_it_short(grace, measured, written, tmp_path):
    if measured:
        (tmp_path / "grace").write_text(measured)
    supervised = SupervisedCommand(grace)
    supervised.start(
        [sys.executable, "-c", LAUNCHER, SLOW_TO_END, str(tmp_path)], dict(os.environ), tmp_path / "log.txt"
    )
    wait_until((tmp_path / "up").exists, 600, "a process")
    supervised.stop()
    assert not alive(tmp_path)
    assert (tmp_path / "checkpoint").exists() == written


def test_an_owner_that_is_killed_takes_everything_along(stubborn, tmp_path):
    owner = f"""
import os, pathlib, sys, time
from amscale.cluster.machine import SupervisedCommand
supervised = SupervisedCommand(0.5)
supervised.start({stubborn!r}, dict(os.environ), pathlib.Path({str(tmp_path / "log.txt")!r}))
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", owner])
    wait_until(lambda: all_up(tmp_path / "log.txt"), 600, "three processes")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not alive(tmp_path), 600, "an end of every process")
    assert not alive(tmp_path)


def test_a_supervisor_that_is_killed_takes_the_command_along(tmp_path):
    supervised = SupervisedCommand(0.5)
    script = f"import time; open({str(tmp_path / 'up')!r}, 'w'); time.sleep(600)"
    supervised.start([sys.executable, "-c", script], dict(os.environ), tmp_path / "log.txt")
    wait_until((tmp_path / "up").exists, 600, "a process")
    (watcher,) = [p for p in alive(tmp_path) if "supervisor.py" in " ".join(p.info["cmdline"])]
    watcher.kill()
    wait_until(lambda: not alive(tmp_path), 600, "an end of every process")
    assert not alive(tmp_path)
    supervised.stop()


def test_the_exit_status_of_the_command_is_the_supervisors(tmp_path):
    supervised = SupervisedCommand(0.5)
    supervised.start([sys.executable, "-c", "raise SystemExit(7)"], dict(os.environ), tmp_path / "log.txt")
    wait_until(lambda: supervised.poll() is not None, 600, "an end of the command")
    assert supervised.poll() == 7
    supervised.stop()


def test_a_port_has_one_owner():
    ports = [Port("127.0.0.1") for _ in range(20)]
    assert len({port.number for port in ports}) == 20
    assert all(port.number < 32768 for port in ports)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports[0].number))
    for port in ports:
        port.release()


def test_the_interface_is_the_one_that_carries_the_address():
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(RuntimeError, match=r"203\.0\.113\.7"):
        interface_of("203.0.113.7")


def test_the_interface_that_a_site_names_is_kept():
    site = dict.fromkeys(INTERFACE_VARIABLES, "ib0")
    assert interface_variables("203.0.113.7", site) == {}
    with pytest.raises(RuntimeError, match="no network interface"):  # the one of gloo is looked for
        interface_variables("203.0.113.7", site | {"GLOO_SOCKET_IFNAME": ""})


def test_ranks_of_one_machine_meet_on_loopback_whatever_a_site_names():
    site = dict.fromkeys(INTERFACE_VARIABLES, "of-another-machine")
    assert interface_variables("127.0.0.1", site) == dict.fromkeys(INTERFACE_VARIABLES, "lo")


@pytest.mark.parametrize(("place", "address"), [("10.0.0.1:6379", "10.0.0.1"), ("[fd77::1]:6379", "fd77::1")])
def test_an_address_and_its_port_are_told_apart(place, address):
    assert split_port(place) == (address, 6379)
    assert join_port(address, 6379) == place


def test_the_port_of_a_job_is_kept_until_its_script_ends():
    """The helper once dropped its lock before the head had begun to listen: two jobs could take one port."""
    helper = subprocess.Popen(
        [sys.executable, "-m", "amscale.cluster.network", "here"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    number = int(helper.stdout.readline().rpartition(":")[2])
    lock = private_folder("amscale-ports", "/tmp") / str(number)
    with pytest.raises(LockHeld):
        FileLock(lock, mode=0o600)
    helper.stdin.close()
    assert helper.wait(timeout=600) == 0
    FileLock(lock, mode=0o600).release()


def test_nothing_in_the_launch_command_is_implied():
    placement = Placement(3, 2, 4, "cuda", 2, "bf16", 8, 1)
    command = launch_command(placement, ["spec.yaml"], rank=1, address="10.0.0.5", port=23456)
    pairs = dict(itertools.pairwise(command))
    assert pairs["--deepspeed_multinode_launcher"] == "standard"
    assert (pairs["--num_machines"], pairs["--num_processes"], pairs["--machine_rank"]) == ("3", "6", "1")
    assert (pairs["--main_process_ip"], pairs["--main_process_port"]) == ("10.0.0.5", "23456")
    assert pairs["--deepspeed_config_file"].endswith("zero2.json")
    assert os.path.isfile(pairs["--deepspeed_config_file"])
    assert pairs["--mixed_precision"] == "bf16"
    assert command[-3:] == ["--module", "amscale.train", "spec.yaml"]
