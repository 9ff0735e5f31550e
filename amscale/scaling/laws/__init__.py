"""Laws of the loss in N and D: those that amscale ships and those of installed packages, and the fits of them."""

import re
from collections.abc import Mapping

import numpy as np

from amscale.errors import InputError
from amscale.registry import Registry
from amscale.scaling.laws.law import Law, Problem, Rows, levels, log_sum, too_few
from amscale.scaling.points import Array

_LAWS = "amscale.scaling.laws"
LAWS: Registry[type[Law]] = Registry(
    "amscale.laws",
    {
        "chinchilla": f"{_LAWS}.chinchilla:Chinchilla",
        "chinchilla_seen": f"{_LAWS}.chinchilla:ChinchillaSeen",
        "one_exponent": f"{_LAWS}.chinchilla:OneExponent",
        "coupled": f"{_LAWS}.coupled:Coupled",
        "kaplan": f"{_LAWS}.kaplan:Kaplan",
        "data_constrained": f"{_LAWS}.data_constrained:DataConstrained",
        "overfitting": f"{_LAWS}.overfitting:Overfitting",
        "associative": f"{_LAWS}.associative:Associative",
        "associative_half": f"{_LAWS}.associative:AssociativeHalf",
        "power_n": f"{_LAWS}.power:PowerN",
        "power_d": f"{_LAWS}.power:PowerD",
        "power_c": f"{_LAWS}.power:PowerC",
    },
)
"""Every law that points are fitted to, by its id."""


def all_laws() -> dict[str, Law]:
    """Return an instance of every law by its id.

    Raises:
        InputError: an entry point is not a law, cannot be made without arguments, or has an id of other characters.
    """
    found: dict[str, Law] = {}
    for id, law in LAWS.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", id):
            raise InputError(f"amscale.laws: {id!r} is not an id; use lower-case letters, digits and _, such as my_law")
        if not (isinstance(law, type) and issubclass(law, Law)):
            raise InputError(f"amscale.laws: {id!r} is {law!r}; it must be a subclass of amscale.scaling.laws.Law")
        try:
            found[id] = law()
        except TypeError as error:
            raise InputError(f"amscale.laws: {id!r} cannot be made without arguments: {error}") from None
    return found


def predict(
    law: str,
    parameters: Mapping[str, float],
    N: Array,
    D: Array,
    tokens: Array | None = None,
    flops: Array | None = None,
) -> Array:
    """Return the loss, nats per token, that a law gives on a grid.

    Args:
        law: id or name of the law, as an entry of `laws` in fit.json has them.
        parameters: its parameters, as that entry has them.
        N, D: parameters and unique tokens, shapes that broadcast.
        tokens: tokens seen; each unique token once where it is None.
        flops: training FLOPs C; 6 N times the tokens seen where it is None.

    Raises:
        KeyError: no law of that id or name, or a parameter is missing.
    """
    laws = all_laws()
    found = laws[law] if law in laws else {item.name: item for item in laws.values()}[law]
    N, D = np.broadcast_arrays(np.asarray(N, dtype=float), np.asarray(D, dtype=float))
    tokens = D if tokens is None else np.broadcast_to(np.asarray(tokens, dtype=float), N.shape)
    flops = 6 * N * tokens if flops is None else np.broadcast_to(np.asarray(flops, dtype=float), N.shape)
    natural = np.array([parameters[name] for name in found.parameters])
    return found.loss(natural, Rows(N, D, np.ones(N.shape), tokens, flops))


__all__ = ["LAWS", "Law", "Problem", "Rows", "all_laws", "levels", "log_sum", "predict", "too_few"]
