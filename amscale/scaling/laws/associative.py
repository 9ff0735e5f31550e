"""The associative-memory law L = E₀ + log Z + 1/Z - 1 with Z = c·D/N^κ (arXiv 2405.08707, propositions 4 and 5)."""

from typing import ClassVar

import numpy as np

from amscale.scaling.laws.law import Law, Problem, Rows, derivatives, too_few
from amscale.scaling.points import Array


class Associative(Law):
    """The associative-memory law with κ free.

    The loss is least, E₀, where Z = 1, that is on N ∝ D^(1/κ): κ = ½ is the paper's N ∝ D². The paper states the loss
    per pattern and has no map to the loss per token; here it is per token, with E₀ free.
    """

    name = "associative memory"
    formula = "L = E₀ + log Z + 1/Z - 1, Z = c·D/N^κ"
    parameters: ClassVar[tuple[str, ...]] = ("E_0", "ln_c", "kappa")
    optimum = "k = 1/κ, least loss, Z = 1"
    kappa: ClassVar[float | None] = None

    def unsupported(self, rows: Rows) -> str:
        return too_few(rows, len(self.parameters), 2 if self.kappa is None else 0, 2)

    def problem(self, rows: Rows) -> Problem:
        """Return the search: logarithms of what is positive, about the rows' means."""
        x, y = np.log(rows.N), np.log(rows.D)
        x_mean, y_mean = float(x.mean()), float(y.mean())
        x, y = x - x_mean, y - y_mean
        fixed = self.kappa
        least = float(np.log(rows.loss.min()))

        def predict(theta: Array) -> tuple[Array, Array]:
            floor = np.exp(theta[:, 0, None])
            kappa = theta[:, 2, None] if fixed is None else fixed
            z = theta[:, 1, None] + y - kappa * x
            loss = floor + excess(z)
            slope = -np.expm1(-z) / loss
            columns = [floor / loss, slope] + ([-x * slope] if fixed is None else [])
            return np.log(loss), derivatives(columns)

        def natural(theta: Array) -> Array:
            kappa = theta[:, 2] if fixed is None else fixed
            columns = [np.exp(theta[:, 0]), theta[:, 1] - y_mean + kappa * x_mean]
            return np.stack(columns + ([theta[:, 2]] if fixed is None else []), axis=1)

        def begin() -> Array:
            reach = float(np.ptp(y)) + 1
            kappas = np.array([0.05, 0.15, 0.3, 0.5, 0.75, 1.0, 1.5]) if fixed is None else np.array([fixed])
            kappa, z = (grid.ravel() for grid in np.meshgrid(kappas, np.linspace(-0.7 * reach, 0.7 * reach, 9)))
            above = excess(z[:, None] + y - kappa[:, None] * x)
            floor = np.log(np.maximum(np.median(rows.loss - above, axis=1), 1e-2 * rows.loss.min()))
            return np.stack([floor, z] + ([kappa] if fixed is None else []), axis=1)

        low, high = [least - 7, -30.0, 1e-3], [float(np.log(rows.loss.max())), 30.0, 4.0]
        size = 3 if fixed is None else 2
        return Problem(
            predict, begin, np.array(low[:size]), np.array(high[:size]), ("ln E₀", "ln c", "κ")[:size], natural
        )

    def loss(self, natural: Array, rows: Rows) -> Array:
        kappa = natural[2] if self.kappa is None else self.kappa
        return natural[0] + excess(natural[1] + np.log(rows.D) - kappa * np.log(rows.N))

    def exponent(self, natural: Array) -> Array | None:
        return 1 / natural[..., 2] if self.kappa is None else None

    def floor(self, natural: Array) -> Array | None:
        return natural[..., 0]


class AssociativeHalf(Associative):
    """The associative-memory law with the paper's κ = ½."""

    name = "associative memory, κ = 0.5"
    parameters = ("E_0", "ln_c")
    optimum = ""
    kappa = 0.5


def excess(log_Z: Array) -> Array:
    """Return log Z + 1/Z - 1, at least 0; 1/Z is capped where a start of the search lies far out."""
    return log_Z + np.expm1(-np.maximum(log_Z, -50.0))
