"""Trackers against their own local stores: MLflow's database, Trackio's folder, W&B's offline files."""

import json
import re
import sqlite3
from pathlib import Path

import pytest

from amscale import config
from amscale.errors import InputError
from amscale.trackers import TRACKERS, TrackedRun
from amscale.trackers.reporting import Reporting


def run(folder, step=0):
    settings = {"N": 12000, "D": 8000, "seed": 1, "train.learning_rate": 1e-3}
    return TrackedRun("0123456789ab", "vanilla-N12k-D8k-seed1-0123456789ab", "sweep", folder, settings, step)


def report_two_attempts(name, folder):
    """Report three steps of an attempt that is preempted, and those after its checkpoint at 2 by the next one."""
    first = Reporting([name], run(folder))
    for step in (1, 2, 3):
        first.log(step, {"loss/train": 4.0 - step})
    first.finish(None)
    second = Reporting([name], run(folder, 2))
    for step in (3, 4):
        second.log(step, {"loss/train": 4.0 - step, "energy/layer_00/mean": 2.5})
    second.finish({"state": "finished", "validation_least": 1.25})


@pytest.mark.slow
def test_mlflow_continues_the_run_of_a_trial(tmp_path, monkeypatch, capfd):
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    report_two_attempts("mlflow", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("sweep").experiment_id])
    assert (found.info.run_name, found.info.status) == (run(tmp_path).name, "FINISHED")
    assert found.data.params == {"N": "12000", "D": "8000", "seed": "1", "train.learning_rate": "0.001"}
    assert found.data.tags["amscale.validation_least"] == "1.25"
    steps = {point.step: point.value for point in client.get_metric_history(found.info.run_id, "loss/train")}
    assert steps == {1: 3.0, 2: 2.0, 3: 1.0, 4: 0.0}
    assert "report_to" not in capfd.readouterr().err


@pytest.mark.slow
def test_trackio_continues_the_run_of_a_trial(tmp_path, monkeypatch, capfd):
    pytest.importorskip("trackio", reason="trackio is not installed")
    for module in ("utils", "sqlite_storage"):
        monkeypatch.setattr(f"trackio.{module}.TRACKIO_DIR", tmp_path / "trackio")
    report_two_attempts("trackio", tmp_path)
    (path,) = (tmp_path / "trackio").glob("sweep*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step, id").fetchall()
        (settings,) = database.execute("SELECT config FROM configs").fetchone()
    assert {name for name, _, _ in rows} == {run(tmp_path).name}
    losses = {step: json.loads(values).get("loss/train") for _, step, values in rows}
    assert losses.pop(5) is None  # the outcome
    assert losses == {1: 3.0, 2: 2.0, 3: 1.0, 4: 0.0}
    assert json.loads(settings)["N"] == 12000
    assert "report_to" not in capfd.readouterr().err


@pytest.mark.slow
def test_wandb_writes_offline_files_of_one_run(tmp_path, monkeypatch, capfd):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    report_two_attempts("wandb", tmp_path)
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-0123456789ab.wandb"))
    assert len(files) == 2  # `wandb sync` sends both attempts to the run of that id
    text = b"".join(path.read_bytes() for path in files)
    for words in (b"vanilla-N12k-D8k-seed1-0123456789ab", b"sweep", b"train.learning_rate", b"loss/train", b"12000"):
        assert words in text
    assert "report_to" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_tracker_that_fails_is_left_alone(tmp_path, monkeypatch, capfd):
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://server")
    reporting = Reporting(["mlflow"], run(tmp_path))
    for step in range(1, 1000):
        reporting.log(step, {"loss/train": 1.0})
    reporting.finish({"state": "finished"})
    assert "report_to: mlflow fails, and gets no more of this trial" in capfd.readouterr().err


def test_unknown_trackers_are_named():
    quick = Path(__file__).parents[2] / "configs" / "grammar.yaml"
    with pytest.raises(InputError, match=r"no tracker 'wand'.*tensorboard, wandb, mlflow, trackio"):
        config.load(str(quick), ["report_to=[wand]"])


def test_the_tracker_of_the_docs(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "trackers.md").read_text(encoding="utf-8")
    (tmp_path / "csv_tracker.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1))
    metadata = tmp_path / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[amscale.trackers]\ncsv = csv_tracker:CsvTracker\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("amscale.trackers.TRACKERS", type(TRACKERS)(TRACKERS.group, {}))
    report_two_attempts("csv", tmp_path)
    lines = (tmp_path / "losses.csv").read_text().split()
    assert lines[0] == "0123456789ab,1,loss/train,3.0"
    assert len(lines) == 7
