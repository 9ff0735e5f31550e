"""Identity by content, atomic results, and folders that are not ours."""

import errno
import fcntl
import json
import os
import shutil

import pytest

from amscale import config
from amscale.cluster.resources import this_machine
from amscale.errors import InputError
from amscale.files import write_atomically
from amscale.planning.plan import plan_sweep
from amscale.training.metrics_writer import cut_after
from amscale.trials.identity import trial_id
from amscale.trials.metrics import TrainRecord
from amscale.trials.record import FORMAT
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

SHAPE = {"family": "vanilla", "layers": 2, "width": 16}


def cell(*overrides: str):
    return config.expand(config.load("grammar.yaml", ["model.size=25k", "data.size=8k", *overrides]))[0]


def test_identity_follows_what_determines_the_outcome():
    base = trial_id(cell(), SHAPE)
    for same in (
        "launch.machines=3",
        "launch.zero_stage=2",
        "launch.micro_batch=4",
        "name=other",
        "probes.every=7",
        "fit.count=total",
        "storage=elsewhere",
        "train.weight_decay=0",
        "data.lost_text=0.5",
        "model.count=non_embedding",
        "train.order=shuffled",
        "launch.share_trunk=false",
    ):
        assert trial_id(cell(same), SHAPE) == base, same
    others = {
        trial_id(cell(other), SHAPE)
        for other in ("seed=1", "train.steps=7", "data.size=9k", "data.split_seed=1", "launch.precision=bf16")
    }
    assert len(others | {base, trial_id(cell(), {**SHAPE, "width": 32})}) == 7


def test_identities_of_earlier_versions_are_those_of_a_shuffled_order():
    assert trial_id(cell(), SHAPE) == "7a1c92864957"
    assert trial_id(cell("train={epochs: 1, schedule: wsd}"), SHAPE) == "83d5677ab1af"
    wsd = "train={epochs: 1, schedule: wsd, warmup: 2"
    assert trial_id(cell(f"{wsd}, order: shuffled}}"), SHAPE) == "6650a26de92d"
    assert trial_id(cell(f"{wsd}}}"), SHAPE) == trial_id(cell(f"{wsd}, order: nested}}"), SHAPE) != "6650a26de92d"


def test_files_elsewhere_are_the_same_trial_and_changed_files_another(tmp_path):
    def identity(folder):
        data = {
            "corpus": "text",
            "files": [f"{folder}/*.txt"],
            "tokenizer": "byte",
            "document": "line",
            "validation": 1,
        }
        tree = {"name": "own", "grid": {"seed": [0]}, "model": {"family": "vanilla", "size": "25k"}, "data": data}
        experiment = config.parse(tree | {"train": {"steps": 5, "batch_tokens": 1000}})
        (trial,) = plan_sweep(experiment, tmp_path / "results", this_machine()).trials
        return trial.identity

    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "a.txt").write_text("one two\nthree four\n")
    (first / "b.txt").write_text("five six\nseven eight\n")
    before = identity(first)
    first.rename(second)
    assert identity(second) == before
    (second / "b.txt").write_text("five six\nseven nine!\n")
    assert identity(second) != before


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_foreign_and_future_folders_are_refused(tmp_path):
    experiment = config.load("grammar.yaml")
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(InputError, match="not a sweep folder"):
        SweepStore(tmp_path).create(experiment)
    future = tmp_path / "future"
    future.mkdir()
    (future / "sweep.yaml").write_text(f"format: {FORMAT + 1}\n")
    with pytest.raises(InputError, match="another version"):
        SweepStore(future).create(experiment)
    (tmp_path / "result.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(InputError, match="another version"):
        TrialStore(tmp_path).read_result()


def test_a_torn_last_line_is_passed_over_and_cut_on_resume(tmp_path):
    trial = TrialStore(tmp_path)
    whole = [json.dumps({"kind": "train", "step": step, "loss": 1.0}) + "\n" for step in (1, 2, 3)]
    trial.metrics.write_text("".join(whole) + '{"kind": "train", "st')
    assert [record.step for record in trial.read_metrics(TrainRecord)] == [1, 2, 3]
    cut_after(trial.metrics, 3)
    assert trial.metrics.read_text() == "".join(whole)
    cut_after(trial.metrics, 1)
    assert trial.metrics.read_text() == whole[0]


def test_one_driver_at_a_time(tmp_path):
    folder = SweepStore(tmp_path / "sweep")
    with folder.owned(), pytest.raises(InputError, match=f"process {os.getpid()}"), SweepStore(folder.path).owned():
        pytest.fail("two drivers hold one folder")
    with folder.owned():
        assert folder.path.is_dir()


def test_a_driver_that_wrote_nothing_leaves_no_folder(tmp_path):
    sweep = SweepStore(tmp_path / "results" / "sweep")
    with pytest.raises(InputError, match="refused"), sweep.owned():
        raise InputError("refused")
    assert list(tmp_path.iterdir()) == []
    sweep.path.mkdir(parents=True)
    with sweep.owned():
        pass
    assert list(sweep.path.iterdir()) == []  # the user's own folder stays
    with sweep.owned():
        sweep.create(config.load("grammar.yaml"))
    assert sorted(path.name for path in sweep.path.iterdir()) == [".driver", "sweep.yaml", "trials"]


def test_a_lock_whose_file_another_driver_removed_is_taken_anew(tmp_path, monkeypatch):
    """A driver that leaves nothing removes the file between the opening and the locking of the next one's."""
    sweep, flock = SweepStore(tmp_path / "sweep"), fcntl.flock

    def removed(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        shutil.rmtree(sweep.path)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", removed)
    with sweep.owned(), pytest.raises(InputError, match=f"process {os.getpid()}"), SweepStore(sweep.path).owned():
        pytest.fail("two drivers hold one folder")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_one_driver_at_a_time_on_a_disk_without_locks(number, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr("amscale.trials.lease._SETTLE_SECONDS", 0.0)
    folder = SweepStore(tmp_path / "a sweep")
    for _ in range(2):
        with folder.owned():
            folder.create(config.load("grammar.yaml"))
            with pytest.raises(InputError, match=f"process {os.getpid()}"), SweepStore(folder.path).owned():
                pytest.fail("two drivers hold one folder")
    assert sorted(path.name for path in folder.path.iterdir()) == ["sweep.yaml", "trials"]


def test_the_reason_is_what_the_rank_said_not_the_launcher(tmp_path):
    trial = TrialStore(tmp_path)
    trial.log.write_text(
        "=== start earlier\nan old error\n=== start now: command\nTraceback\nValueError: the cause\n"
        "E1124 torch/distributed/elastic/multiprocessing/api.py:1002] failed\nChildFailedError\n"
    )
    assert trial.reason() == "Traceback\nValueError: the cause"
