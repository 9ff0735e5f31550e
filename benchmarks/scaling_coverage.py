"""Do the 95 % intervals hold the truth in 95 % of simulated sweeps, and do the tests keep their 5 % size?

python benchmarks/scaling_coverage.py                     # 400 sweeps a row, about ten minutes on one core
python benchmarks/scaling_coverage.py --sweeps 1000 --only chinchilla

A test of k rejects where k is outside the interval: the share of sweeps in which it rejects the true k, its size, is
what `covered` leaves.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from amscale.scaling.bootstrap import percentile_interval
from amscale.scaling.collapse import exponent_from_collapse
from amscale.scaling.dstar import locate
from amscale.scaling.iso_flop import exponent_from_budgets
from amscale.scaling.iso_loss import exponent_from_contours
from amscale.scaling.laws.associative import Associative
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.data_constrained import DataConstrained
from amscale.scaling.laws.fitting import fit_law
from amscale.scaling.laws.kaplan import Kaplan
from amscale.scaling.laws.law import Law, Rows
from amscale.scaling.laws.power import Power
from amscale.scaling.laws.resample import resample_law
from amscale.scaling.laws.search import OBJECTIVES, Objective
from amscale.scaling.power_law import exponent_from_dstar
from amscale.scaling.table import Array, Point, Table

Interval = tuple[float, float] | None
Trial = Callable[[np.random.Generator], dict[str, Interval]]
RESAMPLES = 200
BESIROGLU = (482.01, 2085.43, 1.8172, 0.3478, 0.3658)


@dataclass(frozen=True)
class Case:
    """One kind of sweep: `truth` by quantity, and `trial`, which simulates one and gives the intervals."""

    name: str
    truth: dict[str, float]
    trial: Trial


def grid(sizes: int, amounts: int, seeds: int = 1) -> Rows:
    """N from 1e7 to 1e10 and D from 1e8 to 1e11, `seeds` runs a cell."""
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e8, 1e11, amounts)))
    N, D = np.repeat(N, seeds), np.repeat(D, seeds)
    return Rows(N, D, np.ones(len(N)), None, 6 * N * D)


def repeated(rows: Rows, epochs: tuple[int, ...] = (1, 4, 16)) -> Rows:
    """Every cell trained for each number of epochs."""
    N, D = np.tile(rows.N, len(epochs)), np.tile(rows.D, len(epochs))
    tokens = D * np.repeat(epochs, len(rows))
    return Rows(N, D, np.ones(len(N)), tokens, 6 * N * tokens)


def law_case(name: str, law: Law, natural: tuple[float, ...], rows: Rows, noise: float, objective: Objective) -> Case:
    """Sweeps of one law with independent normal noise of that deviation in ln loss."""
    truth_values = np.array(natural)
    mean = law.loss(truth_values, rows)
    truth = {"k": law.exponent(truth_values), "floor": law.floor(truth_values)}
    known = {key: float(value) for key, value in truth.items() if value is not None}

    def trial(random: np.random.Generator) -> dict[str, Interval]:
        simulated = replace(rows, loss=mean * np.exp(noise * random.normal(size=len(mean))))
        fit = fit_law(law, simulated, objective)
        refits = resample_law(fit, simulated, RESAMPLES, int(random.integers(2**31))).natural
        columns = {"k": law.exponent(refits), "floor": law.floor(refits)}
        return {key: percentile_interval(columns[key]) for key in known}  # type: ignore[arg-type]

    return Case(f"{name}, {objective.name}", known, trial)


def dstar_case(sizes: int, ratio: float, noise: float) -> Case:
    """D* = c·N^½ with normal noise in ln D*, seen through a geometric grid of D."""
    N = np.geomspace(1e6, 3e7, sizes)

    def trial(random: np.random.Generator) -> dict[str, Interval]:
        true = 1e7 * np.sqrt(N / 1e6) * np.exp(noise * random.normal(size=sizes))
        amounts = 5e6 * ratio ** (np.arange(0, np.log(25) / np.log(ratio)) + random.uniform())
        found = [locate(n, amounts, np.where(amounts >= d, 0.0, 1.0)) for n, d in zip(N, true, strict=True)]
        return {"k": exponent_from_dstar(found, "N", "").interval}

    return Case(f"D*, {sizes} N, D ratio {ratio:g}, noise {noise:g}", {"k": 2.0}, trial)


def table_of(N: Array, D: Array, loss: Array) -> Table:
    """Points as the estimators take them."""
    return Table("simulated", "N", [Point("", *row) for row in zip(N, D, loss, strict=True)])


def iso_flop_case(shift: float, noise: float) -> Case:
    """Seven budgets of eight sizes about `shift` times the optimum."""
    A, B, E, alpha, beta = BESIROGLU
    C = np.repeat(np.geomspace(1e18, 1e21, 7), 8)
    best = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (C / 6) ** (beta / (alpha + beta))
    N = shift * best * np.tile(np.geomspace(1 / 12, 12, 8), 7)
    D = C / (6 * N)
    mean = E + A * N**-alpha + B * D**-beta

    def trial(random: np.random.Generator) -> dict[str, Interval]:
        table = table_of(N, D, mean * np.exp(noise * random.normal(size=len(mean))))
        return {"k": exponent_from_budgets(table, (1,)).interval}

    return Case(f"iso-FLOP, grid centred at {shift:g} of the optimum", {"k": beta / alpha}, trial)


def iso_loss_case(noise: float) -> Case:
    """Contours on an 8 by 8 grid of Chinchilla's law."""
    rows = grid(8, 8)
    mean = Chinchilla().loss(np.array(BESIROGLU), rows)

    def trial(random: np.random.Generator) -> dict[str, Interval]:
        table = table_of(rows.N, rows.D, mean * np.exp(noise * random.normal(size=len(mean))))
        return {"k": exponent_from_contours(table, (1,), int(random.integers(2**31))).interval}

    return Case("iso-loss contours, 8 by 8", {"k": BESIROGLU[4] / BESIROGLU[3]}, trial)


