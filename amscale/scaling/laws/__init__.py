"""Laws of the loss in N and D, and the search that fits them."""

import numpy as np

from amscale.scaling.laws.associative import Associative
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.data_constrained import DataConstrained
from amscale.scaling.laws.kaplan import Kaplan
from amscale.scaling.laws.law import Law, Rows
from amscale.scaling.laws.power import Power
from amscale.scaling.points import Array

LAWS: tuple[Law, ...] = (
    Chinchilla(),
    Chinchilla(seen=True),
    Kaplan(),
    DataConstrained(),
    Associative(),
    Associative(0.5),
    Power("N"),
    Power("D"),
    Power("C"),
)
"""Every law that a sweep is held against."""


def predict(
    law: str, parameters: dict[str, float], N: Array, D: Array, tokens: Array | None = None, flops: Array | None = None
) -> Array:
    """The loss, nats per token, that a law of fit.json gives on a grid.

    Args:
        law, parameters: as an entry of `laws` in fit.json has them.
        N, D: parameters and unique tokens, shapes that broadcast.
        tokens: tokens seen; each unique token once where it is None.
        flops: training FLOPs C; 6 N times the tokens seen where it is None.

    Raises:
        KeyError: no law of that name, or a parameter is missing.
    """
    found = {item.name: item for item in LAWS}[law]
    N, D = np.broadcast_arrays(np.asarray(N, dtype=float), np.asarray(D, dtype=float))
    tokens = D if tokens is None else np.broadcast_to(np.asarray(tokens, dtype=float), N.shape)
    flops = 6 * N * tokens if flops is None else np.broadcast_to(np.asarray(flops, dtype=float), N.shape)
    natural = np.array([parameters[name] for name in found.parameters])
    return found.loss(natural, Rows(N, D, np.ones(N.shape), tokens, flops))


__all__ = ["LAWS", "Law", "Rows", "predict"]
