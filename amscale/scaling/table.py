"""Read points from the rows of a table: a CSV, TSV, JSON, JSON Lines or Parquet file, or a DataFrame."""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.errors import InputError
from amscale.scaling.points import Point, PointTable
from amscale.scaling.table_curves import rows_of_runs
from amscale.scaling.table_file import Cells
from amscale.scaling.table_numbers import LARGEST, is_number, merged, nats_per_token, power_of, scale_of, to_number
from amscale.scaling.table_rows import differing_columns, is_text, tuning_columns
from amscale.scaling.units import LEAST_COUNT, in_doubt, named_for_accuracy, named_for_perplexity, units_warnings
from amscale.settings import parse_number

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns: N, D (unique tokens), the loss, training FLOPs, the seed and the tokens seen.

    A command has an option for each, such as `--n_column`.
    """

    n: str = "N"
    d: str = "D"
    loss: str = "loss"
    flops: str = "flops"
    seed: str = "seed"
    tokens: str = "tokens"

    def to_dict(self) -> dict[str, str]:
        """Return the names by the command's options."""
        return {f"{field.name}_column": getattr(self, field.name) for field in fields(self)}


def read_table(
    source: "str | Path | pd.DataFrame | Cells",
    columns: Columns | None = None,
    loss_unit: str = "nats",
    bytes_per_token: float | None = None,
    where: str | None = None,
    tune: Sequence[str] | None = None,
    least_sizes: int = 2,
) -> PointTable:
    """Read the rows of a file or a DataFrame as points.

    Where there is no column of D, D is the tokens seen, or else FLOPs / (6 N). A row without N, D or a finite loss, and
    a row that repeats another in full, are left out by name. Values of N or D that agree to nine digits are one value.

    Args:
        loss_unit, bytes_per_token: as for `nats_per_token`.
        where: read only the rows with these cells, `column=value` or `column<value`, several joined by commas.
        tune: columns of settings of which each cell of N and D takes its best value, such as the learning rate, which
            the points keep. By default those whose name says learning rate or batch, and that vary within cells.
        least_sizes: how many different N are needed.

    Raises:
        InputError: the file or a column is missing, a cell is not the number it must be, there are fewer N than needed,
            or the unit of the loss is unclear.
    """
    columns = columns or Columns()
    cells = rows_of_runs(source, columns, where)
    return points_of(cells, columns, loss_unit, bytes_per_token, where, tune, least_sizes)


def points_of(
    cells: Cells,
    columns: Columns,
    loss_unit: str,
    bytes_per_token: float | None,
    where: str | None,
    tune: Sequence[str] | None,
    least_sizes: int = 2,
) -> PointTable:
    """Read rows of runs as points, as `read_table` does; `where` has selected them, and is only named."""
    factor = nats_per_token(loss_unit, bytes_per_token)
    reader = _Reader(cells, columns)
    times = "the logarithm of" if loss_unit == "perplexity" else f"{factor:.4g} times"
    unit = "nats per token" if loss_unit == "nats" else f"nats per token, {times} the file's {loss_unit}"
    table = PointTable(
        reader.cells.source, f"N as given in column {reader.names['n']!r}; loss in {unit}", [], [], reader.warnings
    )
    if where is not None:
        table.convention += f"; rows with {where}"
    N, D, tokens, flops = (reader.positive(key) for key in ("n", "d", "tokens", "flops"))
    if D is None:
        D, tokens = _amounts(reader, N, tokens, flops)
    loss = [None if value is None else factor * value for value in reader.losses(loss_unit)]
    seeds = reader.seeds()
    rows = [merged(N), merged(D), loss, seeds, flops, tokens]
    axes = reader.axes(tune, merged(N), merged(D))
    different = differing_columns(reader.cells, {*reader.names.values(), *axes}, merged(N), merged(D))
    names = [name for name in different if is_text(reader.cells.columns[name])]
    _collect(table, reader.cells, [column or [None] * reader.cells.rows for column in rows], axes, names)
    table.warnings += different.values()
    table.warnings += units_warnings(table, reader.names, loss_unit)
    table.unit_in_doubt = in_doubt(table, reader.names["loss"], loss_unit)
    for key, column in (("flops", flops), ("tokens", tokens)):
        if column is not None and None in column and any(value is not None for value in column):
            lacking = sum(value is None for value in column)
            table.warnings.append(f"{reader.names[key]!r} is missing in {lacking} rows, and is used for none")
    if len({point.N for point in table.points}) < least_sizes:
        left_out = f"; left out: {'; '.join(table.reasons[:3])}" if table.left_out else ""
        words = {1: "one size", 2: "two sizes"}.get(least_sizes, f"{least_sizes} sizes")
        raise InputError(
            f"{table.source} has {len(table.points)} usable rows and fewer than {words} N; a fit of N and D needs "
            f"more{left_out}"
        )
    return table


