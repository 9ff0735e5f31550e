"""Trials that wait for another: they are handed over once it has passed their step, or has ended."""

from types import SimpleNamespace

from ray.tune.search import Searcher

from amscale.cluster.branch_points import After, BranchPoints
from amscale.cluster.listener import ListenerCallback
from amscale.cluster.tune import JobQueue


def test_a_trial_is_handed_over_when_its_checkpoint_is_there_or_never_will_be():
    waiting = {"early": After("trunk", 10), "late": After("trunk", 20), "other": After("elsewhere", 5)}
    points = BranchPoints(waiting.items())
    labels = ["trunk", "early", "late", "other", "alone"]
    queue = JobQueue([{"job": {"label": label}} for label in labels], points)

    def handed_over() -> list[str]:
        found = []
        while isinstance(config := queue.suggest("id"), dict):
            found.append(config["job"]["label"])
        return found

    assert handed_over() == ["trunk", "alone"]
    points.passed("trunk", 10)  # the checkpoint of step 10 is being written
    assert handed_over() == []
    points.passed("trunk", 11)
    assert handed_over() == ["early"]
    assert queue.suggest("id") is None
    assert points.ended("trunk") == ["late"]
    assert handed_over() == ["late"]
    assert points.ended("elsewhere") == ["other"]
    assert handed_over() == ["other"]
    assert queue.suggest("id") == Searcher.FINISHED


class Notes(list):
    """A listener that keeps remarks."""

    def noted(self, label, note):
        self.append((label, note))

    def progress(self, label, report):
        """Pass."""

    def failed(self, label, reason, again):
        """Pass."""


def test_a_trial_whose_trunk_failed_is_said_to_train_from_its_first_step():
    notes, points = Notes(), BranchPoints([("early", After("trunk", 10)), ("late", After("trunk", 20))])
    callback = ListenerCallback(notes, points=points)
    trial = SimpleNamespace(config={"job": {"label": "trunk", "members": []}}, last_result={"failed": "out of memory"})
    callback.on_trial_result(1, [], trial, {"step": 11})
    assert (points.is_ready("early"), points.is_ready("late")) == (True, False)
    callback.on_trial_complete(1, [], trial)
    assert points.is_ready("late")
    assert notes == [("late", "trains from its first step: trunk, which it was to branch off, has ended")]
