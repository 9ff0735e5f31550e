"""Memorisation capacity (Morris et al. 2025, arXiv 2505.24832).

    M(N, D) = D·(h - train loss) / ln 2 bits,    C(N) = max over D of M(N, D)

h is the known entropy of the corpus, nats per token, and D its unique tokens: M is what a model knows of its training
text beyond what the source allows. C ∝ N means that D needs N ∝ D; if D needed N ∝ D², C would grow as √N.

Where a cell was run at several learning rates or other settings, M is that of the setting with the most, seeds averaged
first: the setting of the least validation loss, which the laws take, is the one that learns the least by heart.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from amscale.scaling.curves import Choice, Curves
from amscale.scaling.estimate import CAPACITY, Estimate
from amscale.scaling.points import Point, PointTable, counted
from amscale.scaling.power_law import fit_loglog
from amscale.scaling.variants import by_setting

MORRIS = 3.6
"""Bits per parameter that the paper measured, GPT-style models in half precision."""

_BITS = {"id": "capacity_bits_per_parameter", "estimand": "bits per parameter, C/N"}
_SLOPE = {"id": "capacity_slope", "estimand": "slope of ln C on ln N"}


COUNTED = ("non_embedding", "with_head", "total")
"""Conventions for N by which the bits per parameter are given beside each other."""
RESTS = 0.01
"""A run of which a smaller share of its memorised bits came in the last fifth of its steps has come to rest."""


@dataclass(frozen=True)
class Capacity:
    """M in bits over the D of one N, and C = `bits`, None where the greatest M is at an end of the grid.

    Attributes:
        N: by the convention of the table.
        total: all parameters.
        D: unique tokens, ascending.
        memorised: M at each D, bits.
        bits: C.
        reason: why it is not known.
        sizes: N by each convention of COUNTED.
        settings: that of each D, where its runs differ in one; else empty.
        late: the share of M that came in the last fifth of the steps, by D, in the mean of its seeds; None without
            curves.
        seeds: runs averaged, by D.
    """

    N: float
    total: float
    D: tuple[float, ...]
    memorised: tuple[float, ...]
    bits: float | None
    reason: str = ""
    sizes: dict[str, float] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    late: tuple[float | None, ...] = ()
    seeds: tuple[int, ...] = ()

    @property
    def best(self) -> int:
        """The index of the greatest M."""
        return int(np.argmax(self.memorised))


@dataclass(frozen=True)
class BitsByCount:
    """Bits per parameter and the slope of ln C on ln N by one convention for N; None where these are not known."""

    count: str
    bits_per_parameter: float
    interval: tuple[float, float] | None
    slope: float | None
    slope_interval: tuple[float, float] | None


def train_loss(point: Point) -> tuple[float, str] | None:
    """Return the final training loss, nats per token, and its key: without dropout, or of the last batches."""
    if point.result is None:
        return None
    for key in ("train_evaluated", "train_last"):
        value = getattr(point.result.losses, key)
        if value is not None and math.isfinite(value):
            return float(value), key
    return None


def memorised_bits(point: Point) -> float | None:
    """Return M of one run in bits; None where its entropy or its training loss is not known."""
    entropy, loss = point.result.data.entropy_per_token if point.result else None, train_loss(point)
    return None if entropy is None or loss is None else point.D * (entropy - loss[0]) / math.log(2)


def late_share(curves: Curves | None, entropy: float) -> float | None:
    """Return the share of the bits a run memorised that came in the last fifth of its steps.

    It compares the mean train losses of the last 4 % of the steps and of the 4 % around four fifths of them.

    Args:
        curves: of the run.
        entropy: of the corpus, nats per token.

    Returns:
        None where there are no losses at either place, or nothing was memorised.
    """
    if curves is None:
        return None
    before, ends = (curves.train_at(choice) for choice in late_windows(curves))
    if not len(ends) or not len(before) or not before.finite or not ends.finite:
        return None
    bits = entropy - ends.mean
    return (before.mean - ends.mean) / bits if bits > 0 else None


def late_windows(curves: Curves) -> tuple[Choice, Choice]:
    """Return the 4 % of the steps around four fifths of a run, and the last 4 %, which choose among steps."""
    return (
        lambda steps: (steps / curves.steps > 0.78) & (steps / curves.steps <= 0.82),
        lambda steps: steps / curves.steps > 0.96,
    )


@dataclass(frozen=True)
class _Cell:
    """M of a cell at the setting where it is greatest: mean over the seeds."""

    D: float
    memorised: float
    setting: str
    points: tuple[Point, ...]
    late: float | None
    several: bool
    """Whether the cell was run at several settings."""


def capacities(table: PointTable) -> list[Capacity]:
    """Return C of every N, ascending, each cell at the setting with the most memorised bits, in the mean of its seeds.

    Runs at settings of a greater validation loss (`table.others`) count as all others do.
    """
    rows: dict[float, list[_Cell]] = {}
    for (N, D), points in table.every_run().cells().items():
        known = [point for point in points if memorised_bits(point) is not None]
        if known:
            rows.setdefault(N, []).append(_cell(D, known))
    return [_capacity(N, row) for N, row in rows.items()]


def _cell(D: float, points: Sequence[Point]) -> _Cell:
    """Return the cell at the setting with the greatest mean M."""

    def mean(runs: Sequence[Point]) -> float:
        return float(np.mean([bits for point in runs if (bits := memorised_bits(point)) is not None]))

    settings = by_setting(points)
    setting, runs = max(settings.items(), key=lambda item: mean(item[1]))
    entropies = [point.result.data.entropy_per_token if point.result else None for point in runs]
    pairs = zip(runs, entropies, strict=True)
    shares = [late_share(point.curves, entropy) for point, entropy in pairs if entropy is not None]
    late = [share for share in shares if share is not None]
    return _Cell(D, mean(runs), setting, tuple(runs), float(np.mean(late)) if late else None, len(settings) > 1)


def _capacity(N: float, row: Sequence[_Cell]) -> Capacity:
    memorised = tuple(cell.memorised for cell in row)
    best, last = int(np.argmax(memorised)), len(row) - 1
    parameters = next((p.result.parameters for cell in row for p in cell.points if p.result), None)
    reason = ""
    if memorised[best] <= 0:
        reason = "no training loss below the entropy: nothing memorised"
    elif len(row) < 3:
        amounts = "one D" if len(row) == 1 else "two D"
        reason = f"{amounts}, and the greatest M needs a smaller and a larger one: at least {memorised[best]:.4g}"
    elif best == last:
        reason = f"memorised bits still rise at the largest D: at least {memorised[best]:.4g}"
    elif best == 0:
        reason = f"memorised bits fall from the smallest D on: at least {memorised[best]:.4g}"
    return Capacity(
        N=N,
        total=float(parameters.total) if parameters else math.nan,
        D=tuple(cell.D for cell in row),
        memorised=memorised,
        bits=None if reason else memorised[best],
        reason=reason,
        sizes={count: counted(parameters, count) for count in COUNTED} if parameters else {},
        settings=tuple(cell.setting for cell in row) if any(cell.several for cell in row) else (),
        late=tuple(cell.late for cell in row),
        seeds=tuple(len(cell.points) for cell in row),
    )


def by_count(inside: Sequence[Capacity]) -> list[BitsByCount]:
    """Return the bits per parameter and the slope of ln C on ln N by each convention for N, of the N whose C is known.

    By another convention N goes with another count of its parameters, so that the slope differs too where embeddings
    are a larger part of small models.
    """
    found = []
    for count in COUNTED:
        known = [(item.sizes[count], item.bits) for item in inside if item.bits and item.sizes.get(count, 0) > 0]
        if not known:
            continue
        sizes, bits = zip(*known, strict=True)
        value, interval = _mean(np.log(np.array(bits) / np.array(sizes)))
        fit = fit_loglog(sizes, bits) if len(set(sizes)) > 2 else None
        slope = (None, None) if fit is None else (fit.slope, fit.interval)
        found.append(BitsByCount(count, value, interval, *slope))
    return found


def _mean(logs: np.ndarray) -> tuple[float, tuple[float, float] | None]:
    """Return the geometric mean and its 95 % t interval, None for a single value."""
    from scipy.special import stdtrit

    value = float(np.exp(logs.mean()))
    if len(logs) < 2:
        return value, None
    reach = float(stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / math.sqrt(len(logs)))
    return value, (float(np.exp(logs.mean() - reach)), float(np.exp(logs.mean() + reach)))


def capacity_estimates(table: PointTable) -> list[Estimate]:
    """Estimate the bits per parameter and the slope of ln C on ln N; empty for a table without results.

    Both have t intervals over the N whose M has its maximum inside the grid of D.
    """
    table = table.every_run()
    points = [point for point in table.points if point.result]
    if not points:
        return []
    kinds = {pair[1] for point in points if (pair := train_loss(point)) is not None}
    found = capacities(table)
    inside = [item for item in found if item.bits is not None]
    dropped = tuple(f"N = {item.N:.4g}: {item.reason}" for item in found if item.reason)
    shared: dict[str, Any] = {
        "convention": f"{table.convention}; D unique tokens",
        "objective": "C(N) = max over D of D·(h - train loss)/ln 2",
        "used": len(inside),
        "left_out": table.reasons + dropped,
        "group": CAPACITY,
        "details": {"capacities": found, "by_count": by_count(inside), "train_loss": sorted(kinds)},
        "remarks": _remarks(points, kinds, found),
    }
    if not found:
        reason = "the entropy of the corpus is not known, or no training loss is"
        return [Estimate(**name, method="t interval over N", reason=reason, **shared) for name in (_BITS, _SLOPE)]
    return [_bits(inside, found, shared), _slope(inside, found, shared)]


def _remarks(points: Sequence[Point], kinds: set[str], found: Sequence[Capacity]) -> tuple[str, ...]:
    text = {
        "train_evaluated": "train loss over the training set, without dropout",
        "train_last": "train loss of the last batches, with dropout as in training (no evaluation of the training set)",
    }
    remarks = tuple(text[kind] for kind in sorted(kinds))
    if any(item.settings for item in found):
        remarks += (_chosen(found), *_at_edges(points, found))
    epochs = [point.result.data.epochs for point in points if point.result]
    short = sum(number < 20 for number in epochs if number is not None)
    if short:
        remarks += (f"{short} of {len(points)} runs saw their data fewer than 20 times: trained longer, C may rise",)
    late = [item.late[item.best] for item in found if item.late]
    known = [share for share in late if share is not None]
    if moving := [share for share in known if share > RESTS]:
        remarks += (
            f"at {len(moving)} of {len(known)} N the run of the greatest M had not come to rest: up to "
            f"{max(moving):.2g} of its memorised bits came in the last fifth of its steps; trained longer, C may rise",
        )
    totals = [item.bits / item.total for item in found if item.bits is not None and item.total > 0]
    if totals:
        remarks += (f"{np.exp(np.mean(np.log(totals))):.3g} bits per parameter of all; {MORRIS} in Morris et al. 2025",)
    return remarks


_MOST_NAMED = 4


def _chosen(found: Sequence[Capacity]) -> str:
    """Return at which settings the cells memorised the most."""
    counts = Counter(setting for item in found for setting in item.settings)
    named = [f"{setting} in {number}" for setting, number in counts.most_common(_MOST_NAMED)]
    if len(counts) > _MOST_NAMED:
        named.append(f"others in {counts.total() - sum(number for _, number in counts.most_common(_MOST_NAMED))}")
    return (
        "each cell at the setting with the most memorised bits, seeds averaged, not at that of the least validation "
        f"loss: {', '.join(named)} of {counts.total()} cells"
    )


def _at_edges(points: Sequence[Point], found: Sequence[Capacity]) -> tuple[str, ...]:
    """Return at how many N the greatest M was at the least or greatest value of a tuned setting, where more may be."""
    axes = dict.fromkeys(axis for point in points for axis in point.settings)
    values: dict[tuple[float, float], list[Point]] = {}
    for point in points:
        values.setdefault((point.N, point.D), []).append(point)
    remarks = []
    for axis in axes:
        edges = []
        for item in found:
            cell = values[item.N, item.D[item.best]]
            tried = sorted({point.settings[axis] for point in cell if axis in point.settings})
            chosen = by_setting(cell).get(item.settings[item.best] if item.settings else "", cell)
            if len(tried) > 1 and chosen[0].settings.get(axis) in (tried[0], tried[-1]):
                edges.append(item)
        if edges:
            remarks.append(
                f"at {len(edges)} of {len(found)} N the greatest M is at the least or the greatest {axis} that was "
                "run: beyond it M may be greater"
            )
    return tuple(remarks)


def _bits(inside: Sequence[Capacity], found: Sequence[Capacity], shared: dict[str, Any]) -> Estimate:
    method = "geometric mean over N, t interval"
    if not inside:
        reason = f"no N of {len(found)} has its greatest M inside the grid of D"
        return Estimate(**_BITS, method=method, reason=reason, **shared)
    value, interval = _mean(np.log([item.bits / item.N for item in inside]))  # type: ignore[operator]
    return Estimate(**_BITS, method=method, value=value, interval=interval, **shared)


def _slope(inside: Sequence[Capacity], found: Sequence[Capacity], shared: dict[str, Any]) -> Estimate:
    method = "least squares in logs, t interval"
    if len(inside) < 3:
        reason = f"C is known for {len(inside)} of {len(found)} N; at least 3 are needed"
        return Estimate(**_SLOPE, method=method, reason=reason, **shared)
    fit = fit_loglog([item.N for item in inside], [item.bits for item in inside])  # type: ignore[misc]
    tests = tuple(
        fit.test(text, value) for text, value in (("C ∝ N (N ∝ D)", 1.0), ("C ∝ √N (what N ∝ D² would need)", 0.5))
    )
    return Estimate(**_SLOPE, method=method, value=fit.slope, interval=fit.interval, tests=tests, **shared)
