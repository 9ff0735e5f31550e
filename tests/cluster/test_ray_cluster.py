"""The Ray cluster that a sweep starts on its machine: what it needs, what it leaves, and who notices when it dies."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from helpers.commands import TINY, wait_until

from amscale.cluster.ray_cluster import ray_cluster, variables
from amscale.cluster.ray_head import LocalHead
from amscale.errors import InputError
from amscale.folders import LONGEST_RAY_FOLDER, private_folder, ray_folder, set_cache_folders

USER = 54321
"""A user id without a passwd entry, as containers are given."""


@pytest.fixture
def open_folder():
    """A folder that any user reaches; those of pytest are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="open"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_the_head_of_a_local_sweep_is_killed(open_folder):
    """As a user without passwd entry and home folder, with a TMPDIR of 200 characters: it trains all the same."""
    long = open_folder / ("x" * 100) / ("y" * (199 - len(str(open_folder)) - 102))
    long.mkdir(parents=True)
    (open_folder / "tiny.yaml").write_text(TINY)
    for path in (open_folder, long):
        os.chown(path, USER, USER)
    # Python itself may lie below a folder of root's: this user may read everything, and write only what is its own.
    rights = [f"--{kind}-caps=-all,+dac_read_search" for kind in ("inh", "ambient")]
    as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *rights]
    variables = {
        "HOME": "/",
        "TMPDIR": str(long),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH"),
    }
    settings = ["model.size=1.7k", "data.size=4k", "train.steps=3000", f"storage={open_folder / 'results'}"]
    output = open_folder / "output.txt"
    driver = subprocess.Popen(
        [*as_user, sys.executable, "-m", "amscale.sweep", str(open_folder / "tiny.yaml"), *settings],
        cwd=open_folder,
        env={name: value for name, value in variables.items() if value is not None},
        stdout=output.open("w"),
        stderr=subprocess.STDOUT,
    )
    records = "results/tiny/trials/*/metrics.jsonl"
    wait_until(lambda: driver.poll() is not None or any(open_folder.glob(records)), 600, "a step")
    assert driver.poll() is None, output.read_text()
    (head,) = (p for p in psutil.Process(driver.pid).children() if p.name() == "gcs_server")
    head.kill()
    assert driver.wait(timeout=600) == 1, output.read_text()
    first, *_, last = output.read_text().splitlines()
    assert first == f"HOME=/ cannot be written: caches of libraries go to {long}/amscale-home-{USER}"
    assert last.startswith(f"the local Ray cluster is gone: its head (gcs_server, process {head.pid}) has ended")
    wait_until(lambda: not processes_of(USER), 600, "an end of every process")
    assert {path.name for path in Path("/tmp").iterdir() if owner(path) == USER} - {open_folder.name} == {
        f"amscale-ports-{USER}"
    }
    shutil.rmtree(f"/tmp/amscale-ports-{USER}")
    # Ray Tune imports W&B where it is installed, which makes two folders and removes them at an end in order only.
    left = {path.name for path in long.iterdir() if "wandb-" not in path.name}
    assert left == {f"amscale-home-{USER}"}


def processes_of(user: int) -> list[int]:
    """Return living processes of a user."""
    return [
        p.pid
        for p in psutil.process_iter(["uids", "status"])
        if p.info["uids"].real == user and p.info["status"] != "zombie"
    ]


def owner(path: Path) -> int | None:
    """Return the owner of a file, which may be gone already."""
    try:
        return path.lstat().st_uid
    except OSError:
        return None


