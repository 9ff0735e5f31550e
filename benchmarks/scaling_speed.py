"""Time the multi-start fit and the bootstrap, and scipy's L-BFGS-B from one start at a time.

python benchmarks/scaling_speed.py points.csv      # the digitised points of Hoffmann et al. 2022, figure 4

Both minimise the same objective, with analytic gradients, from the same starts; they run in alternation on one machine.
"""

import argparse
import time
from typing import Any

import numpy as np
from scipy.optimize import minimize

from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.compare import resample_law
from amscale.scaling.laws.fitting import fit_law
from amscale.scaling.laws.law import HUBER_LOG, Rows, rows_of
from amscale.scaling.points import drop_highest
from amscale.scaling.table import Columns, read_table

ROUNDS = 3


def one_at_a_time(rows: Rows, starts: np.ndarray, weights: np.ndarray) -> float:
    """Return the least objective over `starts`, one scipy search after another."""
    problem = Chinchilla().problem(rows)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        log_loss, jacobian = problem.predict(theta[None])
        residuals = HUBER_LOG.residuals(log_loss, rows.loss)[0]
        slope = np.clip(residuals, -1e-3, 1e-3)
        return float(weights @ HUBER_LOG.value(residuals)), (weights * slope) @ jacobian[0]

    bounds = list(zip(problem.low, problem.high, strict=True))
    options: dict[str, Any] = {"maxiter": 1000, "maxfun": 5000, "ftol": 1e-14, "gtol": 1e-9}
    ends = [minimize(objective, s, jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun for s in starts]
    return float(min(ends))


def timed(call: Any) -> tuple[float, Any]:
    """Return seconds and result of a call."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def main() -> None:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points")
    parser.add_argument("--refits", type=int, default=4000)
    arguments = parser.parse_args()
    table = read_table(arguments.points, Columns(n="Model Size", flops="Training FLOP"))
    rows = rows_of(drop_highest(table, 5))
    law, ones = Chinchilla(), np.ones(len(rows))
    starts = law.problem(rows).starts
    for number in range(ROUNDS):
        ours, fit = timed(lambda: fit_law(law, rows, HUBER_LOG))
        theirs, value = timed(lambda: one_at_a_time(rows, starts, ones))
        print(
            f"fit, round {number + 1}: {len(starts)} starts {ours:.3f} s (objective {fit.value:.8g}); "
            f"one at a time {theirs:.2f} s ({value:.8g}); ratio {theirs / ours:.0f}"
        )
    random, few = np.random.default_rng(0), 20
    for number in range(ROUNDS):
        ours, _ = timed(lambda: resample_law(fit, rows, arguments.refits // ROUNDS))
        weights = random.multinomial(len(rows), ones / len(rows), few).astype(float)
        theirs, _ = timed(lambda: [one_at_a_time(rows, fit.theta[None], w) for w in weights])  # noqa: B023
        each, other = ours / (arguments.refits // ROUNDS), theirs / few
        print(
            f"bootstrap, round {number + 1}: {1e3 * each:.2f} ms a refit from 3 starts, "
            f"{arguments.refits} refits {each * arguments.refits:.1f} s; one from 1 start {1e3 * other:.1f} ms"
            f"; ratio {other / each:.0f}"
        )


if __name__ == "__main__":
    main()
