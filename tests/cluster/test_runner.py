"""The runner of a trial, on machines whose ranks are small scripts: what follows when an attempt ends."""

import json
import os
import shutil
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from helpers.commands import wait_until

from amscale.cluster import run_machine, runner
from amscale.cluster.base_runner import Report, TrialFailed
from amscale.cluster.machine import Machine
from amscale.cluster.patience import Schedule
from amscale.cluster.runner import TrialRunner
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement, TrialSpec

pytestmark = pytest.mark.slow  # each test waits for polls of a second

PLACEMENT = Placement(1, 1, 1, "cpu", 0, "fp32", micro_batch=5, accumulation=1)
RECORD = json.dumps({"kind": "train", "step": 1, "loss": 1.0})
SLEEP = "sleep 600"


class ScriptedMachine(Machine):
    """A machine whose ranks are the next shell script in its list, run in the trial's folder."""

    scripts: tuple[str, ...] = ()
    launched = 0

    def launch(self, placement, attempt, head, port, address):
        script = f"cd {self.store.path}; {self.scripts[min(self.launched, len(self.scripts) - 1)]}"
        self.launched += 1
        self._command.start(["sh", "-c", script], dict(os.environ), self.store.log_of(self._index))


@pytest.fixture
def location(tmp_path) -> TrialLocation:
    location = TrialLocation(str(tmp_path), None, "sweep", "trial")
    store = location.store()
    store.path.mkdir(parents=True)
    spec = TrialSpec(format=1, trial="0" * 12, label="trial", placement=PLACEMENT, store="a", settings={})
    store.spec.write_text(spec.to_yaml())
    return location


def scripted(location: TrialLocation, *scripts: str, index: int = 0) -> ScriptedMachine:
    machine = ScriptedMachine(location, index, 1.0)
    machine.scripts = scripts
    return machine


@pytest.fixture
def run(location):
    """Start a runner on one machine whose attempts run the given scripts, one after the other."""
    started = []

    def start(*scripts: str, stalled_after: float = 60.0, hosts: int = 1, **options) -> TrialRunner:
        machines = run_machine.HostMachines(location, 1.0, ("127.0.0.1", 0))
        machines._own = scripted(location, *scripts)
        made = TrialRunner(location.store(), replace(PLACEMENT, machines=hosts), machines, stalled_after, **options)
        started.append(made)
        made.start()
        return made

    yield start
    for made in started:
        made.release()


def last(made: TrialRunner) -> Report:
    """Step to the last report."""
    deadline = time.monotonic() + 600
    while not (report := made.step()).done:
        assert time.monotonic() < deadline
    return report


def test_a_folder_that_is_removed_ends_the_trial(run, location):
    made = run(SLEEP)
    shutil.rmtree(location.store().path)
    assert (
        last(made).failure == f"{location.store().path}: removed while the trial ran; the same command begins it anew"
    )


def test_a_result_ends_the_trial(run):
    assert last(run("touch result.json")) == Report({"state": "starting"}, done=True)


def test_out_of_memory_halves_the_micro_batch_until_it_fits(run, location):
    no_memory = "echo too much > out_of_memory; exit 1"
    made = run(no_memory, no_memory, "touch result.json", name_attempt=iter(["a.0", "a.1", "a.2"]).__next__)
    notes = []
    while not (report := made.step()).done:
        notes += [report.note] if report.note else []
    assert report.failure is None
    assert [note.partition(" (")[0] for note in notes] == [
        "out of memory with a micro-batch of 5: goes on with 3 and 2 forward passes a step, the same global batch",
        "out of memory with a micro-batch of 3: goes on with 2 and 3 forward passes a step, the same global batch",
    ]
    store = location.store()
    assert [(entry.placement.micro_batch, entry.reason) for entry in store.out_of_memory()] == [
        (5, "too much"),
        (3, "too much"),
    ]
    placed = store.read_spec().placement
    assert (placed.micro_batch, placed.accumulation) == (2, 3)
    assert store.current_attempt() == "a.2"
    assert not store.failures()
    assert not store.out_of_memory_marker.exists()


def test_a_micro_batch_of_one_that_does_not_fit_is_final(run, location):
    report = last(run("echo too much > out_of_memory; exit 1"))
    assert report.failure.startswith("out of memory with a micro-batch of 1: give it more machines or processes")
    assert [entry.placement.micro_batch for entry in location.store().out_of_memory()] == [5, 3, 2, 1]
    assert len(location.store().failures()) == 1


def test_ranks_that_were_preempted_go_on(run, location):
    assert last(run("touch preempted; exit 75", "touch result.json")).failure is None
    assert not location.store().preempted.exists()
    assert not location.store().failures()


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("status", [0, 75])
def test_without_ray_preempted_ranks_end_the_trial_to_be_continued_later(status, hosts, run, location):
    """One of its hosts may have been asked to leave, and no other takes its place."""
    made = run(f"touch preempted; exit {status}", "touch result.json", resumes=False, hosts=hosts)
    report = last(made)
    assert (report.done, report.failure) == (True, None)
    assert location.store().preempted.exists()
    assert made.machines._own.launched == 1