def _amounts(
    reader: "_Reader", N: list[float | None] | None, tokens: list[float | None] | None, flops: list[float | None] | None
) -> tuple[list[float | None], list[float | None] | None]:
    """Return D for a table without a column of it, and the tokens seen where they are something else than D."""
    if tokens is not None:
        if unique := [name for name in reader.cells.columns if _UNIQUE.search(name)]:
            raise InputError(
                f"{reader.cells.source} has {unique[0]!r} beside {reader.names['tokens']!r}: name the unique tokens "
                f"with --d_column (perhaps {unique[0]!r})"
            )
        reader.warnings.append(f"D is not in the file: taken as the tokens seen, {reader.names['tokens']}, each once")
        return tokens, None
    reader.warnings.append(f"D is not in the file: taken as {reader.names['flops']} / (6 {reader.names['n']})")
    pairs = zip(N or [], flops or [], strict=True)
    return [None if n is None or c is None else c / (6 * n) for n, c in pairs], None


_UNIQUE = re.compile(r"(uniq|distinct).*(tok|data)|(tok|data).*(uniq|distinct)", re.IGNORECASE)
_SIZES = ("n", "d", "flops", "tokens")
_WORDS_OF = {
    "n": ("param", "size", "model"),
    "d": ("token", "data"),
    "loss": ("loss", "nll", "entropy", "bpb", "ppl", "perplex"),
    "flops": ("flop", "compute"),
}


