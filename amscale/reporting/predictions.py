"""Print fits by a column, predictions of points by others, forecasts and their scores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from amscale.scaling.dstar import place_of
from amscale.scaling.estimate import interval_text
from amscale.scaling.forecast import score_lines
from amscale.settings import format_size

if TYPE_CHECKING:
    from rich.console import Console

_MOST_ROWS = 30


def print_by(document: dict[str, Any], console: "Console") -> None:
    """Print a row for each kind: its recommended law, k and floor, or why it has none."""
    _line(console, f"fits by {document['by']}")
    headings = (document["by"], "points", "law", "k", "95 % interval", "floor", "95 % interval")
    rows = [
        (
            row["kind"],
            str(row["points"]),
            row["law"] or "",
            *_value(row["k"], row["k_interval"]),
            *_value(row["floor"], row["floor_interval"]),
        )
        for row in document["rows"]
    ]
    _table(console, headings, rows, numbers=(1, 3, 5))
    for row in document["rows"]:
        if row["reason"]:
            _line(console, f"{row['kind']}: {row['reason']}")
    _print_compared(document["compared"], document["by"], console)
    for path in document["written"]:
        if path.endswith("fit.json"):
            _line(console, f"written: {path}")


def _print_compared(compared: Sequence[dict[str, Any]], by: str, console: "Console") -> None:
    """Print each estimate with the kinds below each other, why some have none, and D* at each N."""
    for id in dict.fromkeys(row["id"] for row in compared):
        rows = [row for row in compared if row["id"] == id]
        _line(console, "")
        _line(console, f"{id}: {rows[0]['estimand']}")
        known = [(row["kind"], *_value(row["value"], row["interval"])) for row in rows]
        _table(console, (by, "value", "95 % interval"), known, numbers=(1,))
        for row in rows:
            if row["reason"]:
                _line(console, f"{row['kind']}: {row['reason']}")
        for row in rows:
            stars = row.get("dstar", ())
            if located := [f"{place_of(each['low'], each['high'])} at N = {format_size(each['N'])}" for each in stars]:
                _line(console, f"{row['kind']}: D* {'; '.join(located)}")


def print_predictions(document: dict[str, Any], console: "Console") -> None:
    """Print each row's prediction with its interval and error, and the errors of all."""
    _law(document, console)
    headings = ("run", "N", "D", "measured", "predicted", "95 % interval", "error")
    shown = document["rows"][:_MOST_ROWS]
    rows = [
        (
            row["name"],
            format_size(row["N"]),
            format_size(row["D"]),
            f"{row['measured']:.4f}",
            f"{row['loss']:.4f}",
            f"{row['interval'][0]:.4f} to {row['interval'][1]:.4f}",
            f"{row['error']:+.2%}",
        )
        for row in shown
    ]
    _table(console, headings, rows, numbers=(1, 2, 3, 4, 6))
    if len(shown) < len(document["rows"]):
        _line(console, f"{len(document['rows']) - len(shown)} more, listed by --json")
    _line(
        console,
        f"{document['predicted']} predicted from {document['fitted']}: error {document['rms_error']:.2%} (root mean "
        f"square), {document['mean_error']:+.2%} in the mean, {document['largest_error']:+.2%} at most; "
        f"{document['inside']} of {document['predicted']} inside the 95 % interval",
    )
    if document["in_both"]:
        _line(console, f"warning: {document['in_both']} of them are among the points that were fitted")
    _line(console, document["reach"])


def print_forecast(document: dict[str, Any], console: "Console") -> None:
    """Print the forecast of each cell: the loss, its interval, and what other floors and laws would give."""
    _law(document, console)
    for cell in document["cells"]:
        low, high = cell["interval"]
        name = f"N {format_size(cell['N'])}, D {format_size(cell['D'])}, {cell['flops']:.3g} FLOPs"
        _line(console, f"{name}: {cell['loss']:.4f} ({low:.4f} to {high:.4f}, 95 % of single runs)")
        if cell["by_floor"]:
            floors = ", ".join(f"{each['loss']:.4f} at {each['floor']:.4f}" for each in cell["by_floor"])
            _line(console, f"  by the floor: {floors}")
        if cell["by_law"]:
            _line(console, "  by other laws: " + ", ".join(f"{law} {loss:.4f}" for law, loss in cell["by_law"].items()))
    _line(console, document["reach"])
    if document["written"]:
        _line(console, f"written: {document['written']}; it is scored by --score, and by every fit of its sweep")
    else:
        _line(console, "nothing is written: --save writes it down, to be scored later")


def print_score(document: dict[str, Any], console: "Console") -> None:
    """Print the score of a forecast."""
    for line in score_lines(document):
        _line(console, line)


def _law(document: dict[str, Any], console: "Console") -> None:
    parameters = ", ".join(f"{name} {value:.4g}" for name, value in document["parameters"].items())
    _line(console, f"{document['source']}; {document['convention']}")
    _line(console, f"law {document['law']}: {document['formula']}: {parameters}")


def _value(value: float | None, interval: Sequence[float | None] | None) -> tuple[str, str]:
    if value is None:
        return "not determined", ""
    return f"{value:.4g}", interval_text(interval)


def _line(console: "Console", text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(console: "Console", headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        cells = (
            text.rjust(width) if index in numbers else text.ljust(width)
            for index, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        _line(console, "  ".join(cells).rstrip())
