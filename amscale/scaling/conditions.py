"""What the exponents of a fit hold for besides N and D: learning rate, batch, weight decay and the like.

One learning rate and one batch for all sizes move k: a k of 2 can be made by a batch. Where cells are not tuned, or
where nothing says how they were, every exponent says so, and rejects only what it would reject however far such a
setting has been seen to move a k.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from amscale.scaling.estimate import COMPUTE, EXPONENT, Estimate, interval_text, outside
from amscale.scaling.points import COUNTS, PointTable, counted
from amscale.scaling.table_file import Cells
from amscale.settings import format_value

_DECADE = 10.0
"""Range of N, under the convention that gives the most, from which one setting for all sizes is said to move k."""

_MEASURED = (
    "on one public grid k was 0.73 with every cell tuned, 0.60 at one learning rate and 0.98 at one batch; on another "
    "1.4 tuned and 2.1 to 3.6 at one batch"
)

MOVED = (0.56, 2.6)
"""The least and the greatest k at one learning rate or one batch for all, over the k of tuned cells of the same grid.

On one public grid .60 and .98 beside .73; on another .77, 2.14 and 3.60 beside 1.38; Porian et al. 2024 (arXiv
2406.19146) 1.33 beside .99.
"""
_CANNOT_TELL = "cannot tell"
SAID_TO_BE_TUNED = "every cell is said to be tuned (--tuned_elsewhere)"

_SETTINGS = {
    "learning rate": ("train.learning_rate", r"((peak|max|base)[ _-]?)?(lr|learning[ _-]?rate)"),
    "batch": ("train.batch_tokens", r"((global|train|total)[ _-]?)?(batch|bs)([ _-]?(size|tokens?|sequences?))*"),
}
_COVARIATES = {
    "weight decay": ("train.weight_decay", r"(wd|weight[ _-]?decay)"),
    "dropout": ("model.dropout", r"dropout"),
    "precision": ("engine.precision", r"(precision|dtype)"),
    "schedule": ("train.schedule", r"(lr[ _-]?)?schedule"),
}
_MOST_VALUES = 3


def conditions_of_sweep(table: PointTable) -> list[str]:
    """Return what the exponents of a sweep's points hold for, a sentence each."""
    results = [point.result for point in table.points if point.result]

    def values(name: str, key: str) -> list[Any] | None:
        found = [result.setting(key) for result in results]
        return None if all(value is None for value in found) else found

    tuned = {name for name, (key, _) in _SETTINGS.items() if any(key in point.settings for point in table.points)}
    return _conditions(table, tuned, values)


def conditions_of_table(table: PointTable, cells: Cells, tuned_elsewhere: bool = False) -> list[str]:
    """Return what the exponents of a table's rows hold for, a sentence each.

    Args:
        table: the points.
        cells: the table's cells.
        tuned_elsewhere: a person says that every cell was tuned, which no column tells.
    """
    axes = {axis for point in table.points for axis in point.settings}

    def values(name: str, key: str) -> list[Any] | None:
        pattern = {**_SETTINGS, **_COVARIATES}[name][1]
        columns = [column for column in cells.columns if re.fullmatch(pattern, column, re.IGNORECASE)]
        return cells.columns[columns[0]] if columns else None

    tuned = {
        name
        for name, (_, pattern) in _SETTINGS.items()
        if tuned_elsewhere or any(re.fullmatch(pattern, axis, re.IGNORECASE) for axis in axes)
    }
    said = [SAID_TO_BE_TUNED] if tuned_elsewhere else []
    return _conditions(table, tuned, values) + said


