"""Measure how often the estimates that `fit` gives hold the truth where designs are as they come, or say nothing.

python benchmarks/design_coverage.py                      # 400 sweeps a row, a quarter of an hour on two cores
python benchmarks/design_coverage.py --sweeps 50 --only sizes

Every row goes through what a user gets: laws are compared, those that do not describe the points have no say, and the
interval is that of the estimate. A sweep in which the law is not determined counts apart.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scaling_coverage import Case, Outcome, run_cases, table_of

from amscale.scaling.isoflop import exponents_from_budgets
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.compare import compare
from amscale.scaling.laws.coupled import Coupled
from amscale.scaling.laws.estimates import law_estimates
from amscale.scaling.laws.kaplan import Kaplan
from amscale.scaling.laws.law import Rows, rows_of
from amscale.scaling.points import Array, Point, PointTable
from amscale.scaling.tuning import tune_cells

LAWS = {"chinchilla": Chinchilla(), "coupled": Coupled(), "kaplan": Kaplan()}
TRUTH = np.array([300.0, 900.0, 1.7, 0.33, 0.33])
COUPLED = np.array([2.1e5, 1.7e4, 1.1, 0.85, 0.62, 0.4])
SWEEPS, RESAMPLES = 400, 100
"""An interval of 100 refits holds what one of 4000 does (`percentile_interval`), and costs less."""

Make = Callable[[np.random.Generator], PointTable]


def grid(sizes: int, amounts: int) -> tuple[Array, Array]:
    """Return N from 1e6 to 1e9 and D from 2e7 to 2e10 of a complete grid, (cells,) each."""
    axes = np.meshgrid(np.geomspace(1e6, 1e9, sizes), np.geomspace(2e7, 2e10, amounts))
    return axes[0].ravel(), axes[1].ravel()


def losses(N: Array, D: Array) -> Array:
    """Return the losses of Chinchilla's law with k = 1."""
    return Chinchilla().loss(TRUTH, Rows(N, D, np.ones(len(N)), None, 6 * N * D))


def case(name: str, make: Make, law: str = "chinchilla", k: float = 1.0, floor: float = 1.7) -> Case:
    """Return the case of a law's k and floor, by the whole way from points to estimates."""

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        table = make(random)
        fitted = compare(rows_of(table), RESAMPLES, {id: LAWS[id] for id in {"chinchilla", "coupled", law}})
        found = {item.id: item for item in law_estimates(table, fitted, (k,))}
        truth = {f"k_{law}": k, f"floor_{law}": floor}
        return {
            id.split("_")[0]: _outcome(found[id].interval if id in found else None, value)
            for id, value in truth.items()
        }

    known = {"k": k} if LAWS[law].floor(np.ones(9)) is None else {"k": k, "floor": floor}
    return Case(name, known, trial, SWEEPS)


def _outcome(interval: tuple[float, float] | None, truth: float) -> Outcome:
    return None if interval is None else (interval, not interval[0] <= truth <= interval[1])


def shared_by_size(shared: float, noise: float, seeds: int, sizes: int, amounts: int) -> Make:
    """Return sweeps whose runs of one size share an error."""

    def make(random: np.random.Generator) -> PointTable:
        N, D = (np.repeat(axis, seeds) for axis in grid(sizes, amounts))
        of_size = random.normal(scale=shared, size=sizes)[np.unique(N, return_inverse=True)[1]]
        return table_of(N, D, losses(N, D) * np.exp(of_size + noise * random.normal(size=len(N))))

    return make


def unequal_seeds(random: np.random.Generator) -> PointTable:
    """Return a sweep with 1 to 4 seeds a cell."""
    N, D = grid(5, 6)
    seeds = random.integers(1, 5, size=len(N))
    N, D = np.repeat(N, seeds), np.repeat(D, seeds)
    return table_of(N, D, losses(N, D) * np.exp(0.005 * random.normal(size=len(N))))


def heteroscedastic(random: np.random.Generator) -> PointTable:
    """Return a sweep whose noise falls from 1 % at the least N to 0.1 % at the largest."""
    N, D = grid(6, 7)
    noise = 0.01 * (N / N.min()) ** (-1 / 3)
    return table_of(N, D, losses(N, D) * np.exp(noise * random.normal(size=len(N))))


def with_outliers(random: np.random.Generator) -> PointTable:
    """Return a sweep two of whose cells did not train well: their losses are 5 to 15 % too high."""
    N, D = grid(6, 7)
    loss = losses(N, D) * np.exp(0.003 * random.normal(size=len(N)))
    loss[random.choice(len(N), 2, replace=False)] *= random.uniform(1.05, 1.15, size=2)
    return table_of(N, D, loss)


