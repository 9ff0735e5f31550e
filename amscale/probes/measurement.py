"""What a probe returns, and the columns of the report's table of probes."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from amscale.files import is_number

if TYPE_CHECKING:
    from torch import Tensor
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal


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


_LAYER = re.compile(r"(?<=/)layer_\d+(?=/)")
_QUANTILE = re.compile(r"_q\d\d$")


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
        layers = sorted({found[0] for tag in values if (found := _LAYER.search(tag))}, key=_index)
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


def columns_of(records: Sequence[Mapping[str, float]]) -> list[ProbeColumn]:
    """Return the columns for these records: those that probes declare, then one for each tag of any other probe.

    A column without a number in any record is left out. Of a layer's tags the last layer's is shown; the quantiles of a
    distribution whose mean is shown are left out.

    Args:
        records: values by tag, one mapping per record.

    Raises:
        InputError: a package adds a probe that measured here, and cannot be loaded.
    """
    from amscale.probes.registry import BUILT_IN, PROBES, probe_class

    tags = list(dict.fromkeys(tag for values in records for tag in values))
    groups = dict.fromkeys(tag.split("/")[0] for tag in tags)
    probes = [probe_class(name) for name in BUILT_IN]
    known = {group for probe in probes for group in probe.tag_groups()}
    probes += [probe_class(group) for group in groups if group not in known and group in PROBES]
    columns = [column for probe in probes for column in probe.columns]
    declared = known | {group for probe in probes if probe.columns for group in probe.tag_groups()}
    columns += _by_tag(tag for tag in tags if tag.split("/")[0] not in declared)
    return [column for column in columns if any(column.text(values) for values in records)]


def _by_tag(tags: Iterable[str]) -> list[ProbeColumn]:
    patterns = dict.fromkeys(_LAYER.sub("{layer}", tag, count=1) for tag in tags)
    return [
        ProbeColumn(pattern.format(layer="last layer"), pattern)
        for pattern in patterns
        if not _QUANTILE.search(pattern) or _QUANTILE.sub("_mean", pattern) not in patterns
    ]
