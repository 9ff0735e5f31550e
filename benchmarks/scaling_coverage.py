"""Measure how often 95 % intervals hold the truth in simulated sweeps, and tests at 5 % reject it.

python benchmarks/scaling_coverage.py                     # 400 to 1000 sweeps a row, ten to fifteen minutes on one core
python benchmarks/scaling_coverage.py --sweeps 400 --only chinchilla --seed 3

The share covered is itself uncertain: `its interval` is its 95 % interval (Wilson). `rejected` is the share
of sweeps in which the test of the true value rejects it at 5 %: the size of that test.
"""

import argparse
import multiprocessing
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from amscale.scaling.bootstrap import percentile_interval
from amscale.scaling.capacity import capacity_estimates
from amscale.scaling.collapse import exponent_from_collapse
from amscale.scaling.dstar import locate
from amscale.scaling.estimate import Estimate, interval_test
from amscale.scaling.isoflop import exponents_from_budgets
from amscale.scaling.laws.associative import Associative, AssociativeHalf, excess
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.compare import resample_law
from amscale.scaling.laws.data_constrained import DataConstrained
from amscale.scaling.laws.fitting import fit_law
from amscale.scaling.laws.kaplan import Kaplan
from amscale.scaling.laws.law import HUBER_LOG, OBJECTIVES, Law, Objective, Rows
from amscale.scaling.laws.power import PowerD
from amscale.scaling.optima import exponent_from_contours, exponent_from_optima
from amscale.scaling.points import Array, Point, PointTable
from amscale.scaling.power_law import exponent_from_dstar
from amscale.trials.records import ResultData, ResultFlops, ResultLosses, ResultParameters, ResultShape, TrialResult

Outcome = tuple[tuple[float, float], bool] | None
"""An interval and whether the truth was rejected; None where the estimate was not determined."""

Trial = Callable[[np.random.Generator], dict[str, Outcome]]
RESAMPLES = 200
BESIROGLU = (482.01, 2085.43, 1.8172, 0.3478, 0.3658)
MOST_SWEEPS, LEAST_SWEEPS = 1000, 400


@dataclass(frozen=True)
class Case:
    """One kind of sweep: `truth` by quantity, and `trial`, which simulates one and gives the intervals."""

    name: str
    truth: dict[str, float]
    trial: Trial
    sweeps: int = MOST_SWEEPS


def grid(sizes: int, amounts: int, seeds: int = 1) -> Rows:
    """Return a grid of N from 1e7 to 1e10 and D from 1e8 to 1e11, with `seeds` runs a cell."""
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, sizes), np.geomspace(1e8, 1e11, amounts)))
    N, D = np.repeat(N, seeds), np.repeat(D, seeds)
    return Rows(N, D, np.ones(len(N)), None, 6 * N * D)


def repeated(rows: Rows, epochs: tuple[int, ...] = (1, 4, 16)) -> Rows:
    """Return the rows with every cell trained for each number of epochs."""
    N, D = np.tile(rows.N, len(epochs)), np.tile(rows.D, len(epochs))
    tokens = D * np.repeat(epochs, len(rows))
    return Rows(N, D, np.ones(len(N)), tokens, 6 * N * tokens)


def noisy(mean: Array, noise: float, random: np.random.Generator) -> Array:
    """Return losses with independent normal noise of that deviation in ln loss."""
    return mean * np.exp(noise * random.normal(size=len(mean)))


def outcome(estimate: Estimate) -> Outcome:
    """Return the outcome of an estimate whose only hypothesis is the truth."""
    return None if estimate.interval is None else (estimate.interval, estimate.tests[0].rejected)


def law_case(name: str, law: Law, natural: tuple[float, ...], rows: Rows, noise: float, objective: Objective) -> Case:
    """Simulate sweeps of one law; k and floor from its fit."""
    truth_values = np.array(natural)
    mean = law.loss(truth_values, rows)
    truth = {"k": law.exponent(truth_values), "floor": law.floor(truth_values)}
    known = {key: float(value) for key, value in truth.items() if value is not None}

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        simulated = replace(rows, loss=noisy(mean, noise, random))
        fit = fit_law(law, simulated, objective)
        refits = resample_law(fit, simulated, RESAMPLES, int(random.integers(2**31))).natural
        columns: dict[str, Any] = {"k": law.exponent(refits), "floor": law.floor(refits)}
        intervals = {key: percentile_interval(columns[key]) for key in known}
        return {key: (pair, interval_test("", known[key], pair, "").rejected) for key, pair in intervals.items()}

    # A robust fit takes several times as long.
    sweeps = LEAST_SWEEPS if objective is HUBER_LOG and len(rows) < 64 else MOST_SWEEPS
    return Case(f"{name}, {objective.name}", known, trial, sweeps)


