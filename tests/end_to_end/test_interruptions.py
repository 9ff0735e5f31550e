"""A sweep that is interrupted or killed: nothing is left running, nothing is lost, nothing is run twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers.commands import command, environment, processes_naming, ranks_of, recorded_losses, wait_until
from helpers.devices import on_gpu

from amscale.trials.attempt import ATTEMPT_MARK
from amscale.trials.lease import KEY
from amscale.trials.objects import ObjectStore
from amscale.trials.trial_store import TrialStore

pytestmark = [pytest.mark.slow]

PATIENCE = 600
"""Seconds after which something hangs; on a free machine each of these waits takes a few."""
ONE = (
    "model.size=6.6k",
    "data.size=8k",
    "launch.checkpoint_every=20",
    "train.steps=240",
    "train.validate_every=40",
    "train.warmup=0",
)
LONG = (*ONE, "train.steps=20k")


@pytest.fixture(scope="module")
def undisturbed(tiny, tmp_path_factory) -> Path:
    """The storage of a sweep of two trials that nothing happened to: one of them learns, the other diverges."""
    storage = tmp_path_factory.mktemp("undisturbed")
    ran = command("sweep", str(tiny), f"storage={storage}", *ONE, "grid.train.learning_rate=[1e-2,1e30]")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return storage


@pytest.fixture(scope="module")
def calm(undisturbed) -> Path:
    """The folder of the trial that learns."""
    return next(path for path in undisturbed.glob("tiny/trials/*") if result_of(path)["state"] == "finished")


@pytest.fixture
def storage(undisturbed, calm, tmp_path) -> Path:
    """A copy of the storage, with the trial that learns alone."""
    shutil.copytree(undisturbed, tmp_path / "storage")
    for path in (tmp_path / "storage" / "tiny" / "trials").iterdir():
        if path.name != calm.name:
            shutil.rmtree(path)
    return tmp_path / "storage"


def result_of(trial: Path) -> dict:
    return json.loads((trial / "result.json").read_text())


def checkpoints(trial: Path) -> list[Path]:
    return sorted((trial / "checkpoints").glob("step_*[0-9]"))


def test_a_loss_that_is_not_finite_is_recorded_as_diverged(undisturbed):
    trials = sorted(undisturbed.glob("tiny/trials/*"), key=lambda path: result_of(path)["state"])
    assert [result_of(path)["state"] for path in trials] == ["diverged", "finished"]
    diverged = trials[0]
    assert "the training loss of step" in result_of(diverged)["reason"]
    assert not (diverged / "failures.jsonl").exists()
    assert f"{diverged.name}: diverged" in (undisturbed / "tiny" / "fit.json").read_text()


@pytest.mark.parametrize(("device", "stage"), [("cpu", "auto"), *(on_gpu("cuda", stage) for stage in (1, 2, 3))])
def test_preempted_then_killed_and_resumed_gives_the_losses_of_an_undisturbed_run(
    device, stage, tiny, tmp_path, start_sweep, request
):
    """SIGUSR1 to a rank: it writes a checkpoint, ends, and goes on; SIGKILL: it goes on from its newest whole one.

    On a GPU in bf16. Its attention adds up in no fixed order from a second block of keys on; these sequences have one.
    """
    settings = [*ONE, f"launch.device={device}", f"launch.zero_stage={stage}"]
    if device == "cpu":
        calm = request.getfixturevalue("calm")
    else:
        ran = command("sweep", str(tiny), f"storage={tmp_path / 'calm'}", *settings)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        (calm,) = tmp_path.glob("calm/tiny/trials/*")
        engine = result_of(calm)["engine"]
        assert (engine["precision"], engine["zero_stage"], engine["device"][:4]) == ("bf16", stage, "cuda")
    driver = start_sweep(tmp_path / "tiny", str(tiny), f"storage={tmp_path}", *settings, "launch.keep_checkpoints=3")
    trial = driver.folder / "trials" / calm.name
    wait_until(lambda: checkpoints(trial), PATIENCE, "a checkpoint")
    (rank,) = ranks_of(driver.folder)
    rank.send_signal(signal.SIGUSR1)
    wait_until(lambda: ranks_of(driver.folder) not in ([], [rank]), PATIENCE, "another attempt")
    wait_until(lambda: len(checkpoints(trial)) == 3, PATIENCE, "more checkpoints")
    (rank,) = ranks_of(driver.folder)
    rank.kill()
    newest = checkpoints(trial)[-1]
    damaged = next(newest.rglob("*model_states.pt"))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert driver.process.wait(timeout=PATIENCE) == 0
    assert len((trial / "failures.jsonl").read_text().splitlines()) == 1  # a preemption is no failure
    log = (trial / "log.txt").read_text()
    assert f"{newest.name} is damaged" in log
    preempted, killed, finished = log.split(ATTEMPT_MARK)[1:]
    # Nothing is added where ranks ended as they should.
    assert preempted.splitlines()[-1].startswith("preempted at step ")
    assert "rank 0 was ended by signal 9" in killed
    assert finished.splitlines()[-1] == "finished at step 240"
    assert recorded_losses(trial) == recorded_losses(calm)
    assert not processes_naming(driver.folder)
    measured = result_of(trial)["time"]["checkpoint_seconds"]
    assert float((trial / "grace").read_text()) > 10 + 2 * measured > 10


def test_control_c_leaves_nothing_and_the_same_command_continues(tiny, calm, storage, start_sweep):
    arguments = (str(tiny), f"storage={storage}", *ONE, "seed=[0,1,2]", "launch.concurrent_trials=1")
    driver = start_sweep(storage / "tiny", *arguments)
    trials = driver.folder / "trials"
    # One trial at a time, so one is done and another trains.
    wait_until(lambda: len(list(trials.glob("*/result.json"))) == 2, PATIENCE, "a finished trial")
    wait_until(lambda: len(list(trials.glob("*/metrics.jsonl"))) == 3, PATIENCE, "a trial that trains")
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(timeout=PATIENCE) == 128 + signal.SIGINT
    wait_until(lambda: not processes_naming(storage), PATIENCE, "an end of every process")
    before = {path: path.read_bytes() for path in trials.glob("*/result.json")}
    assert len(before) == 2
    assert before[trials / calm.name / "result.json"] == (calm / "result.json").read_bytes()
    again = command("sweep", *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count(": starting") == 1
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(trials.glob("*/result.json"))) == 3


def test_a_driver_in_the_background_of_a_script_ends_in_order_when_another_takes_its_sweep(tiny, tmp_path):
    """Such a job ignores Ctrl-C, and a driver of a sweep in an object store holds no lock."""
    objects, log = ObjectStore(f"file://{tmp_path}/objects"), tmp_path / "sweep.log"
    settings = (f"storage={objects.uri}", f"launch.scratch={tmp_path}/scratch", *LONG, "launch.checkpoint_every=1M")
    script = f'"$@" >{log} 2>&1 & wait $!; echo $? >{tmp_path}/status'
    sweep = [sys.executable, "-m", "amscale.sweep", str(tiny), *settings, "launch.grace=600"]
    shell = subprocess.Popen(["sh", "-c", script, "sh", *sweep], env=environment(), start_new_session=True)
    try:
        found = (tmp_path / "scratch").rglob
        wait_until(lambda: shell.poll() is not None or any(found("metrics.jsonl")), PATIENCE, "a trial that trains")
        assert shell.poll() is None, log.read_text()
        other = json.dumps({"host": "elsewhere", "process": 7}).encode()
        objects.at("tiny").write(KEY, other)
        shell.wait(timeout=PATIENCE)
        assert (tmp_path / "status").read_text() == "2\n", log.read_text()
        assert log.read_text().splitlines()[-1] == (
            f"sweep: {objects.uri}/tiny: another driver has taken this sweep; this one ends"
        )
        wait_until(lambda: not processes_naming(tmp_path), PATIENCE, "an end of every process")
        assert objects.at("tiny").read(KEY) == other  # the other driver's
        assert any("checkpoints/" in key for key in objects.at("tiny", "trials").entries())  # written at the end alone
    finally:
        for process in processes_naming(tmp_path):
            process.kill()
        shell.wait()


def test_a_trial_that_fails_is_named_with_its_reason(tiny, calm, storage):
    """A file is where a folder must be made: every attempt fails, the sweep says why and exits with 1."""
    trial = storage / "tiny" / "trials" / calm.name
    (trial / "result.json").unlink()
    shutil.rmtree(trial / "tb")
    (trial / "tb").write_text("in the way")
    ran = command("sweep", str(tiny), f"storage={storage}", *ONE, "launch.retries=1")
    assert ran.returncode == 1
    assert ran.stdout.count("failed, starting again") == 1
    assert "FileExistsError" in ran.stdout
    assert "Failures:" not in ran.stdout  # the launcher's banner says nothing that a person needs
    assert not (trial / "result.json").exists()
    assert not processes_naming(storage)


def test_an_attempt_that_was_replaced_writes_nothing_more_and_a_killed_driver_leaves_nothing(
    tiny, tmp_path, start_sweep
):
    """Another attempt takes a trial, as after a lost host that still reaches the storage: the old one ends."""
    arguments = (str(tiny), f"storage={tmp_path}", *LONG, "seed=[0,1]", "launch.retries=0")
    driver = start_sweep(tmp_path / "tiny", *arguments)
    trials = driver.folder / "trials"
    wait_until(
        lambda: len({path.parts[-3] for path in trials.glob("*/checkpoints/step_*[0-9]")}) == 2,
        PATIENCE,
        "checkpoints of both trials",
    )
    path, other = sorted(trials.iterdir())
    (rank,) = ranks_of(path)
    store = TrialStore(path)
    store.begin_attempt(store.read_spec().placement)
    wait_until(
        lambda: not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE, PATIENCE, "an end of the old rank"
    )
    newest, lines = checkpoints(path)[-1].name, (path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] < 20_000
    said = tmp_path / "sweep.log"
    wait_until(lambda: "a newer one has taken its place" in said.read_text(), PATIENCE, "the reason")
    # The other trial goes on, and the sweep is its driver's.
    second = command("sweep", *arguments)
    assert second.returncode == 2
    assert f"process {driver.process.pid}" in second.stderr
    assert ranks_of(other)
    os.kill(driver.process.pid, signal.SIGKILL)
    wait_until(lambda: not processes_naming(tmp_path), PATIENCE, "an end of every process")
    assert checkpoints(path)[-1].name == newest
    assert not (path / "result.json").exists()
    assert not (path / "failures.jsonl").exists()