def test_ranks_are_not_started_again_once_an_end_is_requested(run, location):
    made = run("touch preempted; exit 75", SLEEP, end_requested=location.store().preempted.exists)
    deadline = time.monotonic() + 600
    while not location.store().preempted.exists():
        made.step()
        assert time.monotonic() < deadline
    assert not made.step().done
    assert location.store().preempted.exists()
    assert made.machines._own.launched == 1


def test_a_refusal_is_final_and_comes_without_the_launchers_page(run, location):
    """A checkpoint of another number of ranks, say: another attempt would only repeat it."""
    made = run("echo '=== refused: give 2 processes'; echo 'E torch/distributed/elastic failed'; exit 2", SLEEP)
    assert last(made).failure == "give 2 processes"
    assert made.machines._own.launched == 1
    assert [failure.reason for failure in location.store().failures()] == ["give 2 processes"]


def test_a_remark_on_how_ranks_were_started_is_reported_once(run, monkeypatch):
    monkeypatch.setattr(run_machine.HostMachines, "remark", lambda machines: "started slowly")
    made = run(SLEEP)
    assert [made.step().note, made.step().note] == ["started slowly", None]


def test_a_full_disk_is_final(run):
    line = "storage full: /some/disk: No space left on device; free space and run the same command again"
    assert last(run(f"echo '{line}'; exit 1")).failure == line


def test_another_failure_has_its_reason(run, location):
    made = run("echo ValueError: shapes differ; exit 3")
    with pytest.raises(TrialFailed, match=r"^machine 0 exit status 3\nValueError: shapes differ$"):
        last(made)
    (failure,) = location.store().failures()
    assert failure.reason == "machine 0 exit status 3\nValueError: shapes differ"


def test_an_attempt_that_was_replaced_fails_without_a_record(run, location):
    made = run(SLEEP)
    location.store().begin_attempt(PLACEMENT)
    with pytest.raises(TrialFailed, match="a newer one has taken its place"):
        last(made)
    assert not location.store().failures()


def test_silence_is_longer_allowed_before_the_first_record(run, location, monkeypatch):
    made = run(SLEEP, stalled_after=0.1)
    assert not made.step().done  # longer than `stalled_after`
    monkeypatch.setattr(runner, "FIRST_RECORD_SECONDS", 0.0)
    with pytest.raises(TrialFailed, match=r"^no record for \d+ s \(launch\.stalled_after=0\.1\)"):
        made.step()
    monkeypatch.undo()
    made = run(f"echo '{RECORD}' >> metrics.jsonl; {SLEEP}", stalled_after=0.1)
    with pytest.raises(TrialFailed, match="no record for"):
        last(made)
    assert made.latest["step"] == 1


def test_a_hang_is_noticed_by_what_the_run_itself_has_shown(run, monkeypatch):
    monkeypatch.setattr("amscale.cluster.patience._FLOOR_SECONDS", 0.0)
    record = r"{\"kind\": \"train\", \"step\": $i, \"loss\": 1.0}"
    steps = f'for i in $(seq 40); do echo "{record}" >> metrics.jsonl; sleep 0.1; done'
    made = run(f"{steps}; {SLEEP}", stalled_after=10000.0, schedule=Schedule(1000, 500, 0, 500, stops_early=False))
    said = r"^no record for \d+ s \(learned from the intervals so far: \d+ s; at most launch\.stalled_after=10000\)"
    with pytest.raises(TrialFailed, match=said):
        last(made)
    assert made.latest["step"] == 40


def _is_whole(spec: Path) -> bool:
    return spec.exists() and spec.read_text().endswith("{}\n")


def test_another_machine_follows_from_attempt_to_attempt(location):
    """Over a list of hosts: the second machine joins what the first begins, and ends when no attempt follows."""
    second = scripted(location, f"cat spec.yaml > seen.1; {SLEEP}", "cat spec.yaml > seen.2; exit 1", index=1)
    statuses = []
    network = ("127.0.0.1", 0, "127.0.0.1")
    follow = threading.Thread(
        target=lambda: statuses.append(run_machine._follow(second, 1, network, "a", lambda: False, 60.0)), daemon=True
    )
    store = location.store()
    store.begin_attempt(PLACEMENT, "b.0")  # of an earlier run
    follow.start()
    for number, micro_batch in ((1, 5), (2, 3)):
        store.begin_attempt(replace(PLACEMENT, micro_batch=micro_batch), f"a.{number}")
        seen = store.path / f"seen.{number}"
        wait_until(partial(_is_whole, seen), 600, "a second machine that has joined")
        assert yaml.safe_load(seen.read_text())["placement"]["micro_batch"] == micro_batch
    store.end_attempt("a has ended")
    follow.join(60)
    assert statuses == [1]
