"""Chinchilla's law L = E + A/N^α + B/D^β (Hoffmann et al. 2022, approach 3; Besiroglu et al. 2024)."""

from typing import ClassVar

import numpy as np

from amscale.scaling.laws.law import Law, Problem, Rows, derivatives, levels, log_sum, too_few
from amscale.scaling.points import Array


class Chinchilla(Law):
    """Chinchilla's law with D the unique tokens."""

    name = "Chinchilla"
    formula = "L = E + A/N^α + B/D^β"
    parameters: ClassVar[tuple[str, ...]] = ("A", "B", "E", "alpha", "beta")
    optimum = "k = β/α, parametric optimum"
    exponents: ClassVar[tuple[str, str] | None] = ("β", "α")
    reported_unfitted = True
    checks_outliers = True

    def _data(self, rows: Rows) -> Array:
        return rows.D

    def unsupported(self, rows: Rows) -> str:
        return too_few(Rows(rows.N, self._data(rows), rows.loss, None, rows.flops), 5, 3, 3)

    def problem(self, rows: Rows) -> Problem:
        """Return the search: logarithms of what is positive, about the rows' means."""
        x, y = np.log(rows.N), np.log(self._data(rows))
        # About their means, so that levels and slopes are not correlated.
        x_mean, y_mean = float(x.mean()), float(y.mean())
        x, y = x - x_mean, y - y_mean
        least, most = np.log(rows.loss.min()), np.log(rows.loss.max())

        def predict(theta: Array) -> tuple[Array, Array]:
            a, alpha, b, beta, e = (theta[:, i, None] for i in range(5))
            total, (p, q, r) = log_sum([a - alpha * x, b - beta * y, np.broadcast_to(e, (len(theta), len(x)))])
            return total, derivatives([p, -x * p, q, -y * q, r])

        def natural(theta: Array) -> Array:
            a, alpha, b, beta, e = theta.T
            return np.stack([np.exp(a + alpha * x_mean), np.exp(b + beta * y_mean), np.exp(e), alpha, beta], axis=1)

        return Problem(
            predict,
            lambda: _starts(x, y, rows.loss),
            np.array([least - 12, 1e-3, least - 12, 1e-3, least - 7]),
            np.array([most + 3, 4.0, most + 3, 4.0, most]),
            ("ln A", "α", "ln B", "β", "ln E"),
            natural,
        )

    def loss(self, natural: Array, rows: Rows) -> Array:
        A, B, E, alpha, beta = natural
        return E + A * rows.N**-alpha + B * self._data(rows) ** -beta

    def exponent(self, natural: Array) -> Array | None:
        return natural[..., 4] / natural[..., 3]

    def floor(self, natural: Array) -> Array | None:
        return natural[..., 2]

    def compute_optimum(self, natural: Array, flops: float | Array) -> Array:
        """N_opt(C) = G·(C/6)^(β/(α+β)) with G = (αA/(βB))^(1/(α+β)), for C = 6ND (Hoffmann et al. 2022, equation 4)."""
        A, B, _, alpha, beta = np.moveaxis(natural, -1, 0)
        return (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (flops / 6) ** (beta / (alpha + beta))


class ChinchillaSeen(Chinchilla):
    """Chinchilla's law with D the tokens seen, each repetition counted."""

    name = "Chinchilla, D = tokens seen"
    reported_unfitted = False

    def _data(self, rows: Rows) -> Array:
        return rows.D if rows.tokens is None else rows.tokens

    def unsupported(self, rows: Rows) -> str:
        if rows.tokens is None:
            return "the tokens seen are not known"
        if np.allclose(rows.tokens, rows.D, rtol=1e-3):
            return "the tokens seen are the unique tokens: it is Chinchilla's law on D"
        return super().unsupported(rows)


class OneExponent(Chinchilla):
    """Chinchilla's law with one exponent, α = β: what few runs determine, and recipes extrapolate (k is 1 by form)."""

    name = "one exponent"
    formula = "L = E + A/N^α + B/D^α"
    parameters = ("A", "B", "E", "alpha")
    optimum = ""
    exponents: ClassVar = None
    reported_unfitted = False
    checks_outliers = False

    def unsupported(self, rows: Rows) -> str:
        return too_few(rows, 4, 2, 2)

    def problem(self, rows: Rows) -> Problem:
        """Return Chinchilla's search with β tied to α."""
        free = super().problem(rows)
        spread = np.array([0, 1, 2, 1, 3])  # where a, α, b, β and e of Chinchilla's search are in this one

        def predict(theta: Array) -> tuple[Array, Array]:
            total, columns = free.predict(theta[:, spread])
            a, alpha, b, beta, e = np.moveaxis(columns, -1, 0)
            return total, derivatives([a, alpha + beta, b, e])

        def natural(theta: Array) -> Array:
            return free.natural(theta[:, spread])[:, :4]

        def begin() -> Array:
            starts = free.starts
            return starts[np.isclose(starts[:, 1], starts[:, 3])][:, [0, 1, 2, 4]]

        kept = [0, 1, 2, 4]
        return Problem(predict, begin, free.low[kept], free.high[kept], ("ln A", "α", "ln B", "ln E"), natural)

    def loss(self, natural: Array, rows: Rows) -> Array:
        return super().loss(np.append(natural, natural[3]), rows)

    def exponent(self, natural: Array) -> Array | None:
        return None

    def compute_optimum(self, natural: Array, flops: float | Array) -> Array:
        return super().compute_optimum(np.concatenate([natural, natural[..., 3:]], axis=-1), flops)


def _starts(x: Array, y: Array, loss: Array) -> Array:
    """Return starts (S, P): a grid over (α, β), with A, B and E by linear least squares, kept positive."""
    alpha, beta = (grid.ravel() for grid in np.meshgrid(np.geomspace(0.05, 1.6, 7), np.geomspace(0.05, 1.6, 7)))
    columns = [np.exp(-alpha[:, None] * x), np.exp(-beta[:, None] * y), np.ones((len(alpha), len(x)))]
    found = levels(np.stack(columns, axis=-1), loss, 1e-3 * float(loss.min()))
    return np.stack([found[:, 0], alpha, found[:, 1], beta, found[:, 2]], axis=1)
