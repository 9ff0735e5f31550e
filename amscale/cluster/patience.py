"""How long ranks may record nothing before they count as hung: learned from the intervals between their records.

Between two records lies one step, and after some steps more than that: a validation, probes, a checkpoint. Which,
follows from the settings, so each combination has its own longest interval. What has not been seen often enough, and
the end of a run with its last evaluation and weights, has the setting's limit alone.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from amscale.config import Experiment, validating

STEP = frozenset[str]()
"""Nothing but the next step is due."""
_MULTIPLE = 10.0
"""Ranks count as hung after this many times the longest interval seen …"""
_FLOOR_SECONDS = 300.0
"""… but not earlier: storage and networks come back after minutes, and a run that diverged writes its weights."""
_LEFT_OUT = 5
"""Steps at the beginning of an attempt that teach nothing: kernels are compiled and caches filled."""
_NEEDED = {STEP: 10}
"""How often an interval must have been seen; twice where more than a step is due."""


@dataclass(frozen=True)
class Schedule:
    """When a run does more than train, as plain data."""

    steps: int | None
    """Of the whole run; None where it is not known, and each could be the last."""
    validate_every: int
    probe_every: int
    """0: at the last step alone."""
    checkpoint_every: int
    stops_early: bool
    """Whether any validation may end the run."""
    branches: tuple[int, ...] = ()
    """Steps at which other trials branch off, for which a checkpoint is written."""

    @classmethod
    def of(cls, cell: Experiment, steps: int | None, branches: Iterable[int] = ()) -> "Schedule":
        """Return the schedule of a trial.

        Args:
            cell: its settings.
            steps: of the whole run, where it is known.
            branches: steps at which other trials branch off.
        """
        probe_every = cell.probes.planned_every if cell.probes.sequences else 0
        early = cell.train.patience is not None
        every = cell.launch.checkpoint_every
        # Where the steps are not known each could be the last, whose validation counts as any other does.
        validate_every = 1 if steps is None else validating(cell, steps).every
        return cls(steps, validate_every, probe_every, every, early, tuple(branches))

    def due(self, step: int) -> frozenset[str]:
        """Return what is done after a step before the next one begins."""
        validates = step % self.validate_every == 0
        found = {
            "validation": validates,
            "probes": self.probe_every and step % self.probe_every == 0,
            "checkpoint": step % self.checkpoint_every == 0 or step in self.branches,
            "end": self.steps is None or step >= self.steps or (self.stops_early and validates),
        }
        return frozenset(name for name, is_due in found.items() if is_due)


class Patience:
    """Tells after how long a silence the ranks of a trial count as hung.

    Args:
        most: seconds, the setting `launch.stalled_after`; nothing that is learned goes above it.
        schedule: of the trial; nothing is learned without it.
    """

    def __init__(self, most: float, schedule: Schedule | None) -> None:
        self._most = most
        self._schedule = schedule
        self._longest: dict[frozenset[str], float] = {}
        self._seen: Counter[frozenset[str]] = Counter()
        self.restart()

    def restart(self) -> None:
        """Begin another attempt: what was learned stays."""
        self._step: int | None = None
        self._silent = 0.0
        self._left_out = _LEFT_OUT

    def recorded(self, step: int | None, seconds: float) -> None:
        """Take note of a record.

        Args:
            step: the newest one that has been recorded; None before the first.
            seconds: since the record before.
        """
        if self._schedule is None or step is None:
            return
        if self._step is None:
            self._step, self._silent = step, 0.0
            return
        self._silent += seconds  # of a validation and of the step that follows it, say
        if step <= self._step:
            return
        passed = step - self._step
        due = STEP.union(*map(self._schedule.due, range(self._step, step)))
        if self._left_out <= 0:
            self._seen[due] += passed if due == STEP else 1
            self._longest[due] = max(self._longest.get(due, 0.0), self._silent)
        self._left_out -= passed
        self._step, self._silent = step, 0.0

    def limit(self) -> float:
        """Return the seconds after which silence means that the ranks hang."""
        if self._schedule is None or self._step is None:
            return self._most
        due = self._schedule.due(self._step)
        if "end" in due or self._seen[due] < _NEEDED.get(due, 2):
            return self._most
        # A rank that was asked to end writes a checkpoint after any step.
        return min(self._most, max(_FLOOR_SECONDS, _MULTIPLE * self._longest[due], 2 * max(self._longest.values())))
