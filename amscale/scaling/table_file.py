"""The cells of a table as its file holds them: text from CSV and the like, values from JSON and Parquet.

No type, index, separator or name is guessed: a file is read in the one way that it allows, or an error says where it
allows none or several.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.errors import InputError
from amscale.settings import parse_number

if TYPE_CHECKING:
    import pandas as pd

_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_KINDS = "CSV, TSV, JSON, JSON Lines or Parquet"
_COMPRESSED: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}


@dataclass
class Cells:
    """A table's columns by name, in their order, and what a reader should know of how they were read.

    A name that occurs twice has its first column here, and stands in `twice` if the two differ. Missing cells are None.
    `selected` holds the numbers of the rows where some were selected.
    """

    source: str
    columns: dict[str, list[Any]] = field(default_factory=dict)
    twice: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    selected: list[int] | None = None

    @cached_property
    def numbers(self) -> list[int]:
        """The numbers of the rows in the file, from 1."""
        return list(range(1, self.rows + 1)) if self.selected is None else self.selected

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values()), []))

    def add(self, name: Any, values: list[Any]) -> None:
        """Add a column; blanks around its name are no part of it."""
        name = " ".join(str(name).split())
        if name not in self.columns:
            self.columns[name] = values
        elif self.columns[name] != values:
            self.twice.add(name)


def read_cells(source: "str | Path | pd.DataFrame | Cells") -> Cells:
    """Return the cells of a file or a DataFrame; those that are read already as they are.

    Raises:
        InputError: no such file, no table in it, or one that can be read in no way or in several; by line or row.
    """
    import pandas as pd

    if isinstance(source, Cells):
        return source
    if isinstance(source, pd.DataFrame):
        cells = _from_frame(source, "DataFrame")
    elif isinstance(source, str | Path):
        cells = _from_file(Path(source))
    else:
        raise InputError(f"a table is a path or a DataFrame, not a {type(source).__name__}")
    if not cells.rows:
        raise InputError(f"{'the DataFrame' if cells.source == 'DataFrame' else cells.source} has no rows")
    return cells


def _from_file(path: Path) -> Cells:
    if not path.is_file() and not path.is_fifo():
        raise InputError(f"{path} is not a file; give a sweep folder, or a {_KINDS} file with N, D and loss")
    try:
        content = _decompressed(path.read_bytes(), path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if content.startswith(b"PAR1"):
        return _from_parquet(content, path)
    text = _decoded(content, path)
    if not text.strip():
        raise InputError(f"{path} is empty; a table has a line of names, such as N,D,loss, and rows below it")
    if text.lstrip()[0] in "[{":
        return _from_json(text, path)
    return _from_text(text, path)


def _decompressed(content: bytes, path: Path) -> bytes:
    try:
        for mark, decompress in _COMPRESSED.items():
            if content.startswith(mark):
                return decompress(content)
        if content.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/") and "__MACOSX" not in name]
                if len(names) == 1:
                    return archive.read(names[0])
            raise InputError(f"{path} is a spreadsheet or an archive of {len(names)} files; save one table as CSV")
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError) as error:
        raise InputError(f"{path} cannot be decompressed: {error}") from None
    return content


def _decoded(content: bytes, path: Path) -> str:
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}: line {line} is not UTF-8 text; a table is a {_KINDS} file") from None
    if "\0" in text:
        raise InputError(f"{path} is not a table: it holds a NUL character; a table is a {_KINDS} file")
    return text


def _from_text(text: str, path: Path) -> Cells:
    """Return the cells of a text whose lines have one separator, the one with which every row fits the names."""
    lines = [f"{line}\n" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    if lines[0].startswith("sep=") and len(lines[0].strip()) == 5:  # what Excel reads and writes
        return _split(lines[1:], lines[0][4], path, 1)
    lines = _with_names(lines)
    header = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    candidates = _separators(header)
    read: list[Cells] = []
    faults: list[InputError] = []
    for separator in candidates:
        try:
            read.append(_split(lines, separator, path))
        except InputError as error:
            faults.append(error)
    if len(read) > 1:  # N, D and loss are three
        read = [cells for cells in read if len(cells.columns) > 2] or read
    if len(read) > 1:
        names = " or ".join(_SEPARATORS[separator] for separator in candidates if separator)
        raise InputError(f"{path}: its names and rows fit together with {names} between them; use one separator")
    if not read:
        usual = "\t" if path.suffix.lower() == ".tsv" else max(candidates, key=lambda each: header.count(each or " "))
        raise faults[candidates.index(usual)] if usual in candidates else faults[0]
    return read[0]


def _with_names(lines: list[str]) -> list[str]:
    """Return the lines with the line of names uncommented where it begins with #, as numpy.savetxt writes it.

    It is the last comment above the first row that has as many cells as this row, none of them a number, where the row
    holds numbers and so is no line of names itself.
    """
    first = next((index for index, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
    for index in reversed(range(first)):
        for separator in _separators(lines[first]):
            names, row = _cells_of(lines[index].removeprefix("#"), separator), _cells_of(lines[first], separator)
            fits = 1 < len(names) <= len(row) and not any(row[len(names) :])
            if fits and any(map(_is_number, row)) and not any(map(_is_number, names)):
                # In `#params,#tokens,loss` it is part of the names.
                kept = f" {lines[index]}" if any(name.startswith("#") for name in names) else lines[index][1:]
                return [*lines[:index], kept, *lines[index + 1 :]]
    return lines


def _separators(header: str) -> list[str | None]:
    """Return what may stand between the cells of a line; None stands for any number of blanks."""
    found: list[str | None] = [separator for separator in _SEPARATORS if separator in header]
    return found or ([None] if len(header.split()) > 1 else [","])


def _cells_of(line: str, separator: str | None) -> list[str]:
    text = " ".join(line.split()) if separator is None else line.strip(" \n")
    try:
        return [
            cell.strip() for cell in next(csv.reader([text], delimiter=separator or " ", skipinitialspace=True), [])
        ]
    except csv.Error:  # of more than 128 KiB
        return []


def _split(lines: Sequence[str], separator: str | None, path: Path, skipped: int = 0) -> Cells:
    """Return the cells of lines with a separator between them; None stands for any number of blanks.

    Lines that begin with # are comments, but for one of names (`_with_names`); rows without any content are none.
    """
    kept = [(number, line) for number, line in enumerate(lines, skipped + 1) if not line.startswith("#")]
    comments = len(lines) - len(kept)
    if separator is None:
        kept = [(number, " ".join(line.split()) + "\n") for number, line in kept]
    rows: list[tuple[int, list[str]]] = []
    reader = csv.reader((line for _, line in kept), delimiter=separator or " ", skipinitialspace=True, strict=True)
    begin = 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((kept[begin][0], [cell.strip() for cell in row]))
            begin = reader.line_num
    except csv.Error as error:
        raise InputError(f"{path}: line {kept[min(begin, len(kept) - 1)][0]} cannot be read: {error}") from None
    if not rows:
        raise InputError(f"{path} has no rows")
    (line, names), *body = rows
    if all(_is_number(name) for name in names if name):
        remark = " (lines that begin with # are comments)" if comments else ""
        raise InputError(
            f"{path}: line {line} holds numbers where the names of the columns belong{remark}; begin the file with a "
            "line such as N,D,loss"
        )
    width, ragged = len(names), 0
    for line, row in body:
        if len(row) > width and not any(row[width:]):
            ragged += 1
            del row[width:]
        if len(row) != width:
            found = ", ".join(map(repr, row[:8]))
            counted = [other[0] for _, other in body] == [str(count) for count in range(1, len(body) + 1)]
            advice = "; rows that R has numbered: write the table with row.names = FALSE" if counted else ""
            raise InputError(
                f"{path}: line {line} has {len(row)} cells and the line of names {width} ({', '.join(names)}): "
                f"{found}{advice}"
            )
    cells = Cells(str(path))
    for index, name in enumerate(names):
        cells.add(name, [_cell(row[index]) for _, row in body])
    if ragged:
        cells.warnings.append(f"{ragged} rows end in a separator that the names do not have: no cell is taken from it")
    return cells


_MISSING = {"", "na", "n/a", "#n/a", "none", "null", "-", "--"}
_LONGEST_MISSING = 4


def _cell(text: str) -> str | None:
    return None if len(text) <= _LONGEST_MISSING and text.lower() in _MISSING else text


def _is_number(text: str) -> bool:
    try:
        parse_number(text)
    except ValueError:
        return False
    return True


def _from_json(text: str, path: Path) -> Cells:
    """Return the cells of a list of objects, of an object of lists or of objects, or of one object a line."""
    try:
        tree = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise InputError(f"{path} cannot be read as JSON: nested too deep") from None
    except ValueError as whole:
        tree = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                tree += [json.loads(line, object_pairs_hook=_once)] if line.strip() else []
            except (ValueError, RecursionError) as error:
                reason = whole if text.lstrip().startswith("[") else f"line {number}: {error}"
                raise InputError(f"{path} cannot be read as JSON: {reason}") from None
    if isinstance(tree, dict) and len(tree) == 1:
        (only,) = tree.values()  # a table has three columns: one list of objects is its rows
        tree = only if isinstance(only, list) and all(isinstance(row, dict) for row in only) else tree
    if isinstance(tree, dict) and tree and all(isinstance(column, dict) for column in tree.values()):
        keys = list(dict.fromkeys(key for column in tree.values() for key in column))
        tree = {name: [column.get(key) for key in keys] for name, column in tree.items()}
    if isinstance(tree, dict) and tree and all(isinstance(column, list) for column in tree.values()):
        lengths = {name: len(column) for name, column in tree.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"{path}: its columns have different lengths: {lengths}")
    elif isinstance(tree, dict):
        tree = [tree]
    if isinstance(tree, list):
        for number, row in enumerate(tree, 1):
            if not isinstance(row, dict):
                raise InputError(f"{path}: row {number} is {str(row)[:40]!r}; a row is an object such as {{'N': …}}")
        tree = [_flat(row) for row in tree]
        names = list(dict.fromkeys(name for row in tree for name in row))
        tree = {name: [row.get(name) for row in tree] for name in names}
    return _of_values(tree, str(path))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose cells are no objects: `{"config": {"N": 1}}` has a column config.N."""
    found: dict[str, Any] = {}
    for name, cell in row.items():
        inner = {f"{name}.{key}": value for key, value in cell.items()} if isinstance(cell, dict) else {}
        found |= _flat(inner) if inner else {name: None if cell == {} else cell}
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, _ in pairs if sum(other == name for other, _ in pairs) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return found


def _from_parquet(content: bytes, path: Path) -> Cells:
    import pandas as pd

    try:
        frame = pd.read_parquet(io.BytesIO(content))
    except Exception as error:  # the reader raises many kinds; each means the same to the user
        raise InputError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    return _from_frame(frame, str(path))


def _from_frame(frame: "pd.DataFrame", source: str) -> Cells:
    """Return the cells of a DataFrame; levels of its index that have a name are columns too."""
    index = frame.index
    cells = Cells(source)
    for position, name in enumerate(frame.columns):
        cells.add(name, [_value(value) for value in frame.iloc[:, position].astype(object)])
    for level, title in enumerate(index.names):
        if title is not None and str(title) not in cells.columns:
            cells.add(title, [_value(value) for value in index.get_level_values(level).astype(object)])
    return cells


def _of_values(columns: dict[str, list[Any]], source: str) -> Cells:
    cells = Cells(source)
    for name, values in columns.items():
        cells.add(name, [_value(value) for value in values])
    return cells


def _value(value: Any) -> Any:
    """Return a cell that is not text as it is, and None for every way to say that there is nothing."""
    import pandas as pd

    if isinstance(value, str):
        return _cell(value.strip())
    undefined = value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))
    return None if undefined else value
