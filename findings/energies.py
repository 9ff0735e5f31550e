"""The energies that probes measured: read from a sweep, and as tables."""

import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

from tables import Known, table, title

from amscale.api import Sweep

UNTRAINED = "_untrained"
"""How the names of sweeps of untrained networks end."""


def energies_table(known: Known, names: Sequence[str]) -> str:
    """Return the shares of layer steps that lower E_t and E_global, untrained, at the first probe and at the end."""
    rows = []
    for name in (name for name in names if name in known):
        trained, untrained = _probes(known, name), _probes(known, name + UNTRAINED)
        for layers, width in sorted({(row["layers"], row["width"]) for row in trained}):
            own = [row for row in trained if (row["layers"], row["width"]) == (layers, width)]
            first, last = min(row["step"] for row in own), max(row["step"] for row in own)
            before = [row for row in untrained if (row["layers"], row["width"]) == (layers, width)]
            at = [before, *([row for row in own if row["step"] == step] for step in (first, last))]
            shares = [_share(row[key] for row in found) for key in ("E", "E_global") for found in at]
            losses = _between(sorted(row["loss"] for row in at[-1]), "{:.3g}")
            rows.append([title(name), f"{layers} x {width}", str(len(at[-1])), *shares, losses])
    of = ("E_t", "E_global")
    heads = (
        "family",
        "layers x width",
        "seeds",
        *(f"{energy}: {when}" for energy in of for when in _WHEN),
        "least loss",
    )
    return table(heads, rows)


_WHEN = ("untrained", "first probe", "trained")


def _probes(known: Known, name: str) -> list[dict[str, Any]]:
    return known[name]["facts"]["energies"] if name in known else []


def family_shares(known: Known, names: Sequence[str], key: str) -> list[tuple[str, str, str]]:
    """Return the range of a share over all shapes and seeds of each family, untrained and at the end of training."""
    found = []
    for name in (name for name in names if name in known):
        ends = [row[key] for row in _probes(known, name) if row["step"] == row["of"]]
        found.append((title(name), _share(row[key] for row in _probes(known, name + UNTRAINED)), _share(ends)))
    return found


def share_changes(known: Known, names: Sequence[str], key: str, untrained: bool = False) -> tuple[int, int, int]:
    """Return in how many runs a share falls, in how many it rises, and how many there are.

    From the first probe of a run to its last, or from the same network untrained to its last.
    """
    fell = rose = runs = 0
    for name in names:
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in _probes(known, name):
            groups.setdefault(_network(row), []).append(row)
        before = {_network(row): row for row in _probes(known, name + UNTRAINED)}
        for network, rows in groups.items():
            first, last = (of(rows, key=lambda row: row["step"])[key] for of in (min, max))
            if untrained:
                if network not in before:
                    continue
                first = before[network][key]
            fell, rose, runs = fell + (last < first), rose + (last > first), runs + 1
    return fell, rose, runs


def _network(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["layers"], row["width"], row["seed"]


def _share(values: Iterable[float]) -> str:
    found = sorted(100 * value for value in values)
    return _between(found, "{:.0f}") + " %" if found else "not measured"


def _between(ascending: Sequence[float], form: str) -> str:
    low, high = form.format(ascending[0]), form.format(ascending[-1])
    return low if low == high else f"{low} to {high}"


def energies_against_loss(known: Known, names: Sequence[str]) -> str:
    """Return whether the shares at the end of training go with the loss, by rank correlation over shapes."""
    found = []
    for name in (name for name in names if name in known):
        rows = [row for row in _probes(known, name) if row["step"] == row["of"]]
        for key, words in (("E", "E_t"), ("E_global", "E_global")):
            shapes: dict[tuple[int, int], list[tuple[float, float]]] = {}
            for row in rows:
                shapes.setdefault((row["layers"], row["width"]), []).append((row[key], row["loss"]))
            pairs = [tuple(fmean(values) for values in zip(*of, strict=True)) for of in shapes.values()]
            found.append([title(name), words, *rank_correlation(pairs)])
    return table(("family", "share of", "shapes", "rank correlation with the least loss (95 %)", "p"), found)


def rank_correlation(pairs: Sequence[tuple[float, ...]]) -> tuple[str, str, str]:
    """Return the number of pairs, Spearman's correlation with its interval by Fisher's z, and p by permutations."""
    from scipy.stats import permutation_test, spearmanr

    x, y = ([pair[i] for pair in pairs] for i in (0, 1))
    if len(pairs) < 5 or min(len(set(x)), len(set(y))) < 3:
        return str(len(pairs)), "too few or too alike to say", ""
    r = float(spearmanr(x, y).statistic)
    probability = permutation_test(
        (x,), lambda one: spearmanr(one, y).statistic, permutation_type="pairings", n_resamples=10_000, rng=0
    ).pvalue
    spread = 1.96 * math.sqrt(1.06 / (len(pairs) - 3))
    low, high = (math.tanh(math.atanh(max(-0.999, min(0.999, r))) + side * spread) for side in (-1, 1))
    return str(len(pairs)), f"{r:.2f} ({low:.2f} to {high:.2f})", f"{probability:.2g}"


_SHARES = ("energy/global/steps_lowering_E", "energy/global/steps_lowering_E_global")


def energies_of(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Yield for each probe of each run depth, width, step and the shares of layer steps that lower E_t and E_global."""
    results = {result.label: result for result in sweep.trial_results()}
    for row in sweep.metrics("probe").to_dict("records"):
        result = results.get(row["trial"])
        if result is not None and all(share in row for share in _SHARES):
            yield {
                "layers": result.shape.layers,
                "width": result.shape.width,
                "seed": result.seed,
                "step": row["step"],
                "of": result.steps,
                "loss": result.losses.validation_least,
                "E": row[_SHARES[0]],
                "E_global": row[_SHARES[1]],
            }
