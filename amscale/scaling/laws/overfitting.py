"""The over-fitting law L = E + (L₀ - E)·h/(1 + h), h = a/N^α + b/T^β + c·N^γ/D^δ (arXiv 2605.09189).

T counts the tokens seen and D the unique tokens. Over-fitting begins where the third term takes over: at N ∝ D^(δ/γ).
L₀ is the loss of a model that knows nothing, and is not searched: left free it came to rest below losses that were
measured. It is that of an even guess among all tokens, 50,257 where their number is not known, or the greatest loss
where that is more; between 32,000 and 160,000 tokens δ/γ moves by less than a hundredth on the runs of Muennighoff et
al. 2023.
"""

from typing import ClassVar

import numpy as np

from amscale.scaling.laws.law import Law, Problem, Rows, derivatives, log_sum, too_few, too_few_repeats
from amscale.scaling.points import Array

_EVEN_GUESS = float(np.log(50_257))


class Overfitting(Law):
    """A law of runs that repeat their data until some of them over-fit: k = δ/γ at the onset."""

    name = "over-fitting"
    formula = "L = E + (L₀ - E)·h/(1 + h), h = a/N^α + b/T^β + c·N^γ/D^δ"
    parameters = ("L_0", "E", "a", "alpha", "b", "beta", "c", "gamma", "delta")
    optimum = "k = δ/γ, onset of over-fitting"
    exponents: ClassVar = ("δ", "γ")

    def unsupported(self, rows: Rows) -> str:
        return too_few_repeats(rows, 6) or too_few(rows, 8, 3, 3)

    def problem(self, rows: Rows) -> Problem:
        """Return the search: logarithms of what is positive, about the rows' means."""
        assert rows.tokens is not None
        x, t, y = np.log(rows.N), np.log(rows.tokens), np.log(rows.D)
        x_mean, t_mean, y_mean = float(x.mean()), float(t.mean()), float(y.mean())
        x, t, y = x - x_mean, t - t_mean, y - y_mean
        least = np.log(rows.loss.min())
        top = max(rows.even_guess or _EVEN_GUESS, 1.01 * float(rows.loss.max()))

        def predict(theta: Array) -> tuple[Array, Array]:
            e, a, alpha, b, beta, c, gamma, delta = (theta[:, i, None] for i in range(8))
            g = np.log(top - np.exp(e))
            h, (u, v, w) = log_sum([a - alpha * x, b - beta * t, c + gamma * x - delta * y])
            rise = -np.logaddexp(0.0, -h)  # ln of h/(1 + h)
            total, (r, p) = log_sum([np.broadcast_to(e, h.shape), g + rise])
            q = p * np.exp(-np.logaddexp(0.0, h))  # d ln(h/(1 + h)) / d ln h = 1/(1 + h)
            columns = [r - p * np.exp(e - g), q * u, -x * q * u, q * v, -t * q * v, q * w, x * q * w, -y * q * w]
            return total, derivatives(columns)

        def natural(theta: Array) -> Array:
            """Return the law's own parameters from those of the search."""
            e, a, alpha, b, beta, c, gamma, delta = theta.T
            columns = [
                np.full(len(theta), top),
                np.exp(e),
                np.exp(a + alpha * x_mean),
                alpha,
                np.exp(b + beta * t_mean),
                beta,
                np.exp(c - gamma * x_mean + delta * y_mean),
                gamma,
                delta,
            ]
            return np.stack(columns, axis=1)

        low = np.array([least - 7, -12, 1e-2, -12, 1e-2, -16, 1e-2, 1e-2])
        high = np.array([np.log(rows.loss.max()), 5, 4.0, 5, 4.0, 5, 4.0, 4.0])
        names = ("ln E", "ln a", "α", "ln b", "β", "ln c", "γ", "δ")
        return Problem(predict, lambda: _starts(rows.loss), low, high, names, natural)

    def loss(self, natural: Array, rows: Rows) -> Array:
        L_0, E, a, alpha, b, beta, c, gamma, delta = natural
        assert rows.tokens is not None
        x, t, y = np.log(rows.N), np.log(rows.tokens), np.log(rows.D)
        h = np.exp(np.log(a) - alpha * x) + np.exp(np.log(b) - beta * t) + np.exp(np.log(c) + gamma * x - delta * y)
        return E + (L_0 - E) * h / (1 + h)

    def exponent(self, natural: Array) -> Array | None:
        return natural[..., 8] / natural[..., 7]

    def floor(self, natural: Array) -> Array | None:
        return natural[..., 1]


def _starts(loss: Array) -> Array:
    """Return starts (S, P): levels of the three terms at the middle of the rows, and exponents."""
    grid = np.meshgrid([0.5, 0.9], [-1.0, -2.5], [-1.5, -4.0], [0.15, 0.5], [0.3, 1.0], [0.3, 1.0])
    share, level, over, alpha, gamma, delta = (axis.ravel() for axis in grid)
    floor = share * float(loss.min())
    columns = [np.log(floor), level, alpha, level, alpha, over, gamma, delta]
    return np.stack(np.broadcast_arrays(*columns), axis=1)
