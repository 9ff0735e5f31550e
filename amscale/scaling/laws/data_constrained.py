"""The law of repeated data (Muennighoff et al. 2023, equations 5 to 7).

L = E + A/N'^α + B/D'^β
D' = U_D + U_D R_D* (1 - exp(-R_D/R_D*)),   U_D = unique tokens used, R_D = repetitions = tokens seen / U_D - 1
N' = U_N + U_N R_N* (1 - exp(-R_N/R_N*)),   U_N = min(N, compute-optimal N for U_D tokens), R_N = N / U_N - 1
"""

from typing import ClassVar, NamedTuple

import numpy as np

from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.law import (
    SQUARED_LOG,
    Law,
    Problem,
    Rows,
    derivatives,
    log_sum,
    minimise,
    too_few,
    too_few_repeats,
)
from amscale.scaling.points import Array


class _Worth(NamedTuple):
    """ln of U + U R* (1 - exp(-R/R*)), and its derivatives by ln U (at a fixed total) and ln R*."""

    log: Array
    by_unique: Array
    by_decay: Array


def _worth(log_unique: Array, log_total: Array, decay: Array) -> _Worth:
    ratio = np.exp(np.clip(log_total - log_unique, 0.0, 50.0))
    repeats = ratio - 1
    fade = np.exp(-repeats / decay)
    gain = 1 - decay * np.expm1(-repeats / decay)
    by_decay = decay * (-np.expm1(-repeats / decay) - repeats / decay * fade) / gain
    return _Worth(log_unique + np.log(gain), 1 - fade * ratio / gain, by_decay)


class DataConstrained(Law):
    """The law of repeated data. Its seven parameters need rows that repeat their data: R_D* and R_N* are decays."""

    name = "data-constrained"
    formula = "L = E + A/N'^α + B/D'^β, N' and D' effective"
    parameters = ("A", "B", "E", "alpha", "beta", "R_D", "R_N")
    optimum = "k = β/α, parametric optimum of fresh data"
    exponents: ClassVar = ("β", "α")
    # At a bound a repeat is worth as much as fresh data, or nothing, and so is a parameter beyond the optimum.
    limits: ClassVar = tuple((name, side) for name in ("ln R_D*", "ln R_N*") for side in ("lower", "upper"))

    def unsupported(self, rows: Rows) -> str:
        return too_few_repeats(rows, 3) or too_few(rows, 7, 3, 3)

    def problem(self, rows: Rows) -> Problem:
        """Return the search: logarithms of what is positive, about the rows' means."""
        assert rows.tokens is not None
        x, y, t = np.log(rows.N), np.log(np.minimum(rows.D, rows.tokens)), np.log(rows.tokens)
        x_mean, y_mean = float(x.mean()), float(y.mean())
        x, y, t = x - x_mean, y - y_mean, t - y_mean
        least, most = np.log(rows.loss.min()), np.log(rows.loss.max())

        def predict(theta: Array) -> tuple[Array, Array]:
            """Return ln loss and its derivatives; see `Predict`."""
            a, alpha, b, beta, e, rho, nu = (theta[:, i, None] for i in range(7))
            data = _worth(y, t, np.exp(rho))
            # ln of the compute-optimal N for U_D tokens at C = 6ND: αA/N^α = βB/D^β there.
            optimal = (np.log(alpha / beta) + a - b + beta * y) / alpha
            inner = optimal < x
            size = _worth(np.where(inner, optimal, x), x, np.exp(nu))
            total, (p, q, r) = log_sum([a - alpha * size.log, b - beta * data.log, np.broadcast_to(e, size.log.shape)])
            pull = -alpha * p * np.where(inner, size.by_unique, 0.0)
            columns = [
                p + pull / alpha,
                -p * size.log + pull * (1 / alpha - optimal) / alpha,
                q - pull / alpha,
                -q * data.log + pull * (y - 1 / beta) / alpha,
                r,
                -beta * q * data.by_decay,
                -alpha * p * size.by_decay,
            ]
            return total, derivatives(columns)

        def natural(theta: Array) -> Array:
            """Return the law's own parameters from those of the search."""
            a, alpha, b, beta, e, rho, nu = theta.T
            return np.stack(
                [
                    np.exp(a + alpha * x_mean),
                    np.exp(b + beta * y_mean),
                    np.exp(e),
                    alpha,
                    beta,
                    np.exp(rho),
                    np.exp(nu),
                ],
                axis=1,
            )

        low = np.array([least - 12, 1e-2, least - 12, 1e-2, least - 7, -3.0, -3.0])
        high = np.array([most + 3, 4.0, most + 3, 4.0, most, 8.0, 8.0])
        names = ("ln A", "α", "ln B", "β", "ln E", "ln R_D*", "ln R_N*")
        return Problem(predict, lambda: _starts(rows, y_mean), low, high, names, natural)

    def loss(self, natural: Array, rows: Rows) -> Array:
        A, B, E, alpha, beta, R_D, R_N = natural
        assert rows.tokens is not None
        unique, tokens = np.log(np.minimum(rows.D, rows.tokens)), np.log(rows.tokens)
        data = _worth(unique, tokens, R_D).log
        optimal = (np.log(alpha * A / (beta * B)) + beta * unique) / alpha
        size = _worth(np.minimum(optimal, np.log(rows.N)), np.log(rows.N), R_N).log
        return E + A * np.exp(-alpha * size) + B * np.exp(-beta * data)

    def exponent(self, natural: Array) -> Array | None:
        return natural[..., 4] / natural[..., 3]

    def floor(self, natural: Array) -> Array | None:
        return natural[..., 2]


def _starts(rows: Rows, y_mean: float) -> Array:
    """Return starts (S, P): fits of Chinchilla's law to fresh rows and to all, each with a grid of both decays."""
    fresh = rows.take(np.asarray(rows.tokens) <= 1.01 * rows.D)
    law, starts = Chinchilla(), []
    for chosen in (fresh, rows):
        if law.unsupported(chosen):
            continue
        problem = law.problem(chosen)
        theta, values = minimise(
            problem.predict,
            SQUARED_LOG,
            problem.starts,
            chosen.loss,
            np.ones(len(chosen)),
            problem.low,
            problem.high,
            iterations=60,
            tolerance=1e-4,
        )
        starts.append(_shifted(theta[int(np.argmin(values))], chosen, rows, y_mean))
    decays = np.stack([grid.ravel() for grid in np.meshgrid(np.log([1, 5, 20, 100]), np.log([1, 5, 20, 100]))], axis=1)
    return np.concatenate([np.column_stack([np.tile(start, (len(decays), 1)), decays]) for start in starts])


def _shifted(theta: Array, fitted: Rows, rows: Rows, y_mean: float) -> Array:
    """Return theta (P,) of Chinchilla's law about the means of `rows` instead of those of `fitted`."""
    a, alpha, b, beta, e = theta
    a += alpha * (np.log(fitted.N).mean() - np.log(rows.N).mean())
    b += beta * (np.log(fitted.D).mean() - y_mean)
    return np.array([a, alpha, b, beta, e])
