"""The coupled law L = E + (A/N^α + B/D^β)^κ: Chinchilla's at κ = 1, and Kaplan's form with a floor at κ = β."""

from typing import ClassVar

import numpy as np

from amscale.scaling.laws.law import Law, Problem, Rows, derivatives, levels, log_sum, too_few
from amscale.scaling.points import Array


class Coupled(Law):
    """A power κ of the sum of both terms: where κ < 1, a model that lacks data gains less from more parameters."""

    name = "coupled"
    formula = "L = E + (A/N^α + B/D^β)^κ"
    parameters = ("A", "B", "E", "alpha", "beta", "kappa")
    optimum = "k = β/α, parametric optimum"
    exponents: ClassVar = ("β", "α")
    tested: ClassVar = {"kappa": ("κ = 1 (the terms add up)", 1.0)}
    checks_outliers = True

    def unsupported(self, rows: Rows) -> str:
        return too_few(rows, 6, 3, 3)

    def problem(self, rows: Rows) -> Problem:
        """Return the search: logarithms of what is positive, about the rows' means.

        The terms are searched as κ times their logarithms, which read as ln loss, and the exponents as κα and κβ.
        """
        x, y = np.log(rows.N), np.log(rows.D)
        x_mean, y_mean = float(x.mean()), float(y.mean())
        x, y = x - x_mean, y - y_mean
        least, most = np.log(rows.loss.min()), np.log(rows.loss.max())

        def predict(theta: Array) -> tuple[Array, Array]:
            a, alpha, b, beta, e, ln_kappa = (theta[:, i, None] for i in range(6))
            kappa = np.exp(ln_kappa)
            size, data = (a - alpha * x) / kappa, (b - beta * y) / kappa
            inner, (u, v) = log_sum([size, data])
            total, (p, r) = log_sum([kappa * inner, np.broadcast_to(e, inner.shape)])
            pu, pv = p * u, p * v
            by_kappa = p * (kappa * inner - kappa * (u * size + v * data))
            return total, derivatives([pu, -x * pu, pv, -y * pv, r, by_kappa])

        def natural(theta: Array) -> Array:
            a, alpha, b, beta, e, ln_kappa = theta.T
            kappa = np.exp(ln_kappa)
            with np.errstate(over="ignore"):  # at a bound a scale may be beyond every number: infinite it is then
                A, B = np.exp((a + alpha * x_mean) / kappa), np.exp((b + beta * y_mean) / kappa)
            return np.stack([A, B, np.exp(e), alpha / kappa, beta / kappa, kappa], axis=1)

        low = np.array([least - 12, 1e-3, least - 12, 1e-3, least - 7, np.log(0.05)])
        high = np.array([most + 3, 4.0, most + 3, 4.0, most, np.log(5.0)])
        names = ("ln A", "α", "ln B", "β", "ln E", "ln κ")
        return Problem(predict, lambda: _starts(x, y, rows.loss), low, high, names, natural)

    def loss(self, natural: Array, rows: Rows) -> Array:
        A, B, E, alpha, beta, kappa = natural
        size, data = np.log(A) - alpha * np.log(rows.N), np.log(B) - beta * np.log(rows.D)
        return E + np.exp(kappa * np.logaddexp(size, data))

    def exponent(self, natural: Array) -> Array | None:
        return natural[..., 4] / natural[..., 3]

    def floor(self, natural: Array) -> Array | None:
        return natural[..., 2]

    def compute_optimum(self, natural: Array, flops: float | Array) -> Array:
        """Return Chinchilla's N_opt(C): the power κ leaves the place of the minimum where it is."""
        A, B, _, alpha, beta, _ = np.moveaxis(natural, -1, 0)
        log_ratio = np.log(alpha / beta) + np.log(A) - np.log(B)
        return np.exp((log_ratio + beta * np.log(flops / 6)) / (alpha + beta))


def _starts(x: Array, y: Array, loss: Array) -> Array:
    """Return starts (S, P): a grid over κ, (κα, κβ) and the floor, with A and B by linear least squares."""
    grid = np.meshgrid([0.25, 0.5, 1.0, 2.0], [0.08, 0.3, 0.8], [0.08, 0.3, 0.8], [0.3, 0.85])
    kappa, alpha, beta, share = (axis.ravel() for axis in grid)
    floor = share * loss.min()
    target = (loss - floor[:, None]) ** (1 / kappa[:, None])
    columns = np.stack([np.exp(-(alpha / kappa)[:, None] * x), np.exp(-(beta / kappa)[:, None] * y)], axis=-1)
    # Every row counts by its relative error, as in the other laws of a power of a sum.
    found = levels(columns / target[..., None], np.ones_like(target), 1e-6)
    return np.stack([kappa * found[:, 0], alpha, kappa * found[:, 1], beta, np.log(floor), np.log(kappa)], axis=1)
