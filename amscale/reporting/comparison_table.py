"""Print what differs between two sweeps."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from amscale.reporting.comparison import CellPair, Comparison, EstimateDifference
from amscale.reporting.terminal import print_line
from amscale.scaling.estimate import ends_of
from amscale.settings import counted, format_size, format_value


def print_comparison(found: Comparison, console: Console) -> None:
    """Print settings that differ, the common cells, and the estimates, as tables."""
    print_line(console, f"A: {found.first}\nB: {found.second}\n")
    if found.settings:
        rows = [(d.key, format_value(d.first), format_value(d.second)) for d in found.settings]
        _print(console, "settings that differ", ("setting", "A", "B"), rows)
    else:
        print_line(console, "no setting differs")
    if found.cells:
        headings = ("N", "D", "seed", "validation A", "B", "B - A", "train A", "B", "B - A")
        _print(
            console,
            f"{counted(len(found.cells), 'cell')} in common",
            headings,
            [_cell_row(pair) for pair in found.cells],
        )
    else:
        print_line(console, "no cell in common")
    for name, only in (("A", found.only_first), ("B", found.only_second)):
        if only:
            print_line(console, f"in {name} alone: {len(only)} results")
    if found.no_estimates:
        print_line(console, f"estimates are not compared: {found.no_estimates}")
        return
    for verdict in found.verdicts:
        print_line(console, f"{verdict.question}\n  A: {verdict.first}\n  B: {verdict.second}")
    if not found.verdicts:
        print_line(console, "both verdicts have the same headlines")
    changed = [estimate for estimate in found.estimates if estimate.changed]
    if changed:
        columns = ("estimate", "A", "B", "rejected by A", "by B")
        _print(console, "estimates that changed", columns, [_estimate_row(estimate) for estimate in changed])
    print_line(console, f"{len(found.estimates) - len(changed)} of {len(found.estimates)} estimates did not change")


def _print(console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _cell_row(pair: CellPair) -> tuple[str, ...]:
    losses = [text for both in (pair.validation, pair.train) for text in (*map(_loss, both), _difference(both))]
    mark = " (one trial)" if pair.same_trial else ""
    return format_size(pair.N), format_size(pair.D), f"{pair.seed}{mark}", *losses


def _loss(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _difference(both: tuple[float | None, float | None]) -> str:
    first, second = both
    return "" if first is None or second is None else f"{second - first:+.4f}"


def _estimate_row(estimate: EstimateDifference) -> tuple[str, ...]:
    values = [_value(*pair) for pair in zip(estimate.values, estimate.intervals, strict=True)]
    return estimate.estimand, *values, *(", ".join(f"{value:g}" for value in found) for found in estimate.rejected)


def _value(value: float | None, interval: Any) -> str:
    if value is None:
        return "not determined"
    return f"{value:.4g}" + ("" if interval is None else " ({:.4g} to {:.4g})".format(*ends_of(interval)))
