"""Rows of a table that differ in more than N and D: those that a user selects, and the columns in which they differ."""

import operator
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from amscale.errors import InputError
from amscale.scaling.table_file import Cells
from amscale.settings import parse_number

_SHOWN = 4


def select_rows(cells: Cells, where: str | None, name: str = "where") -> Cells:
    """Return the rows whose cells are as `where` says; all if it is None.

    It holds conditions joined by commas: `corpus=web`, `corpus!=web`, `params<1B`, `flops>=1e20` and the like.

    Raises:
        InputError: it is malformed, there is no such column, or no row is left; `name` is the option's.
    """
    if where is None:
        return cells
    chosen = list(range(cells.rows))
    for part in str(where).split(","):
        condition = Condition.parse(part)
        if condition is None:
            raise InputError(
                f"{name}={where!r} must be columns as column=value joined by commas, such as corpus=web or params<1B"
            )
        column = cells.columns[find_column(cells, condition.name, f"{name}={where!r}")]
        left = [row for row in chosen if condition.holds(column[row])]
        if not left:
            shown = _some([column[row] for row in chosen])
            raise InputError(f"{name}={where!r}: no row is left; {condition.name} is one of {shown}")
        chosen = left
    return take_rows(cells, chosen)


def find_column(cells: Cells, wanted: str, given: str) -> str:
    """Return the column of that name, of any case where only one is.

    Raises:
        InputError: there is none; `given` is what the user wrote.
    """
    names = [name for name in cells.columns if name.casefold() == wanted.casefold()]
    if wanted in names:
        return wanted
    if len(names) != 1:
        raise InputError(f"{given}: no column {wanted!r}; the columns are {', '.join(cells.columns)}")
    return names[0]


def take_rows(cells: Cells, chosen: Sequence[int]) -> Cells:
    """Return the rows of these indices, with the numbers that they have in the file."""
    columns = {name: [column[row] for row in chosen] for name, column in cells.columns.items()}
    numbers = [cells.numbers[row] for row in chosen]
    return Cells(cells.source, columns, cells.twice, list(cells.warnings), numbers)


_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Condition:
    """A condition on a value, such as `params<1B`: its name, one of =, !=, <, <=, > and >=, and what follows."""

    name: str
    operator: str
    text: str

    @classmethod
    def parse(cls, text: str) -> "Condition | None":
        """Return the condition that a text holds, or None where it holds none."""
        found = re.fullmatch(r"\s*([^=<>!]*[^=<>!\s])\s*(<=|>=|!=|<|>|=)\s*(.*?)\s*", text)
        if found is None or (found[2] in _OPERATORS and number_of(found[3]) is None):
            return None
        return cls(*found.groups())

    def holds(self, value: Any) -> bool:
        """Return whether a value satisfies it; numbers may be written in any way, and nothing satisfies none."""
        if self.operator in _OPERATORS:
            number = None if value is None or isinstance(value, bool) else number_of(str(value))
            return number is not None and _OPERATORS[self.operator](number, float(number_of(self.text) or 0.0))
        return value is not None and _is(value, self.text) == (self.operator == "=")


_PASSES = re.compile(r"epoch|passes|repeat", re.IGNORECASE)


def differing_columns(
    cells: Cells, used: Collection[str], N: Sequence[float | None], D: Sequence[float | None]
) -> dict[str, str]:
    """Return a line for each column that tells runs apart which share N and D, so that none is taken for a seed unsaid.

    Columns with hardly any value twice are names or measurements of runs, and are passed over. A column of text is
    named too where it is no label of one N or of one D: two corpora or families of models may share no cell.
    """
    lines = {}
    for name, column in cells.columns.items():
        values = set(map(str, column))
        if name in used or not name or not 1 < len(values) <= cells.rows / 3:
            continue
        rows = [(n, d, str(value)) for n, d, value in zip(N, D, column, strict=True) if n is not None and d is not None]
        shared = _several([((n, d), value) for n, d, value in rows])
        text = any(isinstance(value, str) and not number_of(value) for value in column)
        label = not _several([(v, n) for n, _, v in rows]) or not _several([(v, d) for _, d, v in rows])
        if shared or (text and not label):
            what = "rows of one N and D differ" if shared else "rows differ"
            first = next(value for value in column if value is not None)
            lines[name] = (
                f"{what} in {name!r} ({_some(column)}): --by {name} fits each kind, --where '{name}={first}' one"
            )
            if _PASSES.search(name):
                lines[name] += "; passes over D belong into --tokens_column, as the tokens seen (D times them)"
    return lines


def is_text(column: Sequence[Any]) -> bool:
    """Return whether a column holds names: text or truth values, not numbers."""
    return any(isinstance(value, bool) or (isinstance(value, str) and number_of(value) is None) for value in column)


_TUNED = re.compile(
    r"((peak|max|base)[ _-]?)?(lr|learning[ _-]?rate)|"
    r"((global|train|total)[ _-]?)?(batch|bs)([ _-]?(size|tokens?|sequences?))*",
    re.IGNORECASE,
)
"""Names of columns of a learning rate or of a batch."""


def tells_a_setting(name: str) -> bool:
    """Return whether a column is named for a learning rate or a batch."""
    return _TUNED.fullmatch(name) is not None


def tuning_columns(cells: Cells, N: Sequence[float | None], D: Sequence[float | None]) -> list[str]:
    """Return the columns of learning rates and batches that take several values within a cell of N and D."""
    found = []
    for name, column in cells.columns.items():
        if not tells_a_setting(name):
            continue
        values = [value if not isinstance(value, str) else number_of(value) for value in column]
        pairs = [((n, d), v) for n, d, v in zip(N, D, values, strict=True) if None not in (n, d, v)]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for _, v in pairs)
        if numbers and _several(pairs):
            found.append(name)
    return found


def _several(pairs: Sequence[tuple[Any, Any]]) -> bool:
    """Return whether one key has several values."""
    found: dict[Any, Any] = {}
    return any(found.setdefault(key, value) != value for key, value in pairs)


def _some(values: Sequence[Any]) -> str:
    names = sorted({str(value) for value in values if value is not None})
    return ", ".join(names[:_SHOWN]) + (f", … {len(names)} values" if len(names) > _SHOWN else "")


def number_of(text: str) -> float | None:
    """Return the number that a text is, or None."""
    try:
        return parse_number(text)
    except ValueError:
        return None


def _is(cell: Any, text: str) -> bool:
    """Return whether a cell is what a command line writes as `text`; numbers may be written in any way."""
    if cell is None or str(cell).casefold() == text.casefold():
        return cell is not None
    number = number_of(text)
    return number is not None and not isinstance(cell, bool) and number == number_of(str(cell))
