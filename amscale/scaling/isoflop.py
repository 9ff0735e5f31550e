"""Iso-FLOP: the sizes of least loss at fixed compute, and how they grow with it (Hoffmann et al. 2022, approach 2).

At each budget a polynomial goes through the runs near the least loss, without a form common to the budgets: valleys of
real runs are skewed, and a curve with common exponents leans on the skew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from amscale.scaling.design import no_variation
from amscale.scaling.estimate import COMPUTE, Estimate, interval_test
from amscale.scaling.points import Array, PointTable
from amscale.scaling.power_law import hypothesis_name

_WIDTH = 1.25
_LEAST_SIZES = 4


@dataclass(frozen=True)
class Vertex:
    """The least of a polynomial in ln N: ln N there, its variance over that of ln loss, and what is left over.

    `rise` is the slope of a parabola at either end of the runs, outwards and the lesser of both, over its standard
    error per unit noise of ln loss.
    """

    log_N: float
    variance: float
    squares: float
    free: int
    curve: tuple[tuple[float, float], ...]
    rise: float


@dataclass(frozen=True)
class Budget:
    """The runs of one budget of C FLOPs: N, D, loss and FLOPs of each, and their optimum or why there is none.

    Attributes:
        optimum: N of least loss by the local cubic; None where there is none inside the sizes.
        tokens: D there, by a line in logs through the runs.
        vertices: the least by each method, by its name.
        curve: N and loss along the local cubic.
    """

    C: float
    N: tuple[float, ...]
    loss: tuple[float, ...]
    flops: tuple[float, ...]
    D: tuple[float, ...] = ()
    optimum: float | None = None
    tokens: float | None = None
    vertices: dict[str, Vertex] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    reason: str = ""

    @property
    def sizes(self) -> int:
        """The number of different N."""
        return len(set(self.N))


def budgets(table: PointTable) -> list[Budget]:
    """Bin points by FLOPs, ascending: the window of a factor 1.25 with the most different sizes, then the next."""
    order = np.argsort(table.flops, kind="stable")
    C, N, D, loss = (column[order] for column in (table.flops, table.N, table.D, table.loss))
    free = np.ones(len(C), dtype=bool)
    found = []
    while free.any():
        index = np.flatnonzero(free)
        ends = np.searchsorted(C[index], C[index] * _WIDTH * (1 + 1e-9), side="right")
        counts = [len(set(N[index[first:end]])) for first, end in enumerate(ends)]
        first = int(np.argmax(counts))
        chosen = index[first : ends[first]]
        free[chosen] = False
        centre = float(np.exp(np.log(C[chosen]).mean()))
        sizes, losses, flops, data = (tuple(column[chosen].tolist()) for column in (N, loss, C, D))
        found.append(Budget(centre, sizes, losses, flops, data))
    return sorted(found, key=lambda budget: budget.C)


_MAIN = "local cubic"
"""The method by which an optimum and a value are."""
_METHODS = {_MAIN: (3, 1.6), "local parabola": (2, 0.8)}
"""Methods: degree of the polynomial, and how far in ln N from its least the runs may be. The first gives the value;
what the others give widens the interval."""

_GRID = 400


def with_optimum(budget: Budget, trend: float = 0.0) -> Budget:
    """Return a budget with the size of least loss by every method, or with the reason why it has none.

    Args:
        trend: slope of ln loss on ln C along the optima, by which each run's loss is moved to the budget's own C.
    """
    if budget.sizes < _LEAST_SIZES:
        return replace(budget, reason=f"{budget.sizes} sizes; {_LEAST_SIZES} are needed")
    x = np.log(budget.N)
    y = np.log(budget.loss) - trend * (np.log(budget.flops) - math.log(budget.C))
    sizes, cells = np.unique(np.round(x, 6), return_inverse=True)
    best = int(np.argmin(np.bincount(cells, y) / np.bincount(cells)))
    if best in (0, len(sizes) - 1):
        edge = "smallest" if best == 0 else "largest"
        return replace(budget, reason=f"least loss at the {edge} N: no interior minimum")
    vertices = {
        name: found
        for name, (degree, reach) in _METHODS.items()
        if (found := _vertex(x, y, float(sizes[best]), degree, reach)) is not None
    }
    main = vertices.get(_MAIN)
    if main is None:
        return replace(budget, reason="no cubic through the runs has its least inside them")
    tokens = np.polynomial.Polynomial.fit(x, np.log(budget.D), 1)(main.log_N)
    return replace(budget, optimum=math.exp(main.log_N), tokens=math.exp(tokens), vertices=vertices, curve=main.curve)


def _vertex(x: Array, y: Array, centre: float, degree: int, reach: float) -> Vertex | None:
    """Return the least of a polynomial through the runs within `reach` of it, by three rounds; None where it has none.

    Where fewer than degree + 2 sizes are within reach, the nearest that many are taken.
    """
    sizes = np.unique(np.round(x, 6))
    if len(sizes) < degree + 2:
        degree = len(sizes) - 2
    found = None
    for _ in range(3):
        distances = np.sort(np.abs(sizes - centre))
        near = np.abs(x - centre) <= max(reach, float(distances[degree + 1])) + 1e-5
        u = x[near] - centre
        columns = np.vander(u, degree + 1, increasing=True)
        coefficients = np.linalg.lstsq(columns, y[near], rcond=None)[0]
        along = np.linspace(u.min(), u.max(), _GRID + 1)
        values = np.vander(along, degree + 1, increasing=True) @ coefficients
        at = int(np.argmin(values))
        if at in (0, _GRID):
            return None
        powers = np.arange(degree + 1)
        slope = np.where(powers > 0, powers * along[at] ** np.maximum(powers - 1, 0), 0.0)
        bend = np.where(powers > 1, powers * (powers - 1) * along[at] ** np.maximum(powers - 2, 0), 0.0)
        variance = float(slope @ np.linalg.pinv(columns.T @ columns) @ slope) / float(bend @ coefficients) ** 2
        squares = float(np.sum((y[near] - columns @ coefficients) ** 2))
        drawn = zip(np.exp(centre + along[::8]).tolist(), np.exp(values[::8]).tolist(), strict=True)
        free = int(near.sum()) - degree - 1
        found = Vertex(centre + float(along[at]), variance, squares, free, tuple(drawn), _rise(u, y[near]))
        centre = found.log_N
    return found


def _rise(u: Array, y: Array) -> float:
    """Return the lesser of the outward slopes of a parabola at both ends, over its standard error at unit noise."""
    columns = np.vander(u, 3, increasing=True)
    coefficients = np.linalg.lstsq(columns, y, rcond=None)[0]
    covariance = np.linalg.pinv(columns.T @ columns)
    slopes = [(side, np.array([0.0, 1.0, 2 * end])) for side, end in ((-1, u.min()), (1, u.max()))]
    return min(side * float(slope @ coefficients) / math.sqrt(slope @ covariance @ slope) for side, slope in slopes)


_CLEAR = 3.0
"""Standard errors by which the loss must rise towards both ends of the sizes for its least to lie between them."""


def _clear(interior: Sequence[Budget]) -> list[Budget]:
    """Return the budgets whose loss rises on both sides of its least beyond the noise.

    Where the sizes of a budget end near the optimum, noise alone decides whether it seems to lie between them: budgets
    that it moved inwards are kept, the others are dropped, and N_opt then follows the sizes that were run.
    """
    least = _CLEAR * math.sqrt(_noise([item.vertices[_MAIN] for item in interior]))
    return [item for item in interior if item.vertices[_MAIN].rise >= least]


@dataclass(frozen=True)
class _Line:
    """A line in logs over the budgets: y = coefficient·C^slope, with the t interval of the slope."""

    slope: float
    coefficient: float
    interval: tuple[float, float]


def _line(log_C: Array, log_y: Array, variances: Array) -> _Line:
    """Fit a line to optima whose variances are known up to their noise, and to what else scatters them.

    What scatters all of them alike is added to each variance until the residuals are as large as these say (Paule &
    Mandel 1982); they are never taken for more certain than their residuals show.
    """
    from scipy.special import stdtrit

    columns = np.stack([np.ones_like(log_C), log_C - log_C.mean()], axis=1)
    free, scatter = len(log_C) - 2, 0.0
    variances = variances + 1e-12
    for _ in range(100):
        weights = 1 / (variances + scatter)
        coefficients = np.linalg.solve(columns.T * weights @ columns, columns.T * weights @ log_y)
        excess = float(np.sum(weights * (log_y - columns @ coefficients) ** 2)) / free
        if abs(excess - 1) < 1e-6 or (scatter == 0 and excess <= 1):
            break
        scatter = max(0.0, scatter + (excess - 1) * float(np.mean(variances + scatter)) / 2)
    error = math.sqrt(np.linalg.inv(columns.T * weights @ columns)[1, 1] * max(excess, 1.0))
    reach = float(stdtrit(free, 0.975)) * error
    slope = float(coefficients[1])
    coefficient = math.exp(coefficients[0] - slope * log_C.mean())
    return _Line(slope, coefficient, (slope - reach, slope + reach))


def compute_exponent(slope: float) -> float:
    """Return k of N ∝ D^k from a of N ∝ C^a with C ∝ N·D: k = a/(1 - a), infinite from a = 1 on."""
    return slope / (1 - slope) if slope < 1 else np.inf


def exponents_from_budgets(table: PointTable, hypotheses: Sequence[float]) -> list[Estimate]:
    """Estimate k = a/(1 - a), a of N_opt ∝ C^a and b of D_opt ∝ C^b, over budgets with an interior minimum.

    The value is by local cubics. The interval is the hull of the t intervals of the lines through the optima of every
    method: it holds the seeds, the noise of the losses, and what the choice of a method decides. Budgets whose least is
    not clear are counted where they agree with the others; see `_clear`.
    """
    found = _with_optima(budgets(table))
    interior = [item for item in found if item.optimum is not None]
    too_small = sum(item.sizes < _LEAST_SIZES for item in found)
    dropped: tuple[str, ...] = (f"{too_small} budgets with fewer than {_LEAST_SIZES} sizes",) if too_small else ()
    dropped += tuple(f"C = {b.C:.3g}: {b.reason}" for b in found if b.reason and b.sizes >= _LEAST_SIZES)
    shared: dict[str, Any] = {
        "convention": f"{table.convention}; C training FLOPs",
        "objective": "weighted least squares in logs over the budgets",
        "method": "N of least loss by a local cubic of ln loss in ln N; hull of the t intervals by it and by a local "
        "parabola",
        "used": len(interior),
        "left_out": table.reasons + dropped,
    }
    k: dict[str, Any] = {
        "id": "k_isoflop",
        "estimand": "k at N_opt(C), iso-FLOP optimum",
        "details": {"budgets": found},
    }
    if reason := no_variation(table.loss):
        return [Estimate(**k, **shared, reason=reason)]
    if len(interior) < 3:
        reason = f"an interior minimum in N at {len(interior)} of {len(found)} budgets; at least 3 are needed"
        return [Estimate(**k, **shared, reason=reason)]
    clear = _clear(interior)
    if len(clear) < 3:
        reason = (
            f"the loss rises on both sides of its least N beyond the noise at {len(clear)} of {len(found)} budgets; at "
            "least 3 are needed"
        )
        return [Estimate(**k, **shared, reason=reason)]
    lines, of_clear = _lines(interior), _lines(clear)
    main, firm = (next(iter(each.values())) for each in (lines, of_clear))
    if not firm.interval[0] <= main.slope <= firm.interval[1]:
        interior, lines, main = clear, of_clear, firm
        shared["used"] = len(interior)
    both = [*lines.values(), *of_clear.values()]
    low, high = min(line.interval[0] for line in both), max(line.interval[1] for line in both)
    spread = ", ".join(f"{name} {line.slope:.3f}" for name, line in lines.items())
    remarks: tuple[str, ...] = (f"N_opt ∝ C^a by method: {spread}",)
    plain = slope_of_parabolas(found)
    if plain is not None:
        remarks += (
            f"by a parabola through all runs of each budget, as in Hoffmann et al. 2022: {plain:.3f}; runs far from "
            "the least decide it, and the interval does not count it",
        )
    if dropped:
        remarks += (f"{len(found) - len(interior)} of {len(found)} budgets dropped",)
    if len(clear) < len(interior):
        remarks += (f"at {len(clear)} of {len(interior)} budgets the loss rises on both sides beyond the noise",)
    log_C = np.log([item.C for item in interior])
    variances = _variances([item.vertices[_MAIN] for item in interior])
    data = _line(log_C, np.log([float(item.tokens or 0) for item in interior]), variances)
    # Where C is proportional to N·D a method moves both exponents by as much, one up and the other down.
    widened = data.interval[0] - max(0.0, high - main.interval[1]), data.interval[1] + max(0.0, main.interval[0] - low)
    estimates = [
        _of_compute("a_isoflop", "a of N_opt ∝ C^a", main, (low, high), hypotheses, shared, remarks, size=True),
        _of_compute("b_isoflop", "b of D_opt ∝ C^b", data, widened, hypotheses, shared, (), size=False),
    ]
    k["details"] |= {
        "slope_by_parabolas": plain,
        "slope_on_C": main.slope,
        "slope_interval": (low, high),
        "coefficient": main.coefficient,
    }
    if main.slope <= 0:
        return [Estimate(**k, **shared, reason="N_opt does not grow with C"), *estimates]
    interval = max(0.0, compute_exponent(low)), compute_exponent(high)
    tests = tuple(interval_test(hypothesis_name(value), value, interval, "interval") for value in hypotheses)
    shared = shared | {"objective": "weighted least squares of ln N_opt on ln C, k = a/(1 - a)"}
    value = compute_exponent(main.slope)
    return [Estimate(**k, **shared, value=value, interval=interval, remarks=remarks, tests=tests), *estimates]


def slope_of_parabolas(found: Sequence[Budget]) -> float | None:
    """Return a of N_opt ∝ C^a by approach 2 of Hoffmann et al. 2022 to the letter; None for fewer than 3 budgets.

    A parabola of the loss in ln N goes through all runs of a budget, whose C are taken as one, and a line of equal
    weights through the vertices that lie among the runs.
    """
    vertices = []
    for budget in found:
        if budget.sizes >= _LEAST_SIZES:
            x = np.log(budget.N)
            bend, slope, _ = np.polyfit(x - x.mean(), budget.loss, 2)
            vertex = x.mean() - slope / (2 * bend) if bend > 0 else math.inf
            if x.min() < vertex < x.max():
                vertices.append((math.log(budget.C), vertex))
    if len(vertices) < 3:
        return None
    log_C, log_N = np.array(vertices).T
    return float(np.polyfit(log_C, log_N, 1)[0])


def _with_optima(found: Sequence[Budget]) -> list[Budget]:
    """Return the budgets with their optima, losses moved to one C along the trend of the least losses of all."""
    least = [(b.C, min(b.loss)) for b in found if b.sizes >= _LEAST_SIZES]
    trend = 0.0
    if len(least) > 1:
        log_C, log_loss = np.log(np.array(least)).T
        trend = float(np.polyfit(log_C, log_loss, 1)[0])
    return [with_optimum(budget, trend) for budget in found]


def _variances(vertices: Sequence[Vertex]) -> Array:
    """Return the variances of ln N_opt, from the noise of ln loss that all budgets share."""
    return np.array([vertex.variance for vertex in vertices]) * _noise(vertices)


def _noise(vertices: Sequence[Vertex]) -> float:
    """Return the variance of ln loss about the polynomials of all budgets."""
    free = sum(vertex.free for vertex in vertices)
    return sum(vertex.squares for vertex in vertices) / free if free else 0.0


def _lines(interior: Sequence[Budget]) -> dict[str, _Line]:
    """Return the line through the optima of each method that has 3 of them."""
    lines = {}
    for name in _METHODS:
        chosen = [(item.C, item.vertices[name]) for item in interior if name in item.vertices]
        if len(chosen) >= 3:
            vertices = [vertex for _, vertex in chosen]
            log_N = np.array([vertex.log_N for vertex in vertices])
            lines[name] = _line(np.log([C for C, _ in chosen]), log_N, _variances(vertices))
    return lines


def _of_compute(
    id: str,
    estimand: str,
    line: _Line,
    interval: tuple[float, float],
    hypotheses: Sequence[float],
    shared: dict[str, Any],
    remarks: tuple[str, ...],
    size: bool,
) -> Estimate:
    """Return the row of a or b; a hypothesis on k is one on a = k/(1 + k) and on b = 1/(1 + k)."""
    symbol, coefficient = ("a", "N_opt") if size else ("b", "D_opt")
    tests = []
    for k in hypotheses:
        value = k / (1 + k) if size else 1 / (1 + k)
        tests.append(interval_test(f"{symbol} = {value:.3g} (k = {k:g})", value, interval, "interval"))
    formula = f"{coefficient} = {line.coefficient:.4g}·C^{line.slope:.4g}"
    return Estimate(
        id=id,
        estimand=f"{estimand}, iso-FLOP optimum",
        group=COMPUTE,
        value=line.slope,
        interval=interval,
        tests=tuple(tests),
        remarks=(formula, *remarks),
        details={"coefficient": line.coefficient},
        **shared,
    )
