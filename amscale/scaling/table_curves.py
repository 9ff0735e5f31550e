"""Tables of loss curves: several rows of one run, told apart by the step at which each was recorded.

Rows of one run are no runs. They share one initialisation and one order of data, and under a schedule that decays only
the last of them has a loss that a law speaks of (arXiv 2203.15556, section 2).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from amscale.errors import InputError
from amscale.scaling.table_file import Cells, read_cells
from amscale.scaling.table_rows import is_text, number_of, select_rows, take_rows, tells_a_setting

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from amscale.scaling.table import Columns

_STEP = re.compile(r"_?((global|train|training|trainer|optimi[sz]er)[ _/-]?)*(step|iteration|iter)", re.IGNORECASE)
"""Names of the step of a row. The plural, `steps` or `total_steps`, is the length of a run."""
_RUN = re.compile(r"_?(run|trial|job)([ _-]?(id|name|number|index))?", re.IGNORECASE)
"""Names of a column that names runs."""
_WHOLE = re.compile(r"[0-9]+(\.0)?|[0-9](\.[0-9]+)?e[+-]?[0-9]+", re.IGNORECASE)
_LESS = 1e-3
"""Share of a loss by which an earlier one must be less to be named."""


def rows_of_runs(source: "str | Path | pd.DataFrame | Cells", columns: "Columns", where: str | None) -> Cells:
    """Return the rows of a file or a DataFrame that `where` selects, one for each run where they are steps of runs.

    Raises:
        InputError: the file is missing, or the rows of several runs cannot be told apart.
    """
    return ends_of_runs(select_rows(read_cells(source), where), columns)


def ends_of_runs(cells: Cells, columns: "Columns") -> Cells:
    """Return the last row of each run where rows are steps of runs, with a warning; other cells as they are.

    Rows are steps where a column that is named for one takes several values in one run: at one N, D and seed, in rows
    that no column of text tells apart, or in one run by its name. Rows without a loss are passed over, since models are
    validated less often than steps are logged. Where D grows with the step, each row may be a run that ended there:
    all stay, with another warning.

    Raises:
        InputError: the rows of several runs, of different lengths, cannot be told apart.
    """
    names = {key: _column(cells, wanted) for key, wanted in vars(columns).items()}
    used = {name for name in names.values() if name is not None}
    step = next((name for name in cells.columns if _STEP.fullmatch(name) and name not in used), None)
    amount = names["d"] or names["tokens"] or names["flops"]
    if step is None or amount is None or names["n"] is None or names["loss"] is None:
        return cells
    ids = [column for name, column in cells.columns.items() if _RUN.fullmatch(name)]
    if any(len(set(map(str, column))) == cells.rows for column in ids):
        return cells
    curves = _Curves(cells, step, names["loss"])
    labels = [names["n"], *filter(None, [names["seed"]]), *_labels(cells, used | {step})]
    if curves.grow(curves.groups(labels), amount):
        said = (
            f"{amount!r} grows with {step!r} at one N: each row is taken as a run that ended there. Where rows are "
            "steps of one run, that holds for a constant learning rate alone, and intervals are too narrow, since rows "
            "of one run share its noise; of runs whose learning rate decays, keep the last rows"
        )
        return replace(cells, warnings=[*cells.warnings, said])
    named = any(_RUN.fullmatch(name) for name in labels)
    runs = curves.groups(labels if named else [*labels, amount])
    if not any(map(curves.several, runs)):
        return cells
    if named:
        return curves.ends(runs, alone=True)
    settings = [name for name in cells.columns if tells_a_setting(name) and name not in used]
    for apart in (runs, curves.groups([*labels, amount, *settings])):
        if all(map(curves.even, apart)) and any(map(curves.several, apart)):
            return curves.ends(apart, alone=False)
    raise curves.mixed(next(run for run in runs if not curves.even(run)))


def _column(cells: Cells, wanted: str) -> str | None:
    """Return the column of that name, as the reader of the table finds it; None where there is none, or several."""
    text = " ".join(str(wanted).split())
    same = [name for name in cells.columns if name.casefold() == text.casefold()]
    return text if text in same else same[0] if len(same) == 1 else None


def _labels(cells: Cells, used: set[str]) -> list[str]:
    """Return the columns that name runs, or what they differ in: text, and numbers of runs.

    A column with another value in most rows, such as the time, names none.
    """
    return [
        name
        for name, column in cells.columns.items()
        if name not in used
        and (_RUN.fullmatch(name) or is_text(column))
        and 2 * len(set(map(str, column))) <= len(column)
    ]


class _Curves:
    """The rows of a table by their steps; `rows` is empty where a row with a loss has no step."""

    def __init__(self, cells: Cells, step: str, loss: str) -> None:
        self.cells, self.step = cells, step
        self.losses = cells.columns[loss]
        known = [_whole(cell) for cell in cells.columns[step]]
        unclear = any(at is None and cell is not None for at, cell in zip(known, self.losses, strict=True))
        self.rows = [] if unclear else [row for row, at in enumerate(known) if at is not None]
        self.steps = [-1.0 if at is None else at for at in known]

    def groups(self, names: Sequence[str]) -> list[list[int]]:
        """Return the rows that agree in these columns; of each group those with a loss, or all where none has one."""
        columns = [self.cells.columns[name] for name in names]
        found: dict[tuple[str, ...], list[int]] = {}
        for row in self.rows:
            found.setdefault(tuple(str(column[row]) for column in columns), []).append(row)
        return [[row for row in group if self.losses[row] is not None] or group for group in found.values()]

    def several(self, group: Sequence[int]) -> bool:
        """Return whether a group has several steps."""
        return len({self.steps[row] for row in group}) > 1

    def even(self, group: Sequence[int]) -> bool:
        """Return whether every step occurs equally often: once, or once for each of several runs of one length."""
        return len(set(Counter(self.steps[row] for row in group).values())) == 1

    def grow(self, groups: Sequence[Sequence[int]], amount: str) -> bool:
        """Return whether some group has several steps, and the amount grows from step to step in all that have."""
        column = self.cells.columns[amount]
        longer = [group for group in groups if self.several(group)]
        for group in longer:
            pairs = sorted({(self.steps[row], number_of(str(column[row])) or 0.0) for row in group})
            if any(later[0] == step or later[1] <= amount for (step, amount), later in pairwise(pairs)):
                return False
        return bool(longer)

    def mixed(self, group: Sequence[int]) -> InputError:
        """Return the error for a group of several runs of different lengths."""
        seen: dict[float, int] = {}
        first, second = next(
            (seen[self.steps[row]], row) for row in group if seen.setdefault(self.steps[row], row) != row
        )
        cells, step = self.cells, self.step
        return InputError(
            f"{cells.source}: rows {cells.numbers[first]} and {cells.numbers[second]} have one N, one D and one "
            f"{step!r}, in runs of different lengths: add a column 'run' that names the run of each row, or choose one "
            f"step, --where '{step}={cells.columns[step][first]}'"
        )

    def ends(self, groups: Sequence[Sequence[int]], alone: bool) -> Cells:
        """Return the rows of the last step in each group, the last of them alone or all, with a line that says so."""
        kept, sooner, most = [], 0, 0.0
        for group in groups:
            last = max(self.steps[row] for row in group)
            ends = [row for row in group if self.steps[row] == last]
            ends = ends[-1:] if alone else ends  # a run that was resumed logs steps again
            kept += ends
            least, final = (self._least(rows) for rows in (group, ends))
            if least is not None and final is not None and 0 < least < (1 - _LESS) * final:
                sooner, most = sooner + 1, max(most, 1 - least / final)
        said = (
            f"{self.step!r} counts the steps of runs: the last one with a loss gives the loss of a run ({len(kept)} of "
            f"{self.cells.rows} rows are kept). --where '{self.step}<=…' ends runs sooner; a column of "
            "lengths of runs is named 'steps'"
        )
        if sooner:
            said += f". In {sooner} of {len(kept)} runs an earlier step had less loss, by up to {most:.1%}"
        found = take_rows(self.cells, sorted(kept))
        return replace(found, warnings=[*found.warnings, said])

    def _least(self, rows: Sequence[int]) -> float | None:
        return min((value for row in rows if (value := number_of(str(self.losses[row]))) is not None), default=None)


def _whole(cell: Any) -> float | None:
    """Return a step, a whole number that no separator of thousands makes unclear; None of another cell."""
    if isinstance(cell, bool) or cell is None or (isinstance(cell, str) and not _WHOLE.fullmatch(cell)):
        return None
    return float(cell)
