"""What a probe returns, and a column of the report's table of probes."""

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from amscale.files import is_number

if TYPE_CHECKING:
    from torch import Tensor
import statistics
from collections.abc import Mapping


@dataclass
class Measurement:
    """Numbers by tag. A tag is `group/layer_00/quantity` or `group/quantity`, so that a viewer groups them.

    Scalars are written to `metrics.jsonl` and TensorBoard and appear in the report, histograms go to TensorBoard, and
    reasons are written beside both.
    """

    scalars: dict[str, float] = field(default_factory=dict)
    """Finite numbers by tag."""
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    """One-dimensional float64 samples by tag."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a number, or a whole group of them, is missing: one sentence by tag."""
    pattern: str = ""
    """Which vector stood for a sequence; set by the suite."""
    seconds: float = 0.0
    """Wall time of all probes, forward passes included; set by the suite."""

    def add(self, tag: str, value: float) -> None:
        """Record a number, or the reason why there is none: it is infinite, undefined or beyond what records hold."""
        if math.isfinite(value) and is_number(float(value)):
            self.scalars[tag] = float(value)
        else:
            self.reasons[tag] = f"{tag} is {value:.4g}, beyond the range of recorded numbers"

    def add_distribution(self, tag: str, values_Q: "Tensor") -> None:
        """Record the mean, the 5 %, 50 % and 95 % quantiles, and the sample itself of finite values."""
        sample_Q = values_Q.detach().double().cpu().numpy()
        self.histograms[tag] = sample_Q
        self.add(f"{tag}_mean", float(sample_Q.mean()))
        for share, value in zip((5, 50, 95), np.quantile(sample_Q, (0.05, 0.5, 0.95)), strict=True):
            self.add(f"{tag}_q{share:02d}", float(value))

    def merge(self, other: "Measurement") -> None:
        """Add what another probe measured."""
        self.scalars |= other.scalars
        self.histograms |= other.histograms
        self.reasons |= other.reasons


LAYER_PART = re.compile(r"(?<=/)layer_\d+(?=/)")
"""The part of a tag that names a layer."""


@dataclass(frozen=True)
class ProbeColumn:
    """A column of the report's table of probes."""

    heading: str
    tag: str
    """Tag of the number; `{layer}` in it matches any layer."""
    layers: Literal["last", "mean", "least", "greatest"] = "last"
    """Which of the layers' numbers is shown, or their mean."""
    share: bool = False
    """Whether the number is a share, to be written in per cent."""

    def text(self, values: Mapping[str, float]) -> str:
        """Return the cell for the values of one record; empty where the number is missing."""
        value = self._value(values)
        if value is None:
            return ""
        return f"{100 * value:.0f} %" if self.share else f"{value:.4g}"

    def _value(self, values: Mapping[str, float]) -> float | None:
        if "{layer}" not in self.tag:
            return values.get(self.tag)
        layers = sorted({found[0] for tag in values if (found := LAYER_PART.search(tag))}, key=_index)
        if self.layers == "last":
            return values.get(self.tag.format(layer=layers[-1])) if layers else None
        numbers = [values[tag] for layer in layers if (tag := self.tag.format(layer=layer)) in values]
        if not numbers:
            return None
        if self.layers == "mean":
            return statistics.fmean(numbers)
        return min(numbers) if self.layers == "least" else max(numbers)


def _index(layer: str) -> int:
    return int(layer.removeprefix("layer_"))


Pattern = Literal["last_token", "mean_token", "flattened"]
