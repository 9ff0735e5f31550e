"""A power law with a floor in one variable: L = E + A/x^γ, x being N, D or the compute C (Kaplan et al. 2020)."""

from dataclasses import dataclass

import numpy as np

from amscale.scaling.laws.law import Problem, Rows, levels, log_sum, too_few
from amscale.scaling.points import Array


@dataclass(frozen=True)
class Power:
    """`variable` is N, D or C. Meant for rows where the other variables do not limit the loss."""

    variable: str
    parameters: tuple[str, ...] = ("A", "E", "gamma")
    optimum: str = ""

    @property
    def name(self) -> str:
        return f"power law in {self.variable}"

    @property
    def formula(self) -> str:
        return f"L = E + A/{self.variable}^γ"

    def _values(self, rows: Rows) -> Array:
        return {"N": rows.N, "D": rows.D, "C": rows.flops}[self.variable]

    def unsupported(self, rows: Rows) -> str:
        distinct = len(np.unique(self._values(rows)))
        few = f"{distinct} different {self.variable}; an exponent with a floor needs at least 3" if distinct < 3 else ""
        return few or too_few(rows, 3)

    def problem(self, rows: Rows) -> Problem:
        """The search in logarithms of what is positive, about the rows' means; see `Law.problem`."""
        x = np.log(self._values(rows))
        mean = float(x.mean())
        x = x - mean
        least, most = np.log(rows.loss.min()), np.log(rows.loss.max())

        def predict(theta: Array) -> tuple[Array, Array]:
            a, gamma, e = (theta[:, i, None] for i in range(3))
            total, (p, q) = log_sum([a - gamma * x, np.broadcast_to(e, (len(theta), len(x)))])
            return total, np.stack([p, -x * p, q], axis=-1)

        def natural(theta: Array) -> Array:
            a, gamma, e = theta.T
            return np.stack([np.exp(a + gamma * mean), np.exp(e), gamma], axis=1)

        def begin() -> Array:
            gamma = np.geomspace(0.02, 1.6, 15)
            columns = np.stack([np.exp(-gamma[:, None] * x), np.ones((len(gamma), len(x)))], axis=-1)
            found = levels(columns, rows.loss, 1e-3 * float(rows.loss.min()))
            return np.stack([found[:, 0], gamma, found[:, 1]], axis=1)

        low, high = np.array([least - 12, 1e-3, least - 7]), np.array([most + 3, 4.0, most])
        return Problem(predict, begin, low, high, ("ln A", "γ", "ln E"), natural)

    def loss(self, natural: Array, rows: Rows) -> Array:
        A, E, gamma = natural
        return E + A * self._values(rows) ** -gamma

    def exponent(self, natural: Array) -> Array | None:
        return None

    def floor(self, natural: Array) -> Array | None:
        return natural[..., 1]