def dstar_case(sizes: int, ratio: float, noise: float, most: float = 25, k: float = 2) -> Case:
    """Simulate D* = c·N^(1/k) with normal noise in ln D*, on a geometric grid of D from 1 to `most`."""
    N = np.geomspace(1e6, 3e7, sizes)

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        true = 1e7 * (N / 1e6) ** (1 / k) * np.exp(noise * random.normal(size=sizes))
        amounts = 5e6 * ratio ** (np.arange(0, np.log(most) / np.log(ratio)) + random.uniform())
        seen = amounts.tolist()
        found = [locate(n, seen, (amounts < d).astype(float).tolist()) for n, d in zip(N, true, strict=True)]
        return {"k": outcome(exponent_from_dstar(found, "N", "", (k,)))}

    beyond = "" if most >= 25 else ", the largest D* beyond the grid"
    return Case(f"D*, {sizes} N, k {k:g}, D ratio {ratio:g}, noise {noise:g}{beyond}", {"k": k}, trial)


def table_of(N: Array, D: Array, loss: Array) -> PointTable:
    """Return a table of points."""
    return PointTable("simulated", "N", [Point("", *row) for row in zip(N, D, loss, strict=True)])


def iso_flop_case(shift: float, noise: float) -> Case:
    """Simulate seven budgets of eight sizes about `shift` times the optimum."""
    law, k = np.array(BESIROGLU), BESIROGLU[4] / BESIROGLU[3]
    C = np.repeat(np.geomspace(1e18, 1e21, 7), 8)
    N = shift * Chinchilla().compute_optimum(law, C) * np.tile(np.geomspace(1 / 12, 12, 8), 7)
    rows = Rows(N, C / (6 * N), np.ones(len(N)), None, C)
    mean = Chinchilla().loss(law, rows)

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        return {"k": outcome(exponents_from_budgets(table_of(N, rows.D, noisy(mean, noise, random)), (k,))[0])}

    return Case(f"iso-FLOP, grid centred at {shift:g} of the optimum", {"k": k}, trial)


def iso_loss_case(noise: float) -> Case:
    """Simulate contours on an 8 by 8 grid of Chinchilla's law."""
    rows, k = grid(8, 8), BESIROGLU[4] / BESIROGLU[3]
    mean = Chinchilla().loss(np.array(BESIROGLU), rows)

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        table = table_of(rows.N, rows.D, noisy(mean, noise, random))
        return {"k": outcome(exponent_from_contours(table, (k,), int(random.integers(2**31))))}

    return Case("iso-loss contours, 8 by 8", {"k": k}, trial)


def nopt_case(sizes: int, amounts: int, noise: float) -> Case:
    """Simulate a loss whose least is on N ∝ D², interior at every D: the associative-memory law."""
    N, D = (x.ravel() for x in np.meshgrid(np.geomspace(3e6, 3e10, sizes), np.geomspace(1e9, 1e10, amounts)))
    mean = 2 + excess(np.log(D / 3e9) - 0.5 * np.log(N / 3e8))

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        return {"k": outcome(exponent_from_optima(table_of(N, D, noisy(mean, noise, random)), (2,)))}

    return Case(f"N_opt(D), {sizes} by {amounts}, noise {noise:g}", {"k": 2.0}, trial)


def collapse_case(sizes: int, amounts: int, noise: float) -> Case:
    """Simulate a loss that falls along N/D²."""
    rows = grid(sizes, amounts)
    mean = 2 + 1 / (1 + (rows.N / 3e8 / (rows.D / 3e9) ** 2) ** 0.3)

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        table = table_of(rows.N, rows.D, noisy(mean, noise, random))
        return {"k": outcome(exponent_from_collapse(table, (2,), RESAMPLES, int(random.integers(2**31))))}

    return Case(f"collapse on N/D², {sizes} by {amounts}, noise {noise:g}", {"k": 2.0}, trial)


