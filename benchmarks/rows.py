"""Rows of the table that `make bench` prints: a benchmark prints each with `Row.print`, and all.py collects them."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

MARK = "row: "
"""What a line begins with that holds a row."""


@dataclass(frozen=True)
class Row:
    """One measured quantity, of runs in alternation."""

    what: str
    ours: str
    """In its unit, such as `3.7 s`."""
    theirs: str
    """Of the other side; empty where there is none."""
    ratios: list[float]
    """Ours over theirs, one for each round; what was measured itself where there is no other side."""
    goal: str
    unit: str = "x"
    """Of the ratios."""

    def print(self) -> None:
        """Print the row for a reader, and for `read`."""
        print(MARK + json.dumps(asdict(self)), flush=True)

    def cells(self) -> tuple[str, ...]:
        """Return what, ours, theirs, ratio, spread and goal as texts."""
        middle, low, high = statistics.median(self.ratios), min(self.ratios), max(self.ratios)
        spread = f"{low:.2f} to {high:.2f}" if len(self.ratios) > 1 else "one round"
        return self.what, self.ours, self.theirs, f"{middle:.2f} {self.unit}", spread, self.goal


def read(output: str) -> list[Row]:
    """Return the rows in the output of a benchmark."""
    return [Row(**json.loads(line.removeprefix(MARK))) for line in output.splitlines() if line.startswith(MARK)]


def middle(values: Sequence[float], unit: str) -> str:
    """Return the median with its unit."""
    return f"{statistics.median(values):.3g} {unit}"