def _conditions(
    table: PointTable, tuned: Iterable[str], values: Callable[[str, str], Sequence[Any] | None]
) -> list[str]:
    found = []
    span = _range_of_N(table)
    left = [name for name in _SETTINGS if name not in tuned]
    known = {name: column for name in left if (column := values(name, _SETTINGS[name][0])) is not None}
    fixed = [name for name, column in known.items() if len(_distinct(column)) == 1]
    unknown = [name for name in left if name not in known]
    if span >= _DECADE:
        range_of_N = f"N over a factor of {span:.3g}"
        if fixed:
            both = " and ".join(f"one {name} ({_shown(known[name])})" for name in fixed)
            found.append(f"{both} for {range_of_N}: these runs cannot tell the k of tuned cells; {_MEASURED}")
        if unknown:
            both = " and ".join(f"which {name}" for name in unknown)
            found.append(
                f"nothing says {both} these runs had: if one served {range_of_N}, they cannot tell the k of tuned "
                f"cells; {_MEASURED}"
            )
    held = {name: _shown(column) for name, (key, _) in _COVARIATES.items() if (column := values(name, key)) is not None}
    if held:
        found.append(f"k holds at {', '.join(f'{name} {text}' for name, text in held.items() if text)}")
    return found


def _range_of_N(table: PointTable) -> float:
    """Return by which factor N differs, under the convention that gives the most.

    What embeddings add to each N narrows the range, and the same runs are not better tuned for it.
    """
    results = [point.result for point in table.points if point.result]
    ranges = [table.N] if table.points else []
    if results:
        ranges += [np.array([counted(result.parameters, count) for result in results]) for count in COUNTS]
    return max((float(N.max() / N.min()) for N in ranges), default=1.0)


def _distinct(column: Sequence[Any]) -> list[str]:
    return sorted({format_value(value) for value in column if value is not None})


def _shown(column: Sequence[Any]) -> str:
    texts = _distinct(column)
    return ", ".join(texts[:_MOST_VALUES]) + (f", … {len(texts)} values" if len(texts) > _MOST_VALUES else "")


def with_conditions(table: PointTable, estimates: Sequence[Estimate], conditions: Sequence[str]) -> list[Estimate]:
    """Return the estimates, the exponents that have a value with what they hold for; warn of what may move these.

    It stands among their remarks and in their details, under `conditions`. Where the runs cannot tell the k of tuned
    cells, the interval of k for these stands in `for_tuned_runs`, and it is what decides the tests.
    """
    bound = {item.id for item in estimates if item.group in (EXPONENT, COMPUTE) and item.value is not None}
    untuned = [text for text in conditions if _CANNOT_TELL in text]
    if bound:
        table.warnings += untuned
    update = {"conditions": list(conditions)}
    found = [
        item.model_copy(update={"remarks": (*item.remarks, *conditions), "details": item.details | update})
        if item.id in bound and conditions
        else item
        for item in estimates
    ]
    return [_for_tuned_runs(item) if untuned and item.id in bound else item for item in found]


def _for_tuned_runs(item: Estimate) -> Estimate:
    """Return an exponent of runs that were not tuned, its tests by what it may be in runs that were."""
    if item.interval is None:
        return item
    low, high = _moved(item)
    text = interval_text((low, high))
    tests = tuple(
        test.model_copy(
            update={
                "rejected": False,
                "how": f"{test.how} of these runs, and inside {text}, where k of tuned runs may be",
                "p": None,
            }
        )
        if test.rejected and not outside(test.value, (low, high))
        else test
        for test in item.tests
    )
    symbol = "k" if item.group == EXPONENT else item.id[0]
    remark = (
        f"{symbol} of tuned runs may be {text}: one learning rate or one batch for all has moved k by factors of "
        f"{MOVED[0]:g} to {MOVED[1]:g}"
    )
    details = item.details | {"for_tuned_runs": (low, high)}
    return item.model_copy(update={"tests": tests, "remarks": (*item.remarks, remark), "details": details})


def _moved(item: Estimate) -> tuple[float, float]:
    """Return the interval of an exponent, of k or of a or b of N_opt ∝ C^a and D_opt ∝ C^b, for tuned runs."""
    assert item.interval is not None
    low, high = item.interval
    if item.group == EXPONENT:
        return low / MOVED[1], high / MOVED[0]

    def moved(share: float, factor: float) -> float:
        """Return s of k/factor where s/(1 - s) = k."""
        share = min(max(share, 0.0), 1.0)
        return share / (share + factor * (1 - share))

    # a = k/(1 + k), and b = 1/(1 + k) falls as k grows.
    least, greatest = MOVED if item.id == "a_isoflop" else (1 / MOVED[1], 1 / MOVED[0])
    return min(low, moved(low, greatest)), max(high, moved(high, least))