def memorising_run(N: float, D: float, entropy: float, loss: float, rate: float | None = None) -> TrialResult:
    """Return the result of a run of N parameters whose training loss ends at `loss`, at a learning rate."""
    counts = {name: 0.0 for name in ("embedding", "output_head", "attention", "feed_forward", "norms_and_rest")}
    return TrialResult(
        state="finished",
        steps=1,
        shape=ResultShape(),
        parameters=ResultParameters(**counts, total=float(N)),
        flops=ResultFlops(total=float(6 * N * D)),
        data=ResultData(unique_tokens=float(D), entropy_per_token=float(entropy)),
        losses=ResultLosses(train_evaluated=float(loss)),
        settings={} if rate is None else {"train": {"learning_rate": rate}},
    )


def capacity_case(sizes: int, noise: float) -> Case:
    """Simulate random tokens, 32 symbols; C = 3.6 bits a parameter with normal noise in ln C."""
    entropy, N = np.log(32), np.geomspace(3e4, 1e6, sizes)

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        points = []
        for n, bits in zip(N, noisy(3.6 * N, noise, random), strict=True):
            full = bits * np.log(2) / entropy
            for j, D in enumerate(full * np.array([0.3, 1.3, 3, 8])):
                loss = entropy - min(D * entropy, bits * np.log(2) * (1 - 0.05 * max(0, j - 1))) / D
                points.append(Point("", n, D, loss, result=memorising_run(n, D, entropy, loss)))
        bits_row, slope = capacity_estimates(PointTable("simulated", "N", points))
        assert bits_row.interval is not None
        given = interval_test("", 3.6, bits_row.interval, "").rejected
        return {"bits per parameter": (bits_row.interval, given), "slope": outcome(slope)}

    return Case(f"capacity, {sizes} N", {"bits per parameter": 3.6, "slope": 1.0}, trial)


def capacity_grid_case(sizes: int, seeds: int, rates: int, noise: float = 0.02, of_size: float = 0.03) -> Case:
    """Simulate a product of N and 7 D, each run at several learning rates and seeds, as a sweep of random tokens is.

    The D of the most bits lies anywhere between those of the grid. Runs have noise, and all of one N share an error.
    The best rate is where most is memorised; the others hold 5 and 20 % less.
    """
    entropy, N = np.log(32), np.geomspace(2e3, 6e4, sizes)
    amounts = 2.5 * N[0] * np.log(2) / entropy * 0.6 * 2.0 ** np.arange(9)
    shares = (1.0, 0.95, 0.8)[:rates]

    def trial(random: np.random.Generator) -> dict[str, Outcome]:
        points = []
        for n in N:
            held = 2.5 * n * np.exp(of_size * random.normal())
            for D in amounts:
                over = np.log(D * entropy / np.log(2) / held)
                for rate, share in enumerate(shares):
                    for bits in noisy(
                        np.full(seeds, held * share * np.exp(-0.05 * max(over, 0) ** 1.5)), noise, random
                    ):
                        loss = entropy - min(0.97 * D * entropy, bits * np.log(2)) / D
                        points.append(Point("", n, D, loss, result=memorising_run(n, D, entropy, loss, float(rate))))
        bits_row, slope = capacity_estimates(PointTable("simulated", "N", points))
        given = bits_row.interval and interval_test("", 2.5, bits_row.interval, "").rejected
        found = None if bits_row.interval is None else (bits_row.interval, bool(given))
        return {"bits per parameter": found, "slope": None if slope.interval is None else outcome(slope)}

    name = f"capacity, {sizes} N by 9 D, {seeds} seeds, {rates} rates"
    return Case(name, {"bits per parameter": 2.5, "slope": 1.0}, trial)


def law_cases() -> Iterator[Case]:
    """Yield every law under every objective."""
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
        yield law_case("associative κ = ½ 4 by 4", AssociativeHalf(), paper[1][:2], grid(4, 4), 0.01, objective)
        yield law_case("power in D 4 by 4", PowerD(), (500.0, 1.8, 0.3), grid(4, 4), 0.02, objective)


