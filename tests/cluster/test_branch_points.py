"""Trials that wait for another: they are handed over once it has passed their step, or has ended."""

from ray.tune.search import Searcher

from amscale.cluster.branch_points import After, BranchPoints
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