class _Reader:
    """Finds the columns of a table and turns their cells into numbers."""

    def __init__(self, cells: Cells, columns: Columns) -> None:
        self.cells = cells
        self.columns = columns
        self.warnings = list(cells.warnings)
        defaults = Columns()
        self.names: dict[str, str] = {}
        lacking = []
        for key in ("n", "d", "loss", "flops", "seed", "tokens"):
            wanted = getattr(columns, key)
            name = self._find(key, wanted)
            if name is not None:
                self.names[key] = name
            elif key in ("n", "loss") or wanted != getattr(defaults, key):
                lacking.append(key)
        if not {"d", "tokens", "flops"} & {*self.names, *lacking}:
            lacking.insert("n" in lacking, "d")
        if lacking:
            raise InputError(self._no_columns(lacking))
        self.decimal = self._decimal_sign()

    def _find(self, key: str, wanted: Any) -> str | None:
        """Return the column of that name, or the only one whose name differs from it by case alone."""
        text = " ".join(str(wanted).split())
        same = [name for name in self.cells.columns if name.casefold() == text.casefold()]
        found = text if text in same else same[0] if len(same) == 1 else None
        if found is None and same:
            raise InputError(
                f"{self.cells.source}: --{key}_column {text!r} may be {' or '.join(map(repr, same))}; write one of them"
            )
        if found in self.cells.twice:
            raise InputError(
                f"{self.cells.source} has two columns {found!r} with different cells; rename or remove one"
            )
        return found

    def _no_columns(self, lacking: Sequence[str]) -> str:
        """Return which columns are missing, which ones there are, and which may be meant."""
        names = list(self.cells.columns)
        wanted = [repr(str(getattr(self.columns, key))) for key in lacking]
        listed = " or ".join(filter(None, (", ".join(wanted[:-1]), wanted[-1])))
        has = f"{self.cells.source} has no column {listed}; its columns are {', '.join(names)}"
        if len(names) == 1:
            return f"{has}: put commas, semicolons or tabs between the columns"
        options = []
        for key in lacking:
            option, near = f"--{key}_column", self._near(key)
            if key == "d" and not near:
                near = self._near("flops")
                option = "--flops_column" if near else "--d_column or --flops_column"
            options.append(option + (f" (perhaps {' or '.join(map(repr, near))})" if near else ""))
        return f"{has}: name {'one' if len(lacking) == 1 else 'them'} with {', '.join(options)}"

    def _near(self, key: str) -> list[str]:
        """Return the columns, at most three, that may be meant by one that is missing."""
        free = {name.casefold(): name for name in self.cells.columns if name not in self.names.values()}
        wanted = str(getattr(self.columns, key)).casefold()
        near = difflib.get_close_matches(wanted, free, cutoff=0.7)
        near += [name for name in free if name.startswith(tuple(wanted + sign for sign in " _/([×*"))]
        near += [name for name in free if any(word in name for word in _WORDS_OF.get(key, ()))]
        near += [name for name in free if key == "flops" and name == "c"]
        return [free[name] for name in dict.fromkeys(near)][:3]

    def _decimal_sign(self) -> str:
        """Return the decimal sign of the numbers that are written as text: the only one with which all can be read."""
        used = [self.cells.columns[name] for name in self.names.values()]
        if not any(isinstance(cell, str) and ("," in cell or cell.count(".") > 1) for cells in used for cell in cells):
            return "."
        signs: dict[str, tuple[int, str, str]] = {}
        comma = None
        for key, name in self.names.items():
            for row, cell in zip(self.cells.numbers, self.cells.columns[name], strict=True):
                if not isinstance(cell, str) or cell.isalnum() or not ("," in cell or "." in cell):
                    continue
                valid = {sign for sign in ".," if is_number(cell, sign, grouped=key in _SIZES)}
                if comma is None and "," in cell and len(valid) == 2:
                    comma = (row, name, cell)
                for sign in valid if len(valid) == 1 else ():
                    signs.setdefault(sign, (row, name, cell))
        if len(signs) == 2:
            (row, name, cell), (other_row, other_name, other) = signs["."], signs[","]
            raise InputError(
                f"{self.cells.source}: row {row}, column {name!r} holds {cell!r} and row {other_row}, column "
                f"{other_name!r} holds {other!r}: is the comma a decimal sign? write all numbers with a point"
            )
        if comma and not signs:
            row, name, cell = comma
            raise InputError(
                f"{self.cells.source}: row {row}, column {name!r} holds {cell!r}, which may be "
                f"{parse_number(cell):g} or {parse_number(cell, ','):g}; write it without a comma"
            )
        if "," in signs:
            self.warnings.append("numbers are read with a decimal comma, and points as separators of thousands")
        return "," if "," in signs else "."

    def _numbers(self, key: str) -> list[float | None] | None:
        """Return a column's numbers, None for missing ones; only sizes may be text with a suffix or thousands."""
        name = self.names.get(key)
        if name is None:
            return None
        sizes = key in _SIZES or key.startswith("tune ")
        scale = self._scale(name, power_of if key == "flops" else scale_of) if sizes else 1.0
        found: list[float | None] = []
        for row, cell in zip(self.cells.numbers, self.cells.columns[name], strict=True):
            try:
                found.append(None if cell is None else to_number(cell, self.decimal, sizes, scale))
            except (ValueError, OverflowError):
                example = "a number such as 2e8, 400M or 1,000,000" if sizes else "a number"
                raise self._fault(row, name, cell, f"{example} is needed") from None
        if key != "loss":
            found = [None if value is not None and math.isnan(value) else value for value in found]
        known = [value for value in found if value is not None]
        if key in ("n", "d", "tokens") and scale == 1 and known and max(known) < LEAST_COUNT:
            # `params_b` may be anything's; where its numbers are too small for a count, its letter is their unit.
            scale = self._scale(name, lambda name: scale_of(name[:-1] + name[-1].upper()))
            found = [None if value is None else scale * value for value in found]
        return found

    def _scale(self, name: str, read: Callable[[str], float | None]) -> float:
        """Return what the numbers of a column are to be multiplied by: what `read` finds in its name, or 1."""
        try:
            scale = read(name)
        except ValueError as error:
            raise InputError(
                f"{self.cells.source}: the name of column {name!r} is unclear: {error}; rename it"
            ) from None
        if scale is not None:
            self.warnings.append(f"the numbers of column {name!r} are taken times {scale:g}, as its name says")
        return scale or 1.0

    def _fault(self, row: int, name: str, cell: Any, what: str) -> InputError:
        return InputError(f"{self.cells.source}: row {row}, column {name!r} holds {cell!r}; {what}")

    def positive(self, key: str) -> list[float | None] | None:
        """Return the positive numbers of a column, None for a missing one; None where there is no such column."""
        values = self._numbers(key)
        for row, value in zip(self.cells.numbers, values or [], strict=values is not None):
            if value is not None and not 1 / LARGEST < value < LARGEST:
                most = f" below {LARGEST:g}" if value >= LARGEST else ""
                raise self._fault(row, self.names[key], value, f"it must be a positive number{most}")
        return values

    def losses(self, unit: str) -> list[float | None]:
        """Return the losses in the table's unit, of perplexities the logarithms.

        A missing one is None, and that of a diverged run not finite.
        """
        name = self.names["loss"]
        if named_for_accuracy(name):
            raise InputError(
                f"{self.cells.source}: {name!r} is named for an accuracy or a score, which is no loss: name the column "
                "of the cross-entropy with --loss_column; rename this one if it holds that"
            )
        values = self._numbers("loss") or []
        if unit == "perplexity":
            return self._logarithms(values)
        if unit == "nats" and named_for_perplexity(name):
            raise InputError(
                f"{self.cells.source}: {name!r} is named for a perplexity, which is no loss: "
                "--loss_unit perplexity takes its logarithm; rename the column where that is done"
            )
        for row, value in zip(self.cells.numbers, values, strict=True):
            if value is not None and math.isfinite(value) and not 1 / LARGEST < value < LARGEST:
                raise InputError(f"{self.cells.source}: row {row} has loss {value:g}; a cross-entropy must be positive")
        return values

    def _logarithms(self, values: Sequence[float | None]) -> list[float | None]:
        for row, value in zip(self.cells.numbers, values, strict=True):
            if value is not None and value <= 1:
                raise self._fault(row, self.names["loss"], value, "a perplexity is above 1")
        return [None if value is None else math.log(value) for value in values]

    def axes(
        self, wanted: Sequence[str] | None, N: Sequence[float | None], D: Sequence[float | None]
    ) -> dict[str, list[float | None]]:
        """Return the columns that are tuned by cell, by name.

        Raises:
            InputError: there is no such column, or a cell of it is no positive number.
        """
        names = [self._axis(name) for name in wanted] if wanted is not None else list(tuning_columns(self.cells, N, D))
        for name in names:
            self.names[f"tune {name}"] = name
        found = {name: self.positive(f"tune {name}") or [] for name in names}
        if wanted is None and names:
            self.warnings.append(
                f"rows of one N and D differ in {' and '.join(map(repr, names))}: tuned by cell; --tune none fits all "
                "rows as they are"
            )
        return found

    def _axis(self, wanted: str) -> str:
        same = [name for name in self.cells.columns if name.casefold() == wanted.casefold()]
        name = wanted if wanted in same else same[0] if len(same) == 1 else None
        if name is None:
            raise InputError(
                f"tune={wanted!r}: {self.cells.source} has no such column; its columns are "
                f"{', '.join(self.cells.columns)}"
            )
        return name

    def seeds(self) -> list[float | None] | None:
        """Return the seeds, whole numbers."""
        values = self._numbers("seed")
        for row, value in zip(self.cells.numbers, values or [], strict=values is not None):
            if value is not None and not value.is_integer():
                raise self._fault(row, self.names["seed"], value, "a whole number is needed")
        return values