def cases() -> Iterator[Case]:
    """Yield every row of the table, the cheap ones first."""
    for sizes, ratio, noise in ((6, 1.2, 0.1), (6, 1.05, 0.2), (8, 1.5, 0.2), (5, 1.5, 0.2), (3, 1.1, 0.2)):
        yield dstar_case(sizes, ratio, noise)
    yield dstar_case(6, 1.3, 0.15, most=80, k=1)
    yield dstar_case(6, 1.2, 0.1, most=9)
    yield dstar_case(4, 1.2, 0.1)
    yield dstar_case(8, 2.0, 0.1)
    yield capacity_case(5, 0.05)
    yield capacity_grid_case(5, 3, 1)
    yield capacity_grid_case(5, 1, 3)
    yield capacity_grid_case(4, 3, 3)
    yield nopt_case(9, 6, 0.01)
    yield iso_flop_case(0.4, 0.002)
    yield iso_flop_case(1.0, 0.002)
    yield collapse_case(6, 6, 0.01)
    yield collapse_case(6, 6, 0.03)
    yield iso_loss_case(0.003)
    yield from law_cases()


_simulated: Callable[[int], dict[str, Outcome]]
"""What the processes of a pool do: set before they are forked, since a closure cannot be sent to them."""


def _one_sweep(sweep: int) -> dict[str, Outcome]:
    return _simulated(sweep)


def coverage(case: Case, sweeps: int, seed: int = 0, processes: int = 1) -> list[dict[str, float | str]]:
    """Count how often intervals hold the truth, on which side it is otherwise, and how often it is rejected.

    An estimate that is not determined does not count. Every case draws different numbers: with shared ones a chance
    excess would show in all rows. The numbers do not depend on `processes`.
    """
    global _simulated

    def simulated(sweep: int) -> dict[str, Outcome]:
        return case.trial(np.random.default_rng([seed, zlib.crc32(case.name.encode()), sweep]))

    counts = {key: np.zeros(5, dtype=int) for key in case.truth}
    if processes > 1:
        _simulated = simulated
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            outcomes = pool.map(_one_sweep, range(sweeps), chunksize=4)
    else:
        outcomes = [simulated(sweep) for sweep in range(sweeps)]
    for found in outcomes:
        for key, truth in case.truth.items():
            item = found[key]
            if item is None:
                counts[key][4] += 1
            else:
                (low, high), rejected = item
                counts[key][0 if low <= truth <= high else 1 if truth < low else 2] += 1
                counts[key][3] += rejected
    rows: list[dict[str, float | str]] = []
    for key, (covered, below, above, rejected, undetermined) in counts.items():
        given = max(sweeps - undetermined, 1)
        row: dict[str, float | str] = {
            "case": case.name,
            "quantity": key,
            "sweeps": sweeps,
            "not determined": int(undetermined),
        }
        low, high = wilson(covered / given, given)
        row |= {"covered": covered / given, "low": low, "high": high}
        rows.append(row | {"below": below / given, "above": above / given, "rejected": rejected / given})
    return rows


def wilson(share: float, number: int) -> tuple[float, float]:
    """95 % interval of a probability of which `share` was seen in `number` trials (Wilson 1927)."""
    z = 1.96
    middle = (share + z**2 / (2 * number)) / (1 + z**2 / number)
    reach = z / (1 + z**2 / number) * np.sqrt(share * (1 - share) / number + z**2 / (4 * number**2))
    return float(middle - reach), float(middle + reach)


def run_cases(found: Iterator[Case], about: str | None) -> None:
    """Print the table of cases, a row at a time, as the command line asks."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, help="of each row; by default as many as it has")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {RESAMPLES} resamples; truth below / above: outside on that side\n")
    print(
        "| sweep | quantity | sweeps | covered | its interval | truth below | truth above | rejected | not determined |"
    )
    print("|---" * 9 + "|")
    begin, inside, count = time.monotonic(), 0, 0
    for case in found:
        if arguments.only in case.name:
            for row in coverage(case, arguments.sweeps or case.sweeps, arguments.seed, arguments.processes):
                covered, low, high, *others = (
                    f"{100 * float(row[key]):.1f}" for key in ("covered", "low", "high", "below", "above", "rejected")
                )
                if row["not determined"] == row["sweeps"]:
                    print(f"| {row['case']} | {row['quantity']} | {row['sweeps']} |{' |' * 5} all |", flush=True)
                    continue
                text = " | ".join(f"{other} %" for other in others)
                head = f"| {row['case']} | {row['quantity']} | {row['sweeps']} | {covered} % | {low} to {high} |"
                print(f"{head} {text} | {row['not determined']} |", flush=True)
                inside += 93 <= float(covered) <= 97
                count += 1
    spent = time.monotonic() - begin
    print(f"\n{inside} of {count} rows between 93 and 97 %; {spent:.0f} s by {arguments.processes} processes")


if __name__ == "__main__":
    run_cases(cases(), __doc__)