def scattered(random: np.random.Generator) -> PointTable:
    """Return 80 runs of no grid."""
    N, D = (np.exp(random.uniform(np.log(low), np.log(1e3 * low), 80)) for low in (1e6, 2e7))
    return table_of(N, D, losses(N, D) * np.exp(0.005 * random.normal(size=80)))


def collinear(random: np.random.Generator) -> PointTable:
    """Return a sweep at D = 20 N."""
    N = np.geomspace(1e6, 1e10, 12)
    return table_of(N, 20 * N, losses(N, 20 * N) * np.exp(0.003 * random.normal(size=12)))


def tuned(random: np.random.Generator) -> PointTable:
    """Return tuned cells: 7 learning rates each a factor of 2 apart, the loss skewed in their logarithm."""
    points = []
    for N, D in zip(*grid(5, 5), strict=True):
        best = 3e-3 * (N / 1e6) ** -0.33 * np.exp(0.3 * random.normal())
        rates = 2.0 ** np.arange(-3, 4) * 2.0 ** round(np.log2(best))
        x = np.log(rates / best)
        loss = losses(np.array([N]), np.array([D])) * (1 + 0.008 * x**2 + 0.002 * x**3)
        loss = loss * np.exp(0.002 * random.normal(size=len(x)))
        points += [
            Point(f"{N:g} {D:g} {rate:g}", N, D, value, settings={"lr": rate})
            for rate, value in zip(rates.tolist(), loss.tolist(), strict=True)
        ]
    return tune_cells(PointTable("simulated", "N", points), ("lr",)).table


def coupled(random: np.random.Generator) -> PointTable:
    """Return a sweep of the coupled law."""
    N, D = grid(6, 8)
    mean = Coupled().loss(COUPLED, Rows(N, D, np.ones(len(N)), None, 6 * N * D))
    return table_of(N, D, mean * np.exp(0.002 * random.normal(size=len(N))))


def skewed_valleys(drift: float) -> Case:
    """Return nine budgets whose optima lie on N ∝ C^0.6, in valleys whose skew drifts with C."""

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        C = np.repeat(np.geomspace(1e16, 1e20, 9), 11)
        best = 1e6 * (C / 1e16) ** 0.6
        x = np.tile(np.linspace(-2.3, 2.3, 11), 9)
        skew = 0.01 + drift * np.log10(C / 1e18)
        loss = 2 + 1.5 * (C / 1e16) ** -0.1 + 0.05 * x**2 + skew * x**3 * np.exp(-(x**2) / 8)
        table = PointTable("simulated", "N", [])
        N = best * np.exp(x)
        values = loss * np.exp(0.002 * random.normal(size=len(C)))
        table.points = [Point("", *row) for row in zip(N, C / (6 * N), values, strict=True)]
        found = {item.id: item.interval for item in exponents_from_budgets(table, (1.5,))}
        return {"k": _outcome(found["k_isoflop"], 1.5), "a": _outcome(found.get("a_isoflop"), 0.6)}

    return Case(f"iso-FLOP valleys whose skew drifts by {drift:g}", {"k": 1.5, "a": 0.6}, trial, SWEEPS)


def cases() -> Iterator[Case]:
    """Yield every row of the table."""
    yield skewed_valleys(0.004)
    yield case("D = 20 N, 12 runs", collinear)
    yield case("sizes share no error, 6 by 7, noise 0.3 %", shared_by_size(0.0, 0.003, 1, 6, 7))
    yield case("sizes share an error of 1 %, 6 by 7, noise 0.3 %", shared_by_size(0.01, 0.003, 1, 6, 7))
    yield case("sizes share an error of 0.3 %, 6 by 7, noise 0.3 %", shared_by_size(0.003, 0.003, 1, 6, 7))
    yield case("sizes share an error of 1 %, 5 by 5, 3 seeds", shared_by_size(0.01, 0.003, 3, 5, 5))
    yield case("1 to 4 seeds a cell, 5 by 6, noise 0.5 %", unequal_seeds)
    yield case("noise from 1 % at the least N to 0.1 %, 6 by 7", heteroscedastic)
    yield case("2 of 42 cells 5 to 15 % too high, 6 by 7, noise 0.3 %", with_outliers)
    yield case("80 scattered runs, noise 0.5 %", scattered)
    yield case("cells tuned over 7 skewed learning rates, 5 by 5", tuned)
    yield case("coupled law, κ 0.4, 6 by 8, noise 0.2 %", coupled, "coupled", 0.62 / 0.85, 1.1)
    yield case("Kaplan's law on losses of Chinchilla's, k 1", shared_by_size(0.0, 0.003, 1, 6, 7), "kaplan")


if __name__ == "__main__":
    run_cases(cases(), __doc__)
