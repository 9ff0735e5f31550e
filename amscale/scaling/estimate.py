"""One row of every result table: an estimate with its ground, or a refusal with its reason."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

EXPONENT = "N against D: k of N = C·D^k"
FLOOR = "loss floor, nats per token"
CAPACITY = "memorisation capacity"


@dataclass(frozen=True)
class Hypothesis:
    """A value held against the data at the 5 % level."""

    name: str
    value: float
    rejected: bool
    how: str
    p_value: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and everything that a reader needs to judge it.

    `group` is the heading that it stands under. `value` and `interval` are None in a refusal; an end of the interval
    may be infinite (that side is unbounded).
    """

    estimand: str
    convention: str
    objective: str
    method: str
    used: int
    value: float | None = None
    interval: tuple[float, float] | None = None
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()
    refusal: str | None = None
    group: str = EXPONENT
    details: dict[str, Any] = field(default_factory=dict)


def interval_text(interval: tuple[float, float] | None) -> str:
    """`1.51 to 2.54`; an infinite end is said in words."""
    if interval is None:
        return "none"
    low, high = interval
    if math.isinf(low) and math.isinf(high):
        return "unbounded"
    if math.isinf(high):
        return f"above {low:.4g}"
    return f"below {high:.4g}" if math.isinf(low) else f"{low:.4g} to {high:.4g}"


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: dataclasses become objects, arrays lists; infinite and missing numbers null."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def outside(name: str, value: float, interval: tuple[float, float], how: str) -> Hypothesis:
    """`value` is rejected where it lies outside `interval`; `how` names the interval."""
    inside = interval[0] <= value <= interval[1]
    return Hypothesis(name, float(value), not inside, f"{'inside' if inside else 'outside'} the {how}")
