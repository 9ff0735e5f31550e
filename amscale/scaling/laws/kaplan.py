"""Kaplan's joint law L = ((N_c/N)^(α_N/α_D) + D_c/D)^α_D (Kaplan et al. 2020, equation 1.5)."""

from typing import ClassVar

import numpy as np

from amscale.scaling.laws.law import Law, Problem, Rows, derivatives, levels, log_sum, too_few
from amscale.scaling.points import Array


class Kaplan(Law):
    """Kaplan's joint law. It has no floor: the loss falls to 0 as N and D grow."""

    name = "Kaplan"
    formula = "L = ((N_c/N)^(α_N/α_D) + D_c/D)^α_D"
    parameters = ("N_c", "D_c", "alpha_N", "alpha_D")
    optimum = "k = α_D/α_N, parametric optimum"
    exponents: ClassVar = ("α_D", "α_N")

    def unsupported(self, rows: Rows) -> str:
        return too_few(rows, 4, 2, 2)

    def problem(self, rows: Rows) -> Problem:
        """Return the search: logarithms of what is positive, about the rows' means."""
        x, y = np.log(rows.N), np.log(rows.D)
        x_mean, y_mean = float(x.mean()), float(y.mean())
        x, y = x - x_mean, y - y_mean
        middle = float(np.log(rows.loss).mean())

        # a and b are α_D times the logs of the two terms at the middle of the rows, so that they read as ln loss.
        def predict(theta: Array) -> tuple[Array, Array]:
            a, p, b, q = (theta[:, i, None] for i in range(4))
            size, data = (a - p * x) / q, b / q - y
            total, (u, v) = log_sum([size, data])
            by_q = total - u * size - v * b / q
            return q * total, derivatives([u, -x * u, v, by_q])

        def natural(theta: Array) -> Array:
            a, p, b, q = theta.T
            with np.errstate(over="ignore"):  # at a bound a scale may be beyond every number: infinite it is then
                return np.stack([np.exp(a / p + x_mean), np.exp(b / q + y_mean), p, q], axis=1)

        def begin() -> Array:
            p, q = (grid.ravel() for grid in np.meshgrid(np.geomspace(0.02, 0.8, 7), np.geomspace(0.02, 0.8, 7)))
            columns = np.stack([np.exp(-(p / q)[:, None] * x), np.broadcast_to(np.exp(-y), (len(p), len(y)))], axis=-1)
            target = np.exp((np.log(rows.loss) - middle) / q[:, None])
            # Rows of high loss would dominate a sum of squares of L^(1/α_D): every row counts by its relative error.
            found = levels(columns / target[..., None], np.ones_like(target), 1e-6)
            return np.stack([q * found[:, 0] + middle, p, q * found[:, 1] + middle, q], axis=1)

        low = np.array([middle - 12, 1e-3, middle - 12, 1e-3])
        high = np.array([middle + 3, 4.0, middle + 3, 4.0])
        return Problem(predict, begin, low, high, ("ln N_c", "α_N", "ln D_c", "α_D"), natural)

    def loss(self, natural: Array, rows: Rows) -> Array:
        N_c, D_c, alpha_N, alpha_D = natural
        with np.errstate(divide="ignore"):  # a scale that rounds to 0 has no part in the sum
            size, data = alpha_N / alpha_D * (np.log(N_c) - np.log(rows.N)), np.log(D_c) - np.log(rows.D)
        return np.exp(alpha_D * np.logaddexp(size, data))

    def exponent(self, natural: Array) -> Array | None:
        return natural[..., 3] / natural[..., 2]
