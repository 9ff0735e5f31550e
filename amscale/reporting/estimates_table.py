"""A fit on a terminal: its verdict, tables of its estimates, the laws side by side, and what each rests on."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from amscale.reporting import capacity_table
from amscale.scaling.estimate import Estimate, HypothesisTest, interval_text
from amscale.scaling.forecast import score_lines
from amscale.scaling.laws.compare import HELD_OUT, HELD_OUT_FACTOR, Comparison
from amscale.scaling.verdict import ANSWER, ASKED, NEXT, NOT_SAID, Verdict
from amscale.settings import counted

if TYPE_CHECKING:
    from rich.console import Console

    from amscale.scaling.base_fit import BaseFit

_LABEL = 10
"""Columns of a label of the verdict."""
_MOST_LISTED = 4
_NARROWEST = 20
"""Least width of a folded column, in characters."""


def print_fit(fit: "BaseFit", console: "Console", grounds: bool = False) -> None:
    """Print the verdict, then the source, warnings, the estimates that have a value, and the laws.

    With `grounds`, what every estimate rests on follows, or why it has no value.
    """
    from rich.text import Text

    print_verdict(fit.verdict(), console)
    console.print()
    header = f"{fit.table.source}: {counted(len(fit.table.points), 'point')}, {len(fit.table.left_out)} left out"
    console.print(Text(f"{header}; {fit.table.convention}"))
    for warning in fit.table.warnings:
        console.print(Text(f"warning: {warning}"), style="yellow")
    for line in fit.tuning.lines() if fit.tuning else ():
        console.print(Text(line))
    print_estimates(console, fit.estimates)
    print_capacity(console, fit.estimates)
    print_laws(console, fit.laws, _reach(fit.table.flops.tolist()))
    for score in fit.forecasts:
        for line in score_lines(score):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if grounds:
        print_grounds(console, fit.estimates, fit.table.convention.split("; "))


def print_verdict(verdict: Verdict, console: "Console") -> None:
    """Print the verdict: a labelled line for each sentence, headlines in bold, shell commands uncut."""
    from rich.text import Text

    indent = " " * _LABEL
    last = ""
    for label, text in verdict.lines():
        if label == ASKED and last:
            console.print()
        last = label or last
        prefix = f"{label:{_LABEL}}"
        style = "bold" if label == ANSWER else "dim" if last == NOT_SAID else ""
        if last == NEXT and text.startswith("python -m "):
            console.print(Text(prefix, style="dim") + Text(text), soft_wrap=True)
            continue
        width = max(console.width - _LABEL, _NARROWEST)
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(lines):
            console.print(Text(indent if number else prefix, style="dim") + Text(line, style=style), soft_wrap=True)


def print_estimates(console: "Console", estimates: Sequence[Estimate]) -> None:
    """Print a row for each estimate that has a value, those of a group together, and in one line which have none."""
    groups = list(dict.fromkeys(estimate.group for estimate in estimates))
    ordered = [item for group in groups for item in estimates if item.group == group and item.value is not None]
    rows = [_cells(estimate) for estimate in ordered]
    headings = ("id", "estimand", "value", "95 % interval", "points", "rejected at 5 %")
    widths = _widths(console, headings, rows, stretched=1)
    for group in dict.fromkeys(item.group for item in ordered):
        console.print()
        console.print(group, style="bold", markup=False, highlight=False)
        chosen = [row for row, estimate in zip(rows, ordered, strict=True) if estimate.group == group]
        _print_rows(console, headings if group == ordered[0].group else None, chosen, widths, numbers=(2, 4))
    without = [estimate.id for estimate in estimates if estimate.value is None]
    if without:
        console.print()
        _print_note(console, f"not determined ({len(without)}): {', '.join(without)}")


def print_capacity(console: "Console", estimates: Sequence[Estimate]) -> None:
    """Print the memorised bits of each N by every count of it, and of all N together; nothing without any."""
    details = capacity_table.details_of(estimates)
    rows = capacity_table.size_rows(details)
    if not rows:
        return
    console.print()
    console.print("memorised bits", style="bold", markup=False, highlight=False)
    shown = [index for index, _ in enumerate(capacity_table.HEADINGS) if any(row[index] for row in rows)]
    headings = [capacity_table.HEADINGS[index] for index in shown]
    rows = [[row[index] for index in shown] for row in rows]
    numbers = [index for index, name in enumerate(headings) if name != "settings"]
    _print_rows(console, headings, rows, _widths(console, headings, rows, stretched=len(shown) - 1), numbers)
    if together := capacity_table.count_rows(details):
        console.print()
        headings = list(capacity_table.COUNT_HEADINGS)
        _print_rows(console, headings, together, _widths(console, headings, together, stretched=0), numbers=(1, 3))
    _print_note(console, capacity_table.NOTE)


def print_grounds(console: "Console", estimates: Sequence[Estimate], printed: Sequence[str] = ()) -> None:
    """Print what each estimate rests on, by its id.

    A line that several share is printed once, before the others; lines in `printed` are left out.
    """
    console.print()
    console.print("grounds", style="bold")
    notes = {item.id: [line for line in dict.fromkeys(_notes(item)) if line not in printed] for item in estimates}
    common: dict[str, list[str]] = {}
    for id, lines in notes.items():
        for line in lines:
            common.setdefault(line, []).append(id)
    for line, ids in common.items():
        if len(ids) > 1:
            _print_note(console, f"{', '.join(ids) if len(ids) < len(notes) else 'all'}: {line}")
    for id, lines in notes.items():
        own = [line for line in lines if len(common[line]) == 1]
        for index, line in enumerate(own):
            _print_note(console, f"{id}: {line}" if index == 0 else f"    {line}")


def _reach(flops: Sequence[float]) -> str:
    """Return how far the held-out error on the largest C extrapolates; empty where all C are one."""
    largest = max(flops, default=0.0)
    others = [C for C in flops if largest > C * HELD_OUT_FACTOR]
    if not others:
        return ""
    reach = largest / max(others)
    return f". C out reaches {reach:.3g} times the compute of its fit: --forecast says what a longer reach costs"


def print_laws(console: "Console", laws: Sequence[Comparison], reach: str = "") -> None:
    """Print a row for each law: its fit by Huber's objective, AICc by squares on ln loss, and held-out errors."""
    rows = []
    not_fitted: dict[str, list[str]] = {}
    squares = {item.id: item for item in laws if item.objective == "squared_log"}
    held_out = HELD_OUT if any(item.held_out for item in laws) else ()
    for item in (item for item in laws if item.objective == "huber_log"):
        if item.reason:
            not_fitted.setdefault(item.reason, []).append(item.law)
            continue
        score = squares[item.id].aicc
        rows.append(
            (
                item.law,
                str(len(item.parameters)),
                _number(item.r_squared, ".3f"),
                _percent(item.rmse),
                _number(score, ".1f" if score is None or abs(score) < 1e5 else ".0f"),
                *(_percent(item.held_out.get(axis)) for axis in held_out),
            )
        )
    if rows:
        headings = ("law", "params", "R²", "error", "AICc", *(f"{axis} out" for axis in held_out))
        console.print()
        console.print("laws on these points", style="bold")
        widths = _widths(console, headings, rows, stretched=0)
        _print_rows(console, headings, rows, widths, numbers=range(1, len(headings)))
        out = "N, D, C out: the same on the largest N, D or C, by a fit to the other points, none where too few"
        lines = ["error: root mean square of ln loss, by Huber's objective", *([out] if held_out else [])]
        aicc = "AICc by squares on ln loss, Gaussian errors assumed; lower is better"
        _print_note(console, f"{'; '.join(lines)}. {aicc}{reach if held_out else ''}")
    for reason, names in not_fitted.items():
        _print_note(console, f"not fitted: {'; '.join(names)}: {reason}")