def _collect(
    table: PointTable,
    cells: Cells,
    columns: Sequence[Sequence[float | None]],
    axes: Mapping[str, Sequence[float | None]],
    labels: Sequence[str],
) -> None:
    """Add points from the columns N, D, loss, seed, flops and tokens; a repeat equals another row in every cell.

    Args:
        axes: columns that are tuned by cell, by name. A run that diverged counts as one that was tried.
        labels: columns of text by which rows differ.
    """
    seen: dict[tuple[float | None, ...], list[int]] = {}
    for row, values in enumerate(zip(*columns, strict=True)):
        N, D, loss, seed, flops, tokens = values
        name = f"row {cells.numbers[row]}"
        settings = {axis: values[row] for axis, values in axes.items()}
        known = {axis: value for axis, value in settings.items() if value is not None}
        lacking = [key for key, value in (("N", N), ("D", D), ("loss", loss)) if value is None]
        lacking += [axis for axis in axes if axis not in known]
        if N is None or D is None or loss is None or len(known) < len(axes):
            table.left_out.append((name, f"{' and '.join(lacking)} missing"))
        elif not math.isfinite(loss):
            table.left_out.append((name, f"loss is {loss}"))
            table.hopeless.append(Point(name, N, D, math.inf, settings=known))
        else:
            like = seen.setdefault(values, [])
            same = [other for other in like if all(each[other] == each[row] for each in cells.columns.values())]
            if same:
                table.left_out.append((name, f"repeats row {cells.numbers[same[0]]} exactly"))
                continue
            like.append(row)
            whole = None if seed is None else int(seed)
            kind = tuple((label, str(cells.columns[label][row])) for label in labels)
            table.points.append(Point(name, N, D, loss, whole, flops, tokens, settings=known, labels=kind))
    if table.left_out:
        reasons = "; ".join(table.reasons[:5])
        table.warnings.append(f"{len(table.left_out)} of {cells.rows} rows left out: {reasons}")
