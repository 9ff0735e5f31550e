"""The runner of a pack, on a machine whose ranks are small scripts: what follows when an attempt ends."""

import os
import time
from functools import partial

import pytest

from amscale.cluster import run_machine
from amscale.cluster.base_runner import TrialFailed
from amscale.cluster.machine import Machine
from amscale.cluster.pack_runner import Member, PackRunner
from amscale.cluster.runner import TrialRunner
from amscale.trials.location import TrialLocation
from amscale.trials.records import Placement, TrialSpec

pytestmark = pytest.mark.slow  # each test waits for polls

PLACEMENT = Placement(1, 1, 1, "cpu", 0, "fp32", micro_batch=5, accumulation=1)
REFUSED = "echo '=== refused: these networks cannot be stacked'; exit 2"


class ScriptedMachine(Machine):
    """A machine whose ranks are the next shell script of a list that all its like share, run in the sweep's folder."""

    scripts: list[str]

    def launch(self, placement, attempt, head, port, address):
        script = f"cd {self.store.path.parent}; {self.scripts.pop(0)}"
        self._command.start(["sh", "-c", script], dict(os.environ), self.store.log_of(0))


@pytest.fixture
def pack(tmp_path):
    """Start the runner of a pack of trials a and b whose attempts run the given scripts, one after the other."""
    locations = [TrialLocation(str(tmp_path), None, "sweep", label) for label in "ab"]
    for location in locations:
        store = location.store()
        store.path.mkdir(parents=True, exist_ok=True)
        spec = TrialSpec(format=1, trial="0" * 12, label=location.label, placement=PLACEMENT, store="s", settings={})
        store.spec.write_text(spec.to_yaml())
    started = []

    def start(*scripts, retries=0):
        left = list(scripts)

        def machines(location):
            made = run_machine.HostMachines(location, 1.0, ("127.0.0.1", 0))
            made._own = ScriptedMachine(location, 0, 1.0)
            made._own.scripts = left
            return made

        def alone(location):
            return TrialRunner(location.store(), PLACEMENT, machines(location), 60.0)

        members = [Member(one.label, one.store(), partial(alone, one)) for one in locations]
        started.append(PackRunner(members, PLACEMENT, machines(locations[0]), 60.0, retries))
        started[-1].start()
        return started[-1]

    yield start
    for made in started:
        made.release()


def ends(made):
    """Step to the end; return the failure of each member, None where it has its result, and all notes."""
    failures, notes = {}, []
    deadline = time.monotonic() + 600
    while not all(member.reported for member in made.members):
        assert time.monotonic() < deadline
        for label, report in made.step().items():
            notes += [f"{label}: {report.note}"] if report.note else []
            if report.done:
                failures[label] = report.failure
    return failures, notes


def test_members_end_by_their_results(pack):
    made = pack("touch b/result.json; sleep 2; touch a/result.json")
    assert ends(made) == ({"a": None, "b": None}, [])
    assert made.done()


def test_what_cannot_be_packed_is_trained_alone_one_after_the_other(pack):
    failures, notes = ends(pack(REFUSED, "touch a/result.json", "exit 7", "touch b/result.json", retries=1))
    assert failures == {"a": None, "b": None}
    reason = "trains alone, since its pack of 2 failed: these networks cannot be stacked"
    assert notes == [f"a: {reason}", f"b: {reason}"]


def test_a_pack_that_ends_is_retried_without_its_finished_members_and_then_given_up(pack):
    first = pack("touch a/result.json; exit 7")
    with pytest.raises(TrialFailed, match="exit status 7"):
        ends(first)
    second = pack("exit 8", "touch b/result.json")
    assert [member.label for member in second.left] == ["b"]
    failures, notes = ends(second)
    assert failures == {"a": None, "b": None}
    assert notes == ["b: trains alone, since its pack of 2 failed: exit status 8"]


def test_a_member_that_fails_alone_leaves_the_others(pack):
    failures, _ = ends(pack(REFUSED, "exit 7", "touch b/result.json"))
    assert failures["b"] is None
    assert "exit status 7" in failures["a"]


def test_a_pack_that_was_asked_to_end_goes_on(pack):
    made = pack("touch a/result.json b/preempted", "touch b/result.json")
    assert ends(made)[0] == {"a": None, "b": None}
