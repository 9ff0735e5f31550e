"""Estimates on a terminal: one table of numbers, then the ground that each stands on."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from amscale.scaling.estimate import Estimate, Hypothesis, interval_text

if TYPE_CHECKING:
    from rich.console import Console

_MOST_NAMED = 4


def print_estimates(console: "Console", estimates: Sequence[Estimate]) -> None:
    """A row per estimate, and below the table a numbered note: convention, method, tests and what was left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="estimates", title_justify="left")
    for heading in ("", "estimand", "value", "95 % interval", "points", "objective"):
        table.add_column(heading, justify="right" if heading in ("value", "points") else "left", overflow="fold")
    for number, estimate in enumerate(estimates, start=1):
        refused = estimate.value is None
        value = "refused" if refused else f"{estimate.value:.4g}"
        interval = "" if refused else interval_text(estimate.interval)
        cells = (str(number), estimate.estimand, value, interval, str(estimate.used), estimate.objective)
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    for number, estimate in enumerate(estimates, start=1):
        for index, line in enumerate(_notes(estimate)):
            console.print(Text(f"{number if index == 0 else '':>2}  {line}"), soft_wrap=True)


def _notes(estimate: Estimate) -> Iterator[str]:
    if estimate.refusal:
        yield f"refused: {estimate.refusal}"
    yield f"{estimate.convention}; {estimate.method}"
    yield from (_verdict(test) for test in estimate.hypotheses)
    yield from estimate.remarks
    if estimate.left_out:
        more = len(estimate.left_out) - _MOST_NAMED
        named = "; ".join(estimate.left_out[:_MOST_NAMED])
        yield f"left out {len(estimate.left_out)}: {named}" + (f"; {more} more, named in fit.json" if more > 0 else "")


def _verdict(test: Hypothesis) -> str:
    p = "" if test.p_value is None else f", p {test.p_value:.2g}"
    return f"{test.name}: {'rejected' if test.rejected else 'not rejected'} at 5 % ({test.how}{p})"
