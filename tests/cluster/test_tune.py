"""Trials under Ray Tune: which failures end one, and which values of a tuned setting are stopped early."""

import os
from pathlib import Path

import pytest
from ray import tune

from amscale.cluster.ray_cluster import ray_cluster
from amscale.cluster.tune import Job, run_jobs
from amscale.cluster.tune_trial import TrainingTrial
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement

pytestmark = pytest.mark.slow

PLACEMENT = Placement(1, 1, 1, "cpu", 0, "fp32", micro_batch=1, accumulation=1)


class Failing(tune.Trainable):
    """A trial whose every attempt reports a checkpoint and fails, or whose process ends; the last one succeeds.

    The checkpoints of its attempts are the lines of a file by its label, and what is left of them is written back.
    """

    def setup(self, config):
        job = config["job"]
        self.file = Path(job["location"]["storage"]) / job["label"]
        self.attempt, *left = self.file.read_text().split()
        self.file.write_text("\n".join(left))
        self.reported = False

    def reset_config(self, new_config):
        self.setup(new_config)
        return True

    def step(self):
        if not self.reported:
            self.reported = True
            if "~" in self.attempt:  # halfway, with this least validation loss
                return {
                    "validation_loss": 9.9,
                    "validation_least": float(self.attempt.strip("~")),
                    "validation_step": 50,
                }
            return {"checkpoint": int(self.attempt.strip("!"))}
        if not self.file.read_text():
            return {"done": True}
        if self.attempt.endswith("!"):
            os._exit(1)
        raise RuntimeError("no reason")


class Noted(list):
    """A listener that keeps what it is told of ends."""

    def started(self, label):
        """Pass."""

    def progress(self, label, report):
        """Pass."""

    def ended(self, label):
        self.append((label, "ended"))

    def stopped(self, label, reason, report):
        self.append((label, f"stopped at {report['validation_least']}: {reason}"))

    def lost(self, reason):
        self.append((None, reason))

    def failed(self, label, reason, again):
        self.append((label, "again" if again else "failed"))


def test_an_actor_that_gets_no_steps_begins_no_attempt(tmp_path):
    """Tune may give a trial to another actor than the one that it made for it, which is then ended after its setup."""
    job = Job("x", TrialLocation(str(tmp_path), None, "s", "x"), PLACEMENT, 5.0, 60.0, None)
    folder = tmp_path / "s" / "trials" / "x"
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text("")
    given_up = TrainingTrial({"job": job.to_dict()})
    given_up.cleanup()
    assert given_up.reset_config({"job": job.to_dict()})
    given_up.cleanup()
    assert [path.name for path in folder.iterdir()] == ["spec.yaml"]


def test_retries_are_counted_since_the_last_progress(tmp_path):
    attempts = {
        "gets_on": ["0", "10", "20!", "30", "30", "40"],
        "gets_nowhere": ["0", "10", "10!", "10", "10", "50"],
    }
    for label, lines in attempts.items():
        (tmp_path / label).write_text("\n".join(lines))
    jobs = [Job(label, TrialLocation(str(tmp_path), None, "s", label), PLACEMENT, 1.0, 60.0) for label in attempts]
    # Beside them the values of one cell, of which hopeless ones are stopped, and the only value of another.
    for number, loss in enumerate((2.0, 2.3, 2.1, 3.0, 1.0, 9.0)):
        location = TrialLocation(str(tmp_path), None, "s", f"value{number}")
        (tmp_path / f"value{number}").write_text(f"{loss}~")
        cell = "other" if number == 5 else "cell"
        jobs.append(Job(f"value{number}", location, PLACEMENT, 1.0, 60.0, cell=cell, steps=100))
    noted = Noted()
    with ray_cluster(None, cpus=2) as head:
        run_jobs(jobs, noted, retries=2, concurrent=1, state=tmp_path / "ray", head=head, trainable=Failing)
    ends = {label: [what for name, what in noted if name == label] for label in attempts}
    values = [[what for name, what in noted if name == f"value{number}"] for number in range(6)]
    worse = "ASHA: least validation loss 3 at step 50 of 100, worse than the median of the cell's other values there"
    assert [what for (what,) in values] == [*["ended"] * 3, f"stopped at 3.0: {worse}", *["ended"] * 2]
    assert ends == {
        "gets_on": ["again"] * 5 + ["ended"],
        "gets_nowhere": ["again"] * 3 + ["failed"],
    }
