"""A sweep whose rows are packed, through the command: a rank that is killed, and a stop by SIGTERM."""

import signal
import subprocess
import sys

import pytest

from amscale.trials.metrics import TrainRecord
from amscale.trials.sweep_store import SweepStore
from tests.helpers.commands import command, environment, processes_naming, ranks_of, wait_until

pytestmark = pytest.mark.slow

CONFIG = """
name: rows
grid: {data.size: [4k, 8k, 16k], seed: [0, 1]}
model: {family: vanilla, layers: 2, size: 1.7k, dropout: 0.0}
data: {corpus: question_formation, documents: 2k, validation: 100}
train: {steps: 800, batch_tokens: 300, learning_rate: 1e-3, validate_every: 100, validation_tokens: 1000}
probes: {sequences: 0}
launch: {device: cpu, checkpoint_every: 20, pack: 3, grace: 60}
"""


def test_a_packed_sweep_survives_a_kill_and_a_stop(tmp_path):
    """The pack of the rank begins again; the sweep is stopped meanwhile, and continued with each trial alone."""
    config = tmp_path / "rows.yaml"
    config.write_text(CONFIG)
    arguments = [sys.executable, "-m", "amscale.sweep", str(config), f"storage={tmp_path}"]
    sweep = SweepStore(tmp_path / "rows")

    def checkpointed():
        trials = list(sweep.all_trials())
        return len(trials) == 6 and all(trial.checkpoint_names() or trial.done() for trial in trials)

    told = tmp_path / "told"
    with told.open("w") as file, subprocess.Popen(arguments, stdout=file, stderr=file, env=environment()) as driver:
        wait_until(checkpointed, 600, "a checkpoint of every trial")
        ranks = ranks_of(sweep.path)
        assert len(ranks) <= 2
        ranks[0].kill()
        # A sweep that is stopped between the failure and Tune's word of it would not say it.
        restarted = "failed, starting again: exit status 137"
        wait_until(lambda: told.read_text().count(restarted) == 3, 600, restarted)
        driver.send_signal(signal.SIGTERM)
        driver.wait(timeout=600)
    output = told.read_text()
    assert "6 trials of equal shapes are trained by 2 processes of 3, with stacked parameters" in output
    assert driver.returncode == 75, output
    assert not processes_naming(sweep.path)
    done = command("sweep", str(config), f"storage={tmp_path}", "launch.pack=off")
    assert done.returncode == 0, done.stdout + done.stderr
    for trial in sweep.all_trials():
        assert [record.step for record in trial.read_metrics(TrainRecord)] == list(range(1, 801))
        assert trial.read_result().state == "finished"
