"""Estimates: a number with its interval and the evidence behind it, or the reason why it is not determined."""

import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

EXPONENT = "N against D: k of N = C·D^k"
FLOOR = "loss floor, nats per token"
COMPUTE = "compute-optimal sizes: N_opt ∝ C^a, D_opt ∝ C^b"
FORM = "form of the law"
CAPACITY = "memorisation capacity"


class FitRecord(BaseModel):
    """A frozen record, written to fit.json under the aliases of its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON can hold it, keys as in fit.json."""
        return to_json_types(self)


class HypothesisTest(FitRecord):
    """A value tested against the data at the 5 % level.

    Attributes:
        name: the hypothesis in words.
        value: the value tested; for an exponent, its k.
        rejected: whether the data reject it.
        how: what the decision rests on.
        p: two-sided p value; None where the test is by an interval alone.
    """

    name: str
    value: float
    rejected: bool
    how: str
    p: float | None = Field(default=None, alias="p_value")

    @property
    def k(self) -> float:
        """The value tested, under the symbol that exponents have."""
        return self.value


class Estimate(FitRecord):
    """A number with its interval and everything that a reader needs to judge it.

    Attributes:
        id: stable identifier, unique within a fit, such as `k_dstar`; docs/estimates.md lists them.
        estimand: what is estimated, in words. Estimates of one law under two objectives share it.
        convention: what N, D and the loss count.
        objective: what was minimised or averaged.
        method: how the value and its interval were found.
        used: the number of points (sizes, budgets, …) that the value rests on.
        value: the estimate; None where it is not determined.
        interval: 95 % interval; an infinite end is unbounded. None where there is no interval.
        left_out: what was not used, one line each with its reason.
        remarks: what a reader should know besides.
        tests: hypotheses tested against the estimate.
        reason: why the value is not determined; None where it is.
        group: the heading of the estimate: EXPONENT, COMPUTE, FLOOR, FORM or CAPACITY.
        details: intermediate results that figures draw.
    """

    id: str
    estimand: str
    convention: str
    objective: str
    method: str
    used: int
    value: float | None = None
    interval: tuple[float, float] | None = None
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    tests: tuple[HypothesisTest, ...] = Field(default=(), alias="hypotheses")
    reason: str | None = Field(default=None, alias="refusal")
    group: str = EXPONENT
    details: dict[str, Any] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """English name, unique within a fit: the estimand, and the objective where it is not the usual one."""
        usual = self.details.get("objective", "huber_log") == "huber_log"
        return self.estimand if usual else f"{self.estimand}, by {self.objective}"

    @property
    def rejected(self) -> tuple[float, ...]:
        """The values that the data reject at the 5 % level."""
        return tuple(test.value for test in self.tests if test.rejected)


def ends_of(interval: Sequence[float | None]) -> tuple[float, float]:
    """Return the ends of an interval, in JSON null where they are infinite, as numbers."""
    low, high = interval
    return -math.inf if low is None else low, math.inf if high is None else high


def interval_text(interval: Sequence[float | None] | None) -> str:
    """Return `1.51 to 2.54`, or words for an end that is infinite."""
    if interval is None:
        return "none"
    low, high = ends_of(interval)
    if math.isinf(low) and math.isinf(high):
        return "unbounded"
    if math.isinf(high):
        return f"above {low:.4g}"
    return f"below {high:.4g}" if math.isinf(low) else f"{low:.4g} to {high:.4g}"


def to_json_types(value: Any) -> Any:
    """Return `value` as JSON can hold it: records become objects, arrays lists, infinite and missing numbers null."""
    if isinstance(value, FitRecord):
        return {
            field.alias or name: to_json_types(getattr(value, name)) for name, field in type(value).model_fields.items()
        }
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json_types(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json_types(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [to_json_types(item) for item in value]
    if isinstance(value, np.generic):
        return to_json_types(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


ACCURACY = 1e-6
"""Share of a value by which a search and rounding may miss it: runs without noise have intervals of no width."""


def outside(value: float, interval: tuple[float, float]) -> bool:
    """Return whether a value lies outside an interval by more than the accuracy of the fits."""
    slack = ACCURACY * abs(value)
    return not interval[0] - slack <= value <= interval[1] + slack


def interval_test(name: str, value: float, interval: tuple[float, float], how: str) -> HypothesisTest:
    """Test `value` by an interval: it is rejected where it lies outside; `how` names the interval."""
    rejected = outside(value, interval)
    text = f"{'outside' if rejected else 'inside'} the {how}"
    return HypothesisTest(name=name, value=float(value), rejected=rejected, how=text)
