"""The loss floor as observed: the least losses of a sweep, compared with 1 and with what the corpus allows.

The associative-memory claim (arXiv 2405.08707, proposition 4) puts the floor at 1 nat. A corpus of known entropy
puts the validation loss no lower than that entropy, and the train loss of a model that memorised its data below it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from amscale.scaling.curves import Choice, Curves
from amscale.scaling.estimate import FLOOR, Estimate, HypothesisTest
from amscale.scaling.points import Point, PointTable

BLOCKS = 8
"""Parts of the end of a run whose means tell how certain its settled loss is."""


@dataclass(frozen=True)
class Settled:
    """Mean train loss at the end of a run and its standard error from the means of consecutive blocks."""

    mean: float
    standard_error: float
    records: int


def settled_loss(curves: Curves, share: float = 0.1) -> Settled | None:
    """Return the train loss over the last `share` of the run; None for fewer than two records a block.

    The error is from means of blocks, because neighbouring batches and a slow drift are correlated.
    """
    tail = curves.train_at(end_of(curves, share))
    if len(tail) < 2 * BLOCKS or not tail.finite:
        return None
    means = np.array([part.mean for part in tail.split(BLOCKS)])
    return Settled(tail.mean, float(means.std(ddof=1) / math.sqrt(BLOCKS)), len(tail))


def end_of(curves: Curves, share: float = 0.1) -> Choice:
    """Return the last `share` of a run, which chooses among steps."""
    return lambda steps: steps > curves.steps * (1 - share)


def common_value(values: Sequence[float | None]) -> float | None:
    """Return the number that all values equal but for rounding; None where they differ or one is missing."""
    known = [float(value) for value in values if value is not None]
    if not known or len(known) < len(values) or max(known) - min(known) > 1e-6 * abs(max(known)):
        return None
    return known[0]


def references(table: PointTable) -> dict[str, float]:
    """Return what a floor is compared with: 1, and the corpus's entropy and memorised loss where they are known.

    It is nothing where the losses may be in another unit.
    """
    found = {} if table.unit_in_doubt else {"1": 1.0}
    for key, name in (("entropy_per_token", "entropy"), ("memorised_per_token", "memorised")):
        value = common_value([getattr(point.result.data, key) if point.result else None for point in table.points])
        if value is not None:
            found[name] = value
    return found


_EVEN = 0.98
"""Share of ln(vocabulary) from which the next token is all but an even choice."""


def nothing_foretold(table: PointTable) -> str:
    """Return why validation losses tell nothing of N and D, or an empty text: the next token is an even choice.

    On random tokens no model is below the entropy on unseen text, whatever its N and D. What lies above it is how much
    was learnt by heart before the first validation, and the least is that of the run that learnt the least.
    """
    entropy = references(table).get("entropy")
    vocabulary = common_value([point.result.shape.vocabulary if point.result else None for point in table.points])
    # One token may mark the ends of documents, and is no choice.
    if entropy is None or not vocabulary or entropy < _EVEN * math.log(max(vocabulary - 1, 1)):
        return ""
    return (
        f"the entropy of the text, {entropy:.4g}, is that of an even choice among its tokens: nothing in it can be "
        "foretold, and no validation loss below that depends on N or D"
    )


def floors(table: PointTable) -> list[Estimate]:
    """Estimate the least settled train loss and the least validation loss of a sweep."""
    known = references(table)
    beside = ", ".join(f"{name} {value:.4g}" if name != "1" else "1" for name, value in known.items())
    return [_train_floor(table, known, beside), _validation_floor(table, known, beside)]


def _train_floor(table: PointTable, known: dict[str, float], beside: str) -> Estimate:
    """Estimate the least settled train loss of all runs: any of them shows how far training loss can fall.

    Runs at settings of a greater validation loss are among them; those that learn by heart are often there.
    """
    from scipy.special import stdtrit

    table = table.every_run()
    tails = [(point, settled_loss(point.curves)) for point in table.points if point.curves is not None]
    usable = [(point, tail) for point, tail in tails if tail is not None]
    short = tuple(
        f"{point.name}: fewer than {2 * BLOCKS} train losses in the last tenth" for point, tail in tails if tail is None
    )
    shared: dict[str, Any] = {
        "id": "floor_train_settled",
        "estimand": "least settled train loss",
        "group": FLOOR,
        "convention": "nats per token, dropout as in training",
        "objective": "mean over the last tenth of the steps",
        "method": f"t interval from {BLOCKS} block means, Bonferroni over runs",
        "used": len(usable),
        "left_out": table.reasons + short,
    }
    observed = _observed(table, "train_least")
    remarks = (f"beside {beside}", *_passed(table, "train", "train_least", known))
    below = {name: _below(table, "train_least", value) for name, value in known.items()}
    details: dict[str, Any] = {"references": known, "least_observed": observed, "runs_below": below}
    if not usable:
        return Estimate(**shared, reason="no run has enough train losses to settle", remarks=remarks, details=details)
    point, tail = min(usable, key=lambda pair: pair[1].mean)
    # The least of m runs is picked after looking: each run's interval holds at 1 - 0.05/m, so that all hold at once.
    reach = float(stdtrit(BLOCKS - 1, 1 - 0.025 / len(usable))) * tail.standard_error
    interval = (tail.mean - reach, tail.mean + reach)
    tests = tuple(
        HypothesisTest(
            name=f"train loss stays at or above {name}" + ("" if name == "1" else f" ({value:.4g})"),
            value=value,
            rejected=interval[1] < value,
            how=f"upper end {interval[1]:.4g} is {'below' if interval[1] < value else 'not below'} it",
        )
        for name, value in known.items()
    )
    details |= {"trial": point.name, "records": tail.records}
    return Estimate(**shared, value=tail.mean, interval=interval, remarks=remarks, tests=tests, details=details)


def _validation_floor(table: PointTable, known: dict[str, float], beside: str) -> Estimate:
    shared: dict[str, Any] = {
        "id": "floor_validation",
        "estimand": "least validation loss",
        "group": FLOOR,
        "convention": "nats per token, over all evaluations of all runs",
        "objective": "least observed value",
        "method": "t interval over the seeds of its cell",
        "used": len(table.points),
        "left_out": table.reasons,
    }
    remarks = (f"beside {beside}", *_passed(table, "validation", "validation_least", known))
    if not table.points:
        return Estimate(**shared, reason="no finished run", remarks=remarks, details={"references": known})
    cell = min(table.cells().values(), key=lambda points: float(np.mean([point.loss for point in points])))
    losses = np.array([point.loss for point in cell])
    interval = None
    if len(losses) > 1:
        from scipy.special import stdtrit

        reach = float(stdtrit(len(losses) - 1, 0.975) * losses.std(ddof=1) / math.sqrt(len(losses)))
        interval = (float(losses.mean()) - reach, float(losses.mean()) + reach)
    else:
        remarks += ("no interval: one seed",)
    details = {"references": known, "cell": {"N": cell[0].N, "D": cell[0].D, "seeds": len(cell)}}
    return Estimate(**shared, value=float(losses.mean()), interval=interval, remarks=remarks, details=details)


def _finite(point: Point, key: str) -> float | None:
    value = getattr(point.result.losses, key) if point.result else None
    return float(value) if value is not None and math.isfinite(value) else None


def _below(table: PointTable, key: str, figure: float) -> tuple[int, int]:
    """Return in how many runs the least loss passed below a figure, and how many runs have one."""
    values = [value for point in table.points if (value := _finite(point, key)) is not None]
    return sum(value < figure for value in values), len(values)


def _observed(table: PointTable, key: str) -> float | None:
    values = [value for point in table.points if (value := _finite(point, key)) is not None]
    return min(values, default=None)


def _passed(table: PointTable, name: str, key: str, known: dict[str, float]) -> tuple[str, ...]:
    """Return in how many runs the least loss passed below each of the known figures."""
    values = [value for point in table.points if (value := _finite(point, key)) is not None]
    if not values:
        return (f"no run records {key}",)
    lines = [f"least {name} loss observed {min(values):.4g}"]
    for label, figure in known.items():
        below = sum(value < figure for value in values)
        text = (
            "1" if label == "1" else f"the {label} {'figure' if label == 'memorised' else 'of the corpus'} {figure:.4g}"
        )
        lines.append(f"{name} loss passed below {text} in {below} of {len(values)} runs")
    return tuple(lines)
