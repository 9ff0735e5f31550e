"""A power law with a floor in one variable: L = E + A/x^γ, x being N, D or the compute C (Kaplan et al. 2020)."""

from typing import ClassVar

import numpy as np

from amscale.scaling.laws.law import Law, Problem, Rows, derivatives, levels, log_sum, too_few
from amscale.scaling.points import Array


class Power(Law):
    """A power law in one variable, for rows where the others do not limit the loss."""

    variable: ClassVar[str]
    parameters = ("A", "E", "gamma")

    def _values(self, rows: Rows) -> Array:
        return {"N": rows.N, "D": rows.D, "C": rows.flops}[self.variable]

    def unsupported(self, rows: Rows) -> str:
        distinct = len(np.unique(self._values(rows)))
        few = f"{distinct} different {self.variable}; an exponent with a floor needs at least 3" if distinct < 3 else ""
        return few or too_few(rows, 3)

    def problem(self, rows: Rows) -> Problem:
        """Return the search: logarithms of what is positive, about the rows' means."""
        x = np.log(self._values(rows))
        mean = float(x.mean())
        x = x - mean
        least, most = np.log(rows.loss.min()), np.log(rows.loss.max())

        def predict(theta: Array) -> tuple[Array, Array]:
            a, gamma, e = (theta[:, i, None] for i in range(3))
            total, (p, q) = log_sum([a - gamma * x, np.broadcast_to(e, (len(theta), len(x)))])
            return total, derivatives([p, -x * p, q])

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

    def floor(self, natural: Array) -> Array | None:
        return natural[..., 1]


class PowerN(Power):
    """A power law in N, the parameters."""

    variable = "N"
    name = "power law in N"
    formula = "L = E + A/N^γ"


class PowerD(Power):
    """A power law in D, the unique tokens."""

    variable = "D"
    name = "power law in D"
    formula = "L = E + A/D^γ"


class PowerC(Power):
    """A power law in C, the training FLOPs."""

    variable = "C"
    name = "power law in C"
    formula = "L = E + A/C^γ"
