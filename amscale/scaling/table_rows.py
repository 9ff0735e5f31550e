"""Rows of a table that differ in more than N and D: those that a user selects, and the columns in which they differ."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from amscale.errors import InputError
from amscale.scaling.table_file import Cells
from amscale.settings import parse_number

_SHOWN = 4


def select_rows(cells: Cells, where: str | None) -> Cells:
    """Return the rows whose cells are as `where` says, `column=value` or several joined by commas; all if it is None.

    Raises:
        InputError: it is malformed, there is no such column, or no row is left.
    """
    if where is None:
        return cells
    chosen = list(range(cells.rows))
    for part in str(where).split(","):
        wanted, equals, text = map(str.strip, part.partition("="))
        if not wanted or not equals:
            raise InputError(f"where={where!r} must be columns as column=value joined by commas, such as corpus=web")
        names = [name for name in cells.columns if name.casefold() == wanted.casefold()]
        name = wanted if wanted in names else names[0] if len(names) == 1 else None
        if name is None:
            raise InputError(f"where={where!r}: no column {wanted!r}; the columns are {', '.join(cells.columns)}")
        column = cells.columns[name]
        left = [row for row in chosen if _is(column[row], text)]
        if not left:
            raise InputError(
                f"where={where!r}: no row is left; {name} is one of {_some([column[row] for row in chosen])}"
            )
        chosen = left
    columns = {name: [column[row] for row in chosen] for name, column in cells.columns.items()}
    return Cells(cells.source, columns, cells.twice, cells.warnings, [cells.numbers[row] for row in chosen])


def differing_columns(
    cells: Cells, used: Collection[str], N: Sequence[float | None], D: Sequence[float | None]
) -> list[str]:
    """Return a line for each column that tells runs apart which share N and D, so that none is taken for a seed unsaid.

    Columns with hardly any value twice are names or measurements of runs, and are passed over. A column of text is
    named too where it is no label of one N or of one D: two corpora or families of models may share no cell.
    """
    lines = []
    for name, column in cells.columns.items():
        values = set(map(str, column))
        if name in used or not name or not 1 < len(values) <= cells.rows / 3:
            continue
        rows = [(n, d, str(value)) for n, d, value in zip(N, D, column, strict=True) if n is not None and d is not None]
        shared = _several([((n, d), value) for n, d, value in rows])
        text = any(isinstance(value, str) and not _number(value) for value in column)
        label = not _several([(v, n) for n, _, v in rows]) or not _several([(v, d) for _, d, v in rows])
        if shared or (text and not label):
            what = "rows of one N and D differ" if shared else "rows differ"
            first = next(value for value in column if value is not None)
            lines.append(
                f"{what} in {name!r} ({_some(column)}), and are fitted together: --where '{name}={first}' fits one kind"
            )
    return lines


_TUNED = re.compile(
    r"((peak|max|base)[ _-]?)?(lr|learning[ _-]?rate)|"
    r"((global|train|total)[ _-]?)?(batch|bs)([ _-]?(size|tokens?|sequences?))*",
    re.IGNORECASE,
)
"""Names of columns of a learning rate or of a batch."""


def tuning_columns(cells: Cells, N: Sequence[float | None], D: Sequence[float | None]) -> list[str]:
    """Return the columns of learning rates and batches that take several values within a cell of N and D."""
    found = []
    for name, column in cells.columns.items():
        if not _TUNED.fullmatch(name):
            continue
        values = [value if not isinstance(value, str) else _number(value) for value in column]
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


def _number(text: str) -> float | None:
    try:
        return parse_number(text)
    except ValueError:
        return None


def _is(cell: Any, text: str) -> bool:
    """Return whether a cell is what a command line writes as `text`; numbers may be written in any way."""
    if cell is None or str(cell).casefold() == text.casefold():
        return cell is not None
    number = _number(text)
    return number is not None and not isinstance(cell, bool) and number == _number(str(cell))
