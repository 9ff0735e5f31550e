"""The values of a fit on a terminal before all of their intervals are known."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from amscale.scaling.estimate import interval_text

if TYPE_CHECKING:
    from rich.console import Console, Group

    from amscale.scaling.laws.compare import Comparison, Progress

_TITLE = "first values by Huber's objective; intervals and tests follow, and may find some not determined"


@contextmanager
def first_values(console: "Console") -> "Iterator[Progress | None]":
    """Show what it is told of the laws until the end of the context, and wipe it then; nothing beside a terminal."""
    from rich.live import Live

    if not console.is_terminal:
        yield None
        return
    with Live("fitting", console=console, transient=True, auto_refresh=False) as live:
        yield lambda laws: live.update(first_table(laws), refresh=True)


def first_table(laws: "Sequence[Comparison]") -> "Group":
    """Return a row for each law that has k or a floor, with the intervals that are known."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("law")
    for heading in ("k", "95 % interval", "floor", "95 % interval"):
        table.add_column(heading, justify="right")
    for law in laws:
        if law.objective != "huber_log" or (law.k is None and law.floor is None):
            continue
        cells = [law.law]
        for name, value in (("k", law.k), ("floor", law.floor)):
            known = interval_text(law.intervals[name]) if name in law.intervals else "…"
            cells += ["", ""] if value is None else [f"{value:.4g}", known]
        table.add_row(*map(Text, cells))
    return Group(Text(_TITLE, style="dim"), table)
