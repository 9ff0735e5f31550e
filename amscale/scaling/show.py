"""Estimates on a terminal: one table of numbers, the ground that each stands on, and the laws side by side."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from amscale.scaling.estimate import Estimate, Hypothesis, interval_text
from amscale.scaling.laws.compare import HELD_OUT, Comparison

if TYPE_CHECKING:
    from rich.console import Console

_MOST_NAMED = 4


def print_estimates(console: "Console", estimates: Sequence[Estimate], said: Sequence[str] = ()) -> None:
    """A row per estimate, grouped by what is estimated, and below the table a numbered note for each.

    A line that several notes share is printed once, before them, and one of `said` not at all.
    """
    from rich.table import Table
    from rich.text import Text

    groups = list(dict.fromkeys(estimate.group for estimate in estimates))
    ordered = [estimate for group in groups for estimate in estimates if estimate.group == group]
    table = Table(title="estimates", title_justify="left")
    for heading in ("", "estimand", "value", "95 % interval", "points", "rejected at 5 %"):
        table.add_column(heading, justify="right" if heading in ("value", "points") else "left", overflow="fold")
    group = ""
    for number, estimate in enumerate(ordered, start=1):
        if estimate.group != group:
            group = estimate.group
            table.add_section()
            table.add_row("", Text(group, style="bold"))
        refused = estimate.value is None
        value = "refused" if refused else f"{estimate.value:.4g}"
        interval = "" if refused else interval_text(estimate.interval)
        cells = (str(number), estimate.estimand, value, interval, str(estimate.used), _rejected(estimate))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    notes = [[line for line in dict.fromkeys(_notes(estimate)) if line not in said] for estimate in ordered]
    common: dict[str, list[int]] = {}
    for number, lines in enumerate(notes, start=1):
        for line in lines:
            common.setdefault(line, []).append(number)
    for line, numbers in common.items():
        if len(numbers) > 1:
            console.print(Text(f"{_ranges(numbers)}: {line}"), soft_wrap=True)
    for number, lines in enumerate(notes, start=1):
        own = [line for line in lines if len(common[line]) == 1]
        for index, line in enumerate(own):
            console.print(Text(f"{number if index == 0 else '':>2}  {line}"), soft_wrap=True)


def print_laws(console: "Console", laws: Sequence[Comparison]) -> None:
    """A row per law: fit by Huber's objective, AICc by squares on ln loss, and errors on what was held out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title="laws on these points", title_justify="left")
    for heading in (
        "law",
        "parameters",
        "R²",
        "error",
        "AICc",
        *(f"error, {text} held out" for text in HELD_OUT.values()),
    ):
        table.add_column(heading, justify="left" if heading == "law" else "right", overflow="fold")
    refused: dict[str, list[str]] = {}
    squares = {item.law: item for item in laws if item.objective == "squared_log"}
    for item in (item for item in laws if item.objective == "huber_log"):
        if item.refusal:
            refused.setdefault(item.refusal, []).append(item.law)
            continue
        score = squares[item.law].aicc
        cells = [
            item.law,
            str(len(item.parameters)),
            _number(item.r_squared, ".3f"),
            _percent(item.rmse),
            _number(score, ".1f"),
        ]
        cells += [_percent(item.held_out.get(axis)) for axis in HELD_OUT]
        table.add_row(*(Text(cell) for cell in cells))
    if table.row_count:
        console.print(table)
        text = (
            "errors are root mean squares of ln loss, by Huber's objective; held out: by a fit to the other points, "
            "none where they are too few. AICc by squares on ln loss, Gaussian errors assumed; lower is better"
        )
        console.print(Text(text), soft_wrap=True)
    for reason, names in refused.items():
        console.print(Text(f"not fitted: {'; '.join(names)}: {reason}"), soft_wrap=True)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _percent(value: float | str | None) -> str:
    return f"{100 * value:.3g} %" if isinstance(value, float) else "none" if value else ""


def _rejected(estimate: Estimate) -> str:
    """`k = 1, 4`, or that nothing tested was rejected."""
    if not estimate.hypotheses:
        return ""
    return ", ".join(f"{test.value:.4g}" for test in estimate.hypotheses if test.rejected) or "none"


def _ranges(numbers: Sequence[int]) -> str:
    """`1, 3-5`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _notes(estimate: Estimate) -> Iterator[str]:
    if estimate.refusal:
        yield f"refused: {estimate.refusal}"
    else:
        yield from estimate.convention.split("; ")
        yield estimate.objective
        yield estimate.method
        if estimate.hypotheses:
            yield _verdicts(estimate.hypotheses)
    yield from estimate.remarks
    if estimate.left_out:
        more = len(estimate.left_out) - _MOST_NAMED
        named = "; ".join(estimate.left_out[:_MOST_NAMED])
        yield f"left out {len(estimate.left_out)}: {named}" + (f"; {more} more, named in fit.json" if more > 0 else "")


def _verdicts(tests: Sequence[Hypothesis]) -> str:
    """One line for all tests of an estimate."""
    words = []
    for test in tests:
        p = "" if test.p_value is None else f" (p {test.p_value:.2g})"
        words.append(f"{test.name} {'rejected' if test.rejected else 'not rejected'}{p}")
    return "; ".join(words)
