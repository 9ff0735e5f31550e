"""A map of a sweep's grid on a terminal: a row for each N, a column for each D, in each cell how its trials stand."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amscale.settings import format_duration
from amscale.trials.identity import label_cell, label_order

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
_STYLES = {WAITING: "dim", RUNNING: "cyan", DONE: "green", FAILED: "red"}
_SIGNS = {WAITING: ".", RUNNING: ">", DONE: "o", FAILED: "x"}
_FRAME = 4
"""Lines of the screen beside the map's rows and reasons: title, headings, explanation, and the cursor's."""
_MOST_REASONS = 3
_CELL = 14
"""Columns of a cell that shows a loss and the time left."""


@dataclass
class CellTrial:
    """How one trial stands: `state` is waiting, running, done or failed.

    `loss` is the least validation loss so far, or the training loss before the first; `left` seconds.
    """

    label: str
    state: str = WAITING
    loss: float | None = None
    left: float | None = None
    reason: str = ""


def draw_map(trials: Sequence[CellTrial], width: int, height: int, left: float | None = None) -> "Group":
    """Draw the map of some trials, and below it why trials failed.

    Where cells have no room for losses each is one sign, and where the rows have no room those without anything
    that runs or failed are counted.

    Args:
        trials: those of the sweep.
        width: columns of the screen.
        height: lines of the screen.
        left: seconds that the whole will still take; None where that is not known.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    cells: dict[str, dict[str, list[CellTrial]]] = {}
    columns: dict[str, str] = {}
    for trial in sorted(trials, key=lambda trial: label_order(trial.label)):
        N, D, _ = label_cell(trial.label) or (trial.label, "", 0)
        cells.setdefault(N, {}).setdefault(D, []).append(trial)
        columns.setdefault(D, trial.label)
    amounts = sorted(columns, key=lambda D: label_order(columns[D])[1])
    failed = [trial for trial in trials if trial.state == FAILED]
    reasons = failed[:_MOST_REASONS]
    label_width = max((len(N) for N in cells), default=0) + 4
    room = max(height - _FRAME - len(reasons), 3)
    wide = label_width + len(amounts) * (_CELL + 2) <= width
    shown, hidden = _rows(cells, room)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("N \\ D", justify="right", no_wrap=True)
    if wide:
        for D in amounts:
            table.add_column(D, justify="right", no_wrap=True, min_width=_CELL)
    else:
        table.add_column(f"{amounts[0]} to {amounts[-1]}", no_wrap=True)
    for N in shown:
        texts = [_cell(cells[N].get(D, []), wide) for D in amounts]
        table.add_row(Text(N), *(texts if wide else [Text("").join(texts)]))
    parts: list[Table | Text] = [Text(_title(trials, left)), table]
    if hidden:
        counts = _counts(trial for N in hidden for row in cells[N].values() for trial in row)
        parts.append(Text(f"{len(hidden)} more N: {counts}", style="dim"))
    explanation = (
        "least validation loss so far, nats per token, and the time left of what runs"
        if wide
        else ", ".join(f"{sign} {state}" for state, sign in _SIGNS.items())
    )
    parts.append(Text(explanation, style="dim"))
    parts += [Text(f"failed: {trial.label}: {trial.reason}", style="red") for trial in reasons]
    for part in parts:
        if isinstance(part, Text):
            part.no_wrap, part.overflow = True, "ellipsis"
    return Group(*parts)


def _rows(cells: dict[str, dict[str, list[CellTrial]]], room: int) -> tuple[list[str], list[str]]:
    """Return the N to show and those to count: all where they fit, otherwise first those with something to see."""
    if len(cells) <= room:
        return list(cells), []
    moving = {RUNNING, FAILED}
    busy = [N for N, row in cells.items() if any(trial.state in moving for trials in row.values() for trial in trials)]
    chosen = set([*busy, *(N for N in cells if N not in busy)][: room - 1])
    return [N for N in cells if N in chosen], [N for N in cells if N not in chosen]


def _title(trials: Sequence[CellTrial], left: float | None) -> str:
    text = _counts(trials)
    return text if left is None else f"{text}; about {format_duration(left)} left"


def _counts(trials: Iterable[CellTrial]) -> str:
    states = [trial.state for trial in trials]
    parts = [f"{states.count(DONE)} of {len(states)} trials done"]
    parts += [f"{states.count(state)} {state}" for state in (RUNNING, WAITING, FAILED) if states.count(state)]
    return ", ".join(parts)


def _cell(trials: Sequence[CellTrial], wide: bool) -> "Text":
    """Return a cell: the least loss of its trials and the longest time left, or one sign."""
    from rich.text import Text

    if not trials:
        return Text("" if wide else " ")
    states = [trial.state for trial in trials]
    state = next(state for state in (FAILED, RUNNING, WAITING, DONE) if state in states)
    if not wide:
        return Text(_SIGNS[state], style=_STYLES[state])
    losses = [trial.loss for trial in trials if trial.loss is not None and trial.state in (RUNNING, DONE)]
    lefts = [trial.left for trial in trials if trial.left is not None and trial.state == RUNNING]
    parts = [f"{states.count(DONE)}/{len(states)}"] if len(states) > 1 else []
    parts += [f"{min(losses):.3f}"] if losses else []
    if state in (RUNNING, FAILED) or not losses:
        parts.append(format_duration(max(lefts)) if lefts and state == RUNNING else state)
    return Text(", ".join(parts), style=_STYLES[state])


def time_left(trials: Sequence[CellTrial], expected: dict[str, float], places: int) -> float | None:
    """Return the seconds that trials still take at `places` at a time, the longest waiting first.

    Args:
        trials: how they stand.
        expected: seconds of a whole trial, by label; nothing is said of the sweep where one that waits lacks it.
        places: how many run at a time.
    """
    import heapq

    running = [trial for trial in trials if trial.state == RUNNING]
    waiting = [trial for trial in trials if trial.state == WAITING]
    if any(trial.label not in expected for trial in waiting):
        return None
    lefts = [expected.get(trial.label) if trial.left is None else trial.left for trial in running]
    if any(left is None for left in lefts) or not (running or waiting):
        return None
    ends = [left for left in lefts if left is not None]
    ends += [0.0] * max(places - len(ends), 0)
    heapq.heapify(ends)
    for seconds in sorted((expected[trial.label] for trial in waiting), reverse=True):
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends, default=None)
