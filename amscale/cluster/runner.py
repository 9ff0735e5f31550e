"""Run one trial on its machines to its result: one state machine under Ray, under Slurm and over a list of hosts.

What can go wrong, and when it is noticed:

* a rank or the launcher ends: at the next poll, a fraction of a second later;
* ranks hang, in a collective say, and record nothing: after ten times the longest interval between records so far, at
  least 300 s and at most `launch.stalled_after` (`Patience`); and FIRST_RECORD_SECONDS more than that before the first
  record of an attempt;
* ranks were asked to end, wrote a checkpoint and ended: they go on in another attempt;
* a rank runs out of memory: as when it ends; the trial goes on with half the micro-batch;
* storage is full, read-only or not shared, or a rank refuses to train (a checkpoint of another number of ranks, a
  spec of another version): as when a rank ends; another attempt would only repeat that;
* the trial was begun anew elsewhere, since this machine was given up but still runs: at the next poll.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from amscale.cluster.patience import Patience, Schedule
from amscale.trials.attempt import AttemptReplaced
from amscale.trials.metrics import MetricsTail
from amscale.trials.records import Placement
from amscale.trials.storage_errors import StorageError, storage_errors
from amscale.trials.trial_store import TrialStore

SMALLER_TRIAL = (
    "give it more machines or processes (launch.machines, launch.processes_per_machine), a higher launch.zero_stage, "
    "or a shorter data.context"
)


@dataclass
class TrialRunner(Runner):
    """Begins attempts of a trial, watches them, and decides what follows when one ends.

    Args:
        store: the trial's store on machine 0.
        placement: where it is to run, as planned.
        machines: of the trial.
        stalled_after: seconds without a record after which an attempt counts as hung, whatever was learned.
        schedule: what the ranks do after which step; nothing is learned without it.
        name_attempt: gives the name of the next attempt; None for one that no other has.
        end_requested: whether this runner was asked to end, so that ranks which end are not started again.
        resumes: whether ranks that were preempted are started again; otherwise the trial ends, to be continued later,
            as where one of its hosts was asked to leave and no other takes its place.
    """

    subject = "trial"

    store: TrialStore
    placement: Placement
    machines: Machines
    stalled_after: float
    name_attempt: Callable[[], str] | None = None
    end_requested: Callable[[], bool] = lambda: False
    resumes: bool = True
    schedule: Schedule | None = None
    _metrics: MetricsTail = field(init=False)
    _patience: Patience = field(init=False)
    _remark: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._metrics = MetricsTail(self.store.metrics)
        self._patience = Patience(self.stalled_after, self.schedule)

    @property
    def latest(self) -> dict[str, Any]:
        """The trial's newest numbers."""
        return newest_numbers(self.store, self._metrics)

    def done(self) -> bool:
        """Return whether the trial has its result."""
        return self.store.done()

    def _unfinished(self) -> Sequence[TrialStore]:
        return [self.store]

    def _open(self) -> None:
        self.store.open()
        self._metrics = MetricsTail(self.store.metrics)
        self.placement = fitting_placement(self.store, self.placement)

    def step(self) -> Report:
        """Wait for up to a second for new metrics of the trial; start what has to be started, and report.

        Raises:
            TrialFailed: this attempt failed, with the reason and the last lines of the log; another may do better.
        """
        if self._storage_failure:
            return self._final(self._storage_failure)
        if self._remark is not None:
            remark, self._remark = self._remark, None
            return Report(self.latest, note=remark)
        deadline = time.monotonic() + REPORT_SECONDS
        while time.monotonic() < deadline:
            if self.store.done():
                return Report(self.latest, done=True)
            if self.end_requested():
                break
            statuses = self._ask(self.machines.poll)
            if self.store.current_attempt() != self.store.attempt:
                if not self.store.spec.exists():  # another attempt would wait for it in vain
                    gone = f"{self.store.path}: removed while the trial ran; the same command begins it anew"
                    return Report(self.latest, done=True, failure=gone)
                raise TrialFailed(str(AttemptReplaced()))
            if self._has_ended(statuses):
                if self.store.done() or self.end_requested():
                    continue
                if self.store.preempted.exists():
                    if not self.resumes:
                        return Report(self.latest, done=True)
                    self._begin_next_attempt()
                    return Report(self.latest)
                return self._decide(statuses)
            time.sleep(POLL_SECONDS)
        silent = self._metrics.read()
        if silent == 0:
            self._patience.recorded(self._metrics.latest.get("step"), self._metrics.interval)
        limit = self._patience.limit()
        if silent > limit + (0 if self._metrics.updated else FIRST_RECORD_SECONDS):
            learned = f"learned from the intervals so far: {limit:.0f} s; at most "
            said = f"{learned if limit < self.stalled_after else ''}launch.stalled_after={self.stalled_after:g}"
            raise self._failed(f"no record for {silent:.0f} s ({said})\n{self.store.reason()}")
        return Report(self.latest)

    def _has_ended(self, statuses: list[int | None]) -> bool:
        """Return whether the attempt has ended, by what is known of its launchers.

        Ranks that were preempted end with 0 on every machine, and of other hosts nothing may be known.
        """
        if any(statuses) or all(status == 0 for status in statuses):
            return True
        return 0 in statuses and self.store.preempted.exists()

    def release(self) -> None:
        """End the trial's processes on every machine that answers."""
        self.machines.release()
        self.store.clear()

    def _begin_attempt(self) -> None:
        with storage_errors(self.store.path):
            name = self.name_attempt() if self.name_attempt else None
            attempt = self.store.begin_attempt(self.placement, name)
            self.machines.start(self.placement, attempt)
            self._remark = self.machines.remark()
        self._metrics.restart()
        self._patience.restart()

    def _decide(self, statuses: list[int | None]) -> Report:
        """Return what follows after ranks have ended without a result.

        Raises:
            TrialFailed: another attempt may do better.
        """
        diagnoses = self._ask(self.machines.diagnose)
        storage = next((found.storage for found in diagnoses if found.storage), None)
        if storage is not None:
            return self._final(storage)
        refused = next((found.refused for found in diagnoses if found.refused), None)
        if refused is not None:
            return self._final(refused)
        memory = next((found.out_of_memory for found in diagnoses if found.out_of_memory), None)
        if memory is not None:
            return self._halve(memory.strip())
        ended = [f"machine {rank} exit status {status}" for rank, status in enumerate(statuses) if status is not None]
        first = next((rank for rank, status in enumerate(statuses) if status), 0)
        raise self._failed(f"{', '.join(ended)}\n{diagnoses[first].reason}")

    def _halve(self, reason: str) -> Report:
        """Go on with half the micro-batch; where that is 1 already, the trial has failed."""
        before, smaller = self.placement.micro_batch, halved(self.placement)
        try:
            with storage_errors(self.store.path):
                self.store.add_out_of_memory(reason, self.placement)
        except StorageError as error:
            return self._final(str(error))
        if smaller is None:
            return self._final(f"out of memory with a micro-batch of 1: {SMALLER_TRIAL}\n{reason}")
        self.placement = smaller
        self._begin_next_attempt()
        note = (
            f"out of memory with a micro-batch of {before}: goes on with {smaller.micro_batch} and "
            f"{smaller.accumulation} forward passes a step, the same global batch ({reason})"
        )
        return Report(self.latest, note=note)

    def _final(self, failure: str) -> Report:
        """Report a failure that another attempt would only repeat."""
        self._record(failure)
        return Report(self.latest, done=True, failure=failure)


def halved(placement: Placement) -> Placement | None:
    """Return half the micro-batch, rounded up, and as many more forward passes a step; None at a micro-batch of 1.

    The global batch stays what it is: where the passes hold more rows than it has, the last ones are left empty.
    """
    if placement.micro_batch == 1:
        return None
    micro_batch = math.ceil(placement.micro_batch / 2)
    rows = placement.micro_batch * placement.accumulation
    return replace(placement, micro_batch=micro_batch, accumulation=math.ceil(rows / micro_batch))


def fitting_placement(store: TrialStore, placement: Placement) -> Placement:
    """Return a planned placement with its micro-batch halved until it is smaller than any that is known not to fit."""
    known = [
        other.micro_batch
        for other in (entry.placement for entry in store.out_of_memory())
        if replace(other, micro_batch=placement.micro_batch, accumulation=placement.accumulation) == placement
    ]
    while known and placement.micro_batch >= min(known) and (smaller := halved(placement)):
        placement = smaller
    return placement
