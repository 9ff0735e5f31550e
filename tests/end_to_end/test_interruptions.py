"""A sweep that is interrupted or killed: nothing is left running, nothing is lost, nothing is run twice."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
from helpers.commands import command, processes_naming, wait_until

from amscale.trials.store import TrialStore

ONE = ("model.size=6.6k", "data.size=8k", "launch.checkpoint_every=20", "train.steps=400", "train.validate_every=50")


@pytest.fixture(scope="module")
def calm(tiny, tmp_path_factory) -> Path:
    """The folder of the one trial that nothing happened to."""
    storage = tmp_path_factory.mktemp("calm")
    assert command("sweep", str(tiny), f"storage={storage}", *ONE).returncode == 0
    (trial,) = storage.glob("tiny/trials/*")
    return trial


def losses(path) -> list[tuple[str, int, float]]:
    """Everything that training recorded, bit for bit."""
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [(r["kind"], r["step"], r.get("loss")) for r in records if r["kind"] != "probe"]


def ranks_of(folder) -> list[psutil.Process]:
    """The rank processes of a sweep: neither launchers nor supervisors."""
    # The command line as it was listed: a process may end while it is being looked at.
    named = [(process, " ".join(process.info["cmdline"])) for process in processes_naming(folder)]
    others = ("accelerate", "supervisor.py")
    return [p for p, line in named if "amscale.train" in line and not any(words in line for words in others)]


def test_killed_and_resumed_is_never_killed(tiny, calm, tmp_path, start_sweep):
    """SIGKILL of a rank in mid-run; the sweep starts the trial again from its newest checkpoint."""
    driver = start_sweep(tmp_path / "tiny", str(tiny), f"storage={tmp_path}", *ONE)
    trial = driver.folder / "trials" / calm.name
    wait_until(lambda: any((trial / "checkpoints").glob("step_*[0-9]")), 60, "a checkpoint")
    (rank,) = ranks_of(driver.folder)
    rank.kill()
    assert driver.process.wait(timeout=120) == 0
    assert len((trial / "failures.jsonl").read_text().splitlines()) == 1
    assert losses(trial) == losses(calm)
    assert not processes_naming(driver.folder)


def test_a_rank_asked_to_end_is_continued_and_a_damaged_checkpoint_passed_over(tiny, calm, tmp_path, start_sweep):
    """SIGUSR1 to a rank: it writes a checkpoint, ends, and goes on; then the newest checkpoint is cut short."""
    driver = start_sweep(tmp_path / "tiny", str(tiny), f"storage={tmp_path}", *ONE, "launch.keep_checkpoints=3")
    trial = driver.folder / "trials" / calm.name
    wait_until(lambda: any((trial / "checkpoints").glob("step_*[0-9]")), 60, "a checkpoint")
    (rank,) = ranks_of(driver.folder)
    rank.send_signal(signal.SIGUSR1)
    wait_until(lambda: ranks_of(driver.folder) not in ([], [rank]), 60, "another start")
    wait_until(lambda: len(list((trial / "checkpoints").glob("step_*[0-9]"))) == 3, 60, "more checkpoints")
    (rank,) = ranks_of(driver.folder)
    rank.kill()
    newest = max((trial / "checkpoints").glob("step_*[0-9]"))
    damaged = next(newest.rglob("*model_states.pt"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert driver.process.wait(timeout=120) == 0
    assert len((trial / "failures.jsonl").read_text().splitlines()) == 1  # a request to end is no failure
    assert f"{newest.name} is damaged" in (trial / "log.txt").read_text()
    assert losses(trial) == losses(calm)


def test_control_c_leaves_nothing_and_the_same_command_continues(tiny, tmp_path, start_sweep):
    arguments = (str(tiny), f"storage={tmp_path}", "train.steps=300", "launch.checkpoint_every=50")
    driver = start_sweep(tmp_path / "tiny", *arguments)
    trials = driver.folder / "trials"
    wait_until(lambda: any(trials.glob("*/result.json")), 120, "a finished trial")
    finished = list(trials.glob("*/result.json"))
    began = time.monotonic()
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(timeout=30) == 128 + signal.SIGINT
    wait_until(lambda: not processes_naming(tmp_path), 10 - (time.monotonic() - began), "an end of every process")
    before = {path: path.read_bytes() for path in trials.glob("*/result.json")}
    assert set(finished) <= set(before)
    assert len(before) < 4
    again = command("sweep", *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count(": starting") == 4 - len(before)
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(trials.glob("*/result.json"))) == 4


def test_a_killed_driver_leaves_nothing(tiny, tmp_path, start_sweep):
    driver = start_sweep(tmp_path / "tiny", str(tiny), f"storage={tmp_path}", "train.steps=5000")
    wait_until(lambda: any((driver.folder / "trials").glob("*/metrics.jsonl")), 60, "a trial that trains")
    second = command("sweep", str(tiny), f"storage={tmp_path}", "train.steps=5000")
    assert second.returncode == 2
    assert f"process {driver.process.pid}" in second.stderr
    os.kill(driver.process.pid, signal.SIGKILL)
    wait_until(lambda: not processes_naming(tmp_path), 20, "an end of every process")


def test_a_loss_that_is_not_finite_is_recorded_as_diverged(tiny, tmp_path):
    cell = ("model.size=1.7k", "data.size=[4k]", "grid.train.learning_rate=[1e-2,1e30]", "train.warmup=0")
    ran = command("sweep", str(tiny), f"storage={tmp_path}", *cell)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    results = {path: json.loads(path.read_text()) for path in tmp_path.glob("tiny/trials/*/result.json")}
    assert sorted(result["state"] for result in results.values()) == ["diverged", "finished"]
    ((path, diverged),) = ((path, result) for path, result in results.items() if result["state"] == "diverged")
    assert "the training loss of step" in diverged["reason"]
    assert not path.with_name("failures.jsonl").exists()
    assert f"{diverged['label']}: diverged" in (tmp_path / "tiny" / "fit.json").read_text()


def test_a_trial_that_fails_is_named_with_its_reason(tiny, tmp_path):
    """A file is where a folder must be made: every attempt fails, the sweep says why and exits with 1."""
    cell = (str(tiny), f"storage={tmp_path}", "model.size=1.7k", "data.size=4k", "launch.retries=1")
    assert command("sweep", *cell).returncode == 0
    (result,) = tmp_path.glob("tiny/trials/*/result.json")
    result.unlink()
    shutil.rmtree(result.with_name("tb"))
    result.with_name("tb").write_text("in the way")
    ran = command("sweep", *cell)
    assert ran.returncode == 1
    assert ran.stdout.count("failed, starting again") == 1
    assert "FileExistsError" in ran.stdout
    assert "Failures:" not in ran.stdout  # the launcher's banner says nothing that a person needs
    assert not result.exists()
    assert not processes_naming(tmp_path)


def test_an_attempt_that_was_replaced_writes_nothing_more(tiny, tmp_path, start_sweep):
    """Another attempt takes the trial, as after a lost host that still reaches the storage: the old one ends."""
    arguments = (str(tiny), f"storage={tmp_path}", *ONE, "train.steps=5000", "launch.retries=0")
    driver = start_sweep(tmp_path / "tiny", *arguments)
    wait_until(lambda: any(tmp_path.glob("tiny/trials/*/checkpoints/step_*[0-9]")), 90, "a checkpoint")
    (path,) = (driver.folder / "trials").iterdir()
    (rank,) = ranks_of(driver.folder)
    store = TrialStore(path)
    store.begin_attempt(store.read_spec().placement)
    wait_until(lambda: not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE, 20, "an end of the old rank")
    newest, lines = max((path / "checkpoints").iterdir()).name, (path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] < 5000
    assert driver.process.wait(timeout=60) == 1
    assert max((path / "checkpoints").iterdir()).name == newest
    assert "a newer one has taken its place" in (tmp_path / "sweep.log").read_text()
    assert not (path / "result.json").exists()
    assert not (path / "failures.jsonl").exists()
    assert not processes_naming(tmp_path)