@pytest.mark.slow
def test_a_local_cluster_runs_what_a_sweep_needs_and_no_more():
    code = """
import json, psutil, ray
from amscale.cluster.ray_cluster import ray_cluster
with ray_cluster(None, 2):
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    found = psutil.Process().children(recursive=True)
    print(json.dumps([" ".join(process.cmdline()) for process in found]))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    lines = json.loads(ran.stdout)
    assert any("gcs_server" in line for line in lines)
    assert not [line for line in lines if re.search(r"(/monitor|/log_monitor|/dashboard)\.py", line)]


def test_ray_that_is_not_up_in_time_is_one_line(monkeypatch):
    """Ray raises the bare class Exception where a busy machine took longer than its 30 s."""
    import ray

    def late(**_):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", late)
    with (
        pytest.raises(InputError, match=r"cannot be started .* timed out .* Run the same command"),
        ray_cluster(None, 1),
    ):
        pass


def test_a_head_is_gone_only_after_it_was_there():
    look = LocalHead()
    assert look() == ""
    head = subprocess.Popen(["sleep", "600"])
    look._process = psutil.Process(head.pid)
    assert look() == ""
    head.kill()
    wait_until(lambda: psutil.Process(head.pid).status() == "zombie", 600, "an end")
    assert f"process {head.pid}) has ended" in look()
    head.wait()


@pytest.mark.parametrize("given", ["", "/nonexistent", "/proc", "/tmp/" + "x" * 77, "short"])
def test_rays_folder_is_short_and_can_be_written(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if given.startswith("/tmp"):
        Path(given).mkdir(exist_ok=True)
    monkeypatch.setenv("TMPDIR", given)
    folder = ray_folder()
    try:
        assert folder.is_absolute()
        assert len(str(folder)) <= LONGEST_RAY_FOLDER
        assert os.access(folder, os.W_OK)
    finally:
        folder.rmdir()
        if given.startswith("/tmp"):
            Path(given).rmdir()


def test_a_shared_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own = private_folder("name")
    assert own.stat().st_mode & 0o777 == 0o700
    own.rmdir()
    own.symlink_to(tmp_path)
    with pytest.raises(InputError, match="is not a folder of this user"):
        private_folder("name")


def test_caches_go_elsewhere_only_where_the_home_folder_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    good = {"HOME": str(tmp_path), "PATH": "/bin"}
    assert set_cache_folders(good) == ""
    assert good == {"HOME": str(tmp_path), "PATH": "/bin"}
    for environment, words in (
        ({"HOME": "/nonexistent", "TRITON_HOME": "/own"}, "HOME=/nonexistent cannot be written"),
        ({}, "HOME is not set"),
    ):
        assert words in set_cache_folders(environment)
        assert environment["XDG_CACHE_HOME"].startswith(f"{tmp_path}/amscale-home-")
        assert environment["TRITON_HOME"] == (
            "/own" if environment["HOME"] == "/nonexistent" else f"{environment['HOME']}/triton"
        )


def test_variables_are_as_before_after_the_block(monkeypatch):
    monkeypatch.setenv("AMSCALE_A", "1")
    with variables({"AMSCALE_A": None, "AMSCALE_B": "2"}):
        assert "AMSCALE_A" not in os.environ
        assert os.environ["AMSCALE_B"] == "2"
    assert os.environ["AMSCALE_A"] == "1"
    assert "AMSCALE_B" not in os.environ


WAITING = """
import os, signal, sys
from amscale.cluster import listener, tune
from amscale.cluster.ray_cluster import ray_cluster
from amscale.errors import Preempted
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement

class Listener:
    def noted(self, label, note):
        print(label, note)
        os.kill(os.getpid(), signal.SIGTERM)
    def lost(self, reason):
        print(reason)

listener._WAITING_SECONDS = 2.0
location = TrialLocation(sys.argv[1], None, "sweep", "trial")
job = tune.Job("trial", location, Placement(1, 2, 1, "cpu", 0, "fp32", 1, 1), 1.0, 60.0)
with ray_cluster(None, cpus=1) as head:
    try:
        tune.run_jobs([job], Listener(), retries=0, concurrent=None, state=head.notes / "ray", head=head)
    except Preempted:
        print("asked to end")
"""


@pytest.mark.slow
def test_a_trial_that_waits_for_machines_says_so(tmp_path):
    """A home folder that can be written stays as it was: no token of Ray's is left in it."""
    (tmp_path / "home").mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", WAITING, str(tmp_path)],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        | {"HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.stdout.splitlines()[-2:] == [
        "trial has waited 2 s for 1 machine(s) with 2 CPU core(s) free on each: something else holds them, or a node "
        "has left the cluster",
        "asked to end",
    ], ran.stderr
    assert list((tmp_path / "home").rglob("*token*")) == []