def _cells(estimate: Estimate) -> tuple[str, ...]:
    interval = interval_text(estimate.interval)
    return estimate.id, estimate.estimand, f"{estimate.value:.4g}", interval, str(estimate.used), _rejected(estimate)


def _widths(console: "Console", headings: Sequence[str], rows: Sequence[Sequence[str]], stretched: int) -> list[int]:
    """Return the widths of columns that hold their longest cell; the stretched one shrinks on a narrow console."""
    widths = [max(len(text) for text in column) for column in zip(headings, *rows, strict=True)]
    left = console.width - sum(widths) - 2 * (len(widths) - 1)
    widths[stretched] = max(widths[stretched] + min(left, 0), _NARROWEST)
    return widths


def _print_rows(
    console: "Console",
    headings: Sequence[str] | None,
    rows: Sequence[Sequence[str]],
    widths: Sequence[int],
    numbers: Sequence[int],
) -> None:
    """Print aligned columns, those in `numbers` to the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=headings is not None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for index, width in enumerate(widths):
        justify: Literal["left", "right"] = "right" if index in numbers else "left"
        table.add_column(headings[index] if headings else "", width=width, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _print_note(console: "Console", text: str) -> None:
    """Print a note, folded between words and indented after its first line."""
    lines = textwrap.wrap(text, console.width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _percent(value: float | str | None) -> str:
    return f"{100 * value:.3g} %" if isinstance(value, float) else "none" if value else ""


def _rejected(estimate: Estimate) -> str:
    """Return the values rejected, or `none` where none of those tested is."""
    if not estimate.tests:
        return ""
    return ", ".join(f"{value:.4g}" for value in estimate.rejected) or "none"


def _notes(estimate: Estimate) -> Iterator[str]:
    if estimate.reason:
        yield f"not determined: {estimate.reason}"
    else:
        yield from estimate.convention.split("; ")
        yield estimate.objective
        yield estimate.method
        if estimate.tests:
            yield _test_results(estimate.tests)
    yield from estimate.remarks
    if estimate.left_out:
        more = len(estimate.left_out) - _MOST_LISTED
        listed = "; ".join(estimate.left_out[:_MOST_LISTED])
        yield f"left out {len(estimate.left_out)}: {listed}" + (
            f"; {more} more, listed in fit.json" if more > 0 else ""
        )


def _test_results(tests: Sequence[HypothesisTest]) -> str:
    """Return one line for all tests of an estimate."""
    words = []
    for test in tests:
        p = "" if test.p is None else f" (p {test.p:.2g})"
        words.append(f"{test.name} {'rejected' if test.rejected else 'not rejected'}{p}")
    return "; ".join(words)