def collapse_case(noise: float) -> Case:
    """A loss that falls along N/D² on a 6 by 6 grid."""
    rows = grid(6, 6)
    mean = 2 + 1 / (1 + (rows.N / 3e8 / (rows.D / 3e9) ** 2) ** 0.3)

    def trial(random: np.random.Generator) -> dict[str, Interval]:
        table = table_of(rows.N, rows.D, mean * np.exp(noise * random.normal(size=len(mean))))
        return {"k": exponent_from_collapse(table, (2,), RESAMPLES, int(random.integers(2**31))).interval}

    return Case("collapse on N/D², 6 by 6", {"k": 2.0}, trial)


def cases() -> Iterator[Case]:
    """Every row of the table."""
    paper = Associative(), (1.0, -np.log(3e9) + 0.5 * np.log(3e8), 0.5)
    for objective in OBJECTIVES:
        yield law_case("chinchilla 4 by 4", Chinchilla(), BESIROGLU, grid(4, 4), 0.003, objective)
        yield law_case("chinchilla 5 by 5", Chinchilla(), BESIROGLU, grid(5, 5), 0.01, objective)
        yield law_case("chinchilla 4 by 4, 3 seeds", Chinchilla(), BESIROGLU, grid(4, 4, 3), 0.01, objective)
        yield law_case("chinchilla 8 by 8", Chinchilla(), BESIROGLU, grid(8, 8), 0.01, objective)
        yield law_case("kaplan 4 by 4", Kaplan(), (8.8e12, 3e13, 0.095, 0.114), grid(4, 4), 0.01, objective)
        constrained = (*BESIROGLU, 15.0, 5.0)
        yield law_case("data-constrained 48", DataConstrained(), constrained, repeated(grid(4, 4)), 0.01, objective)
        yield law_case("associative 4 by 4", *paper, grid(4, 4), 0.01, objective)
        yield law_case("associative κ = ½ 4 by 4", Associative(0.5), paper[1][:2], grid(4, 4), 0.01, objective)
        yield law_case("power in D 4 by 4", Power("D"), (500.0, 1.8, 0.3), grid(4, 4), 0.02, objective)
    for sizes, ratio, noise in ((4, 1.2, 0.1), (6, 1.2, 0.1), (6, 1.05, 0.2), (8, 2.0, 0.1)):
        yield dstar_case(sizes, ratio, noise)
    yield iso_flop_case(0.4, 0.002)
    yield iso_flop_case(1.0, 0.002)
    yield iso_loss_case(0.003)
    yield collapse_case(0.01)


def coverage(case: Case, sweeps: int, seed: int = 0) -> list[dict[str, float | str]]:
    """How often the intervals hold the truth, and on which side of them it lies otherwise; a refusal is no interval."""
    counts = {key: np.zeros(4, dtype=int) for key in case.truth}
    for sweep in range(sweeps):
        intervals = case.trial(np.random.default_rng([seed, sweep]))
        for key, truth in case.truth.items():
            interval = intervals[key]
            if interval is None:
                counts[key][3] += 1
            else:
                counts[key][0 if interval[0] <= truth <= interval[1] else 1 if truth < interval[0] else 2] += 1
    rows: list[dict[str, float | str]] = []
    for key, (covered, below, above, refused) in counts.items():
        given = max(sweeps - refused, 1)
        row = {"case": case.name, "quantity": key, "covered": covered / given, "below": below / given}
        rows.append(row | {"above": above / given, "refused": int(refused)})
    return rows


def main() -> None:
    """Print the table, a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=400)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    arguments = parser.parse_args()
    print(f"{arguments.sweeps} sweeps a row, {RESAMPLES} resamples; truth below / above: outside on that side\n")
    print("| sweep | quantity | covered | truth below | truth above | refused |\n|---|---|---|---|---|---|")
    begin = time.perf_counter()
    for case in cases():
        if arguments.only in case.name:
            for row in coverage(case, arguments.sweeps):
                shares = " | ".join(f"{100 * float(row[key]):.1f} %" for key in ("covered", "below", "above"))
                print(f"| {row['case']} | {row['quantity']} | {shares} | {row['refused']} |", flush=True)
    print(f"\n{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
