"""How the trials of a sweep stand, from its files alone, again and again: the map of `status --watch`."""

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live

from amscale.errors import InputError
from amscale.reporting.grid_map import DONE, FAILED, RUNNING, WAITING, CellTrial, draw_map, time_left
from amscale.reporting.terminal import RUNNING_SECONDS, print_line
from amscale.trials.identity import label_cell
from amscale.trials.metrics import TrainRecord, ValidationRecord, parse_record
from amscale.trials.sweep_store import SweepStore
from amscale.trials.trial_store import TrialStore

_EVERY_SECONDS = 2.0


class _Follower:
    """A trial without a result, of whose metrics only what was added is read."""

    def __init__(self, store: TrialStore) -> None:
        self._store = store
        self._read = 0
        self._train: TrainRecord | None = None
        self._validation: float | None = None
        self._steps = _steps(store)

    def cell(self) -> CellTrial:
        """Return how the trial stands."""
        label, metrics = self._store.path.name, self._store.metrics
        if not metrics.is_file() or self._store.waits_on_branch():
            return self._still(label)
        written = metrics.stat()
        if written.st_size < self._read:  # cut back to a checkpoint's step
            self._read, self._train, self._validation = 0, None, None
        if written.st_size > self._read:
            self._take_added(metrics)
        if time.time() - written.st_mtime > RUNNING_SECONDS:
            return self._still(label)
        loss = self._validation if self._validation is not None else self._train.loss if self._train else None
        return CellTrial(label, RUNNING, loss, self._seconds_left())

    def _still(self, label: str) -> CellTrial:
        failures = self._store.failures()
        reason = failures[-1].reason.strip().partition("\n")[0] if failures else ""
        return CellTrial(label, FAILED if failures else WAITING, reason=reason)

    def _take_added(self, metrics: Path) -> None:
        with metrics.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                record = parse_record(line)
                if isinstance(record, TrainRecord):
                    self._train = record
                elif isinstance(record, ValidationRecord):
                    self._validation = record.loss if self._validation is None else min(record.loss, self._validation)

    def _seconds_left(self) -> float | None:
        if self._steps is None or self._train is None or not self._train.time:
            return None
        return max(self._train.time / self._train.step * (self._steps - self._train.step), 0.0)


def _steps(store: TrialStore) -> int | None:
    """Return the steps that a trial's settings ask for; None where they ask for epochs, or cannot be read."""
    try:
        steps = store.read_spec().settings.get("train", {}).get("steps")
    except (InputError, OSError):
        return None
    return steps if isinstance(steps, int) else None


class SweepWatch:
    """The trials of a sweep's folder; a result is read once."""

    def __init__(self, sweep: SweepStore) -> None:
        self._sweep = sweep
        self._done: dict[str, CellTrial] = {}
        self._seconds: dict[str, float] = {}
        self._followers: dict[str, _Follower] = {}

    def cells(self) -> list[CellTrial]:
        """Return how every trial stands now."""
        found = []
        for store in self._sweep.all_trials():
            label = store.path.name
            if label not in self._done and (result := store.read_result()) is not None:
                diverged = result.state != "finished"
                self._done[label] = CellTrial(
                    label, FAILED if diverged else DONE, result.losses.validation_least, reason=result.reason or ""
                )
                self._seconds[label] = result.time.wall_seconds or 0.0
            if label in self._done:
                found.append(self._done[label])
            else:
                found.append(self._followers.setdefault(label, _Follower(store)).cell())
        return found

    def draw(self, console: Console) -> Group:
        """Return the map."""
        cells = self.cells()
        running = sum(cell.state == RUNNING for cell in cells)
        left = time_left(cells, self._expected(cells), running) if running else None
        return draw_map(cells, console.width, console.height, left)

    def _expected(self, cells: Sequence[CellTrial]) -> dict[str, float]:
        """Return the seconds to expect of each trial: the mean of those done of its N, or else of all done."""
        by_size: dict[str, list[float]] = defaultdict(list)
        for label, seconds in self._seconds.items():
            by_size[_size(label)].append(seconds)
        everything = list(self._seconds.values())
        found = {}
        for cell in cells:
            if known := by_size.get(_size(cell.label)) or everything:
                found[cell.label] = sum(known) / len(known)
        return found


def _size(label: str) -> str:
    return (label_cell(label) or (label,))[0]


def watch(sweep: SweepStore, console: Console, every: float = _EVERY_SECONDS) -> None:
    """Show the map until every trial is done or has failed; a line for each change where there is no terminal."""
    watched = SweepWatch(sweep)
    if console.is_terminal:
        with Live(console=console, get_renderable=lambda: watched.draw(console), auto_refresh=False) as live:
            while _unsettled(watched.cells()):
                live.refresh()
                time.sleep(every)
            live.refresh()
        return
    before: dict[str, str] = {}
    while True:
        cells = watched.cells()
        for cell in cells:
            if before.get(cell.label, WAITING) != cell.state:
                loss = "" if cell.loss is None else f", loss {cell.loss:.4f}"
                reason = f": {cell.reason}" if cell.reason else ""
                print_line(console, f"{cell.label}: {cell.state}{loss}{reason}")
            before[cell.label] = cell.state
        if not _unsettled(cells):
            return
        time.sleep(every)


def _unsettled(cells: Sequence[CellTrial]) -> bool:
    return any(cell.state in (RUNNING, WAITING) for cell in cells)
