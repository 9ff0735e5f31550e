"""Run several trials of one shape by one process, and each alone where that fails (`amscale/training/packed/`).

Every member has its own folder, and its attempts are those of the pack: all begin under one name. What can go wrong:

* the process ends without the members' results: it is started again, by whoever runs the pack, with those that have
  none; at the second time they are trained alone, one after the other;
* it refuses (networks that cannot be stacked), or runs out of memory: the same at once;
* it was asked to end and wrote checkpoints: it goes on in another attempt;
* it hangs or was replaced, or storage does not serve: as with one trial (`amscale/cluster/runner.py`).
"""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from amscale.cluster.base_runner import (
    FIRST_RECORD_SECONDS,
    POLL_SECONDS,
    REPORT_SECONDS,
    Machines,
    Report,
    Runner,
    TrialFailed,
    newest_numbers,
)
from amscale.cluster.runner import TrialRunner
from amscale.trials.attempt import AttemptReplaced
from amscale.trials.metrics import MetricsTail
from amscale.trials.records import Placement
from amscale.trials.storage_errors import storage_errors
from amscale.trials.trial_store import TrialStore

_PACKED = "in a pack of "
"""Begins the reason of every failure of a pack."""


@dataclass
class Member:
    """A trial of a pack, as its runner sees it."""

    label: str
    store: TrialStore
    """On this machine."""
    alone: Callable[[], TrialRunner]
    """Makes its runner, where it is trained alone."""
    metrics: MetricsTail = field(init=False)
    reported: bool = False
    """Whether its end has been reported."""

    def __post_init__(self) -> None:
        self.metrics = MetricsTail(self.store.metrics)

    @property
    def latest(self) -> dict[str, Any]:
        """Its newest numbers."""
        return newest_numbers(self.store, self.metrics)


@dataclass
class PackRunner(Runner):
    """Begins attempts of a pack, watches them, and decides what follows when one ends.

    Args:
        members: the trials; the log of the first one is the pack's.
        placement: of each, and of the pack.
        machines: that train them together.
        stalled_after: seconds without a record of any after which the process counts as hung.
        retries: how often a trial that fails alone begins again.
    """

    subject = "pack"

    members: Sequence[Member]
    placement: Placement
    machines: Machines
    stalled_after: float
    retries: int
    _alone: list[Member] = field(init=False, default_factory=list)
    """Members that are still to be trained alone, the present one first."""
    _current: TrialRunner | None = field(init=False, default=None)
    _failures: int = field(init=False, default=0)
    """Of the member that is trained alone."""
    _notes: list[tuple[str, str]] = field(init=False, default_factory=list)

    @property
    def left(self) -> list[Member]:
        """The members without a result whose end has not been reported."""
        return [member for member in self.members if not member.reported and not member.store.done()]

    @property
    def latest(self) -> dict[str, Any]:
        """How far the pack is: the sum of its members' newest checkpoints."""
        return {"checkpoint": sum(member.latest.get("checkpoint", 0) for member in self.members)}

    def done(self) -> bool:
        """Return whether every member has its result."""
        return all(member.store.done() for member in self.members)

    def _unfinished(self) -> Sequence[TrialStore]:
        return [member.store for member in self.left]

    def _open(self) -> None:
        for member in self.members:
            member.store.open()

    def step(self) -> dict[str, Report]:
        """Wait for up to a second; return what is new of each member.

        Raises:
            TrialFailed: the attempt failed; another may do better.
        """
        if self._storage_failure:
            return self._ends(self._storage_failure)
        if self._alone:
            return self._step_alone()
        ended, deadline = False, time.monotonic() + REPORT_SECONDS
        while time.monotonic() < deadline and self.left and not ended:
            status = self._ask(self.machines.poll)[0]
            if any(member.store.current_attempt() != member.store.attempt for member in self.left):
                raise TrialFailed(str(AttemptReplaced()))
            ended = status is not None
            if ended and self.left:
                self._after_end(status)
            elif not ended:
                time.sleep(POLL_SECONDS)
        if self._storage_failure:
            return self._ends(self._storage_failure)
        if self.left and not self._alone:
            self._check_silence()
        return self._reports()

    def release(self) -> None:
        """End the pack's processes."""
        if self._current is not None:
            self._current.release()
        self.machines.release()

    def _begin_attempt(self) -> None:
        """Begin an attempt of every member without a result, under one name."""
        name = uuid.uuid4().hex
        for member in self.left:
            with storage_errors(member.store.path):
                member.store.begin_attempt(self.placement, name)
            member.metrics.restart()
        self.machines.start(self.placement, name)
        if remark := self.machines.remark():
            self._notes.append((self.members[0].label, remark))

    def _after_end(self, status: int) -> None:
        """Decide what follows after the process has ended without all results.

        Raises:
            TrialFailed: another attempt may do better.
        """
        if any(member.store.preempted.exists() for member in self.left):
            self._begin_next_attempt()
            return
        found = self._ask(self.machines.diagnose)[0]
        if found.storage is not None:
            self._storage_failure = found.storage
            return
        reason = found.refused or found.out_of_memory or f"exit status {status}\n{found.reason}"
        before = any(_was_packed(member.store) for member in self.left)
        if not (found.refused or found.out_of_memory or before):
            raise self._failed(reason)
        self._record(reason)
        self._ask(self.machines.stop)
        self._alone = self.left
        first = reason.strip().splitlines()[0]
        self._notes += [
            (member.label, f"trains alone, since its pack of {len(self.members)} failed: {first}")
            for member in self._alone
        ]

    def _step_alone(self) -> dict[str, Report]:
        """Train the members that are left one after the other, each as a trial by itself."""
        member = self._alone[0]
        try:
            if self._current is None:
                self._current = member.alone()
                self._current.start()
            report = self._current.step()
        except TrialFailed as failure:
            self._failures += 1
            self._end_current()
            if self._failures <= self.retries:
                return self._reports()
            report = Report(member.latest, done=True, failure=str(failure))
        if report.done:
            self._end_current()
            self._failures = 0
            self._alone.pop(0)
            member.reported = True
        return {**self._reports(), member.label: report}

    def _end_current(self) -> None:
        if self._current is not None:
            self._current.release()
            self._current = None

    def _check_silence(self) -> None:
        silent = min(member.metrics.read() for member in self.left)
        updated = any(member.metrics.updated for member in self.members)
        if silent > self.stalled_after + (0 if updated else FIRST_RECORD_SECONDS):
            said = f"launch.stalled_after={self.stalled_after:g}"
            raise self._failed(f"no record for {silent:.0f} s ({said})\n{self.members[0].store.reason()}")

    def _reports(self) -> dict[str, Report]:
        """Return the newest numbers of the members, and which have ended since."""
        found = {}
        notes, self._notes = dict(self._notes), []
        for member in self.members:
            if member.reported:
                continue
            member.reported = member.store.done()
            member.metrics.read()
            found[member.label] = Report(member.latest, done=member.reported, note=notes.get(member.label))
        return found

    def _ends(self, failure: str) -> dict[str, Report]:
        """Report a failure of all that another attempt would only repeat."""
        self._record(failure)
        left = self.left
        found = self._reports()
        for member in left:
            member.reported = True
            found[member.label] = Report(member.latest, done=True, failure=failure)
        return found

    def _record(self, reason: str) -> None:
        super()._record(f"{_PACKED}{len(self.members)}: {reason}")


def _was_packed(store: TrialStore) -> bool:
    """Return whether a trial has failed in a pack before."""
    return any(failure.reason.startswith(_PACKED) for failure in store.failures())
