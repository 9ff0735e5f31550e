"""The energies that probes measured: read from a sweep, and as tables."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tables import Known, table

from amscale.api import Sweep


def energies_table(known: Known, names: Sequence[str]) -> str:
    """Return the shares of layer steps that lower E_t and E_global, by family, depth, width and part of training."""
    rows = []
    for name in (name for name in names if name in known):
        found = known[name]["facts"]["energies"]
        for layers, width in sorted({(row["layers"], row["width"]) for row in found}):
            own = [row for row in found if (row["layers"], row["width"]) == (layers, width)]
            steps = sorted({row["step"] for row in own})
            for step in dict.fromkeys((steps[0], steps[-1])):
                at = [row for row in own if row["step"] == step]
                shares = [_share(row[key] for row in at) for key in ("E", "E_global")]
                of_the_end = _between(sorted(row["loss"] for row in at), "{:.3g}") if step == steps[-1] else ""
                rows.append(
                    [_family(known, name), f"{layers} x {width}", f"{step:,}", str(len(at)), *shares, of_the_end]
                )
    heads = ("family", "layers x width", "step", "seeds", "steps that lower E_t", "that lower E_global", "least loss")
    return table(heads, rows)


def _family(known: Known, name: str) -> str:
    """Return the family of a sweep; of one of the library's, which all are `hub`, the architecture in its name."""
    families = ", ".join(known[name]["facts"]["family"])
    return name.removeprefix("energies_") if families == "hub" else families


def _share(values: Iterable[float]) -> str:
    return _between(sorted(100 * value for value in values), "{:.0f}") + " %"


def _between(ascending: Sequence[float], form: str) -> str:
    low, high = form.format(ascending[0]), form.format(ascending[-1])
    return low if low == high else f"{low} to {high}"


def energies_against_loss(known: Known, names: Sequence[str]) -> str:
    """Return whether the shares at the end of training go with the loss, by rank correlation."""
    lines = []
    for name in (name for name in names if name in known):
        rows = [row for row in known[name]["facts"]["energies"] if row["step"] == row["of"]]
        for key, words in (("E", "E_t"), ("E_global", "E_global")):
            pairs = [(row[key], row["loss"]) for row in rows]
            lines.append(f"* {name}, {words}: {rank_correlation(pairs)}\n")
    return "".join(lines)


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> str:
    """Return Spearman's correlation with its permutation test, in words."""
    from scipy.stats import spearmanr

    if len(pairs) < 5 or min(len({x for x, _ in pairs}), len({y for _, y in pairs})) < 3:
        return f"{len(pairs)} runs, too few or too alike to say."
    found = spearmanr(*zip(*pairs, strict=True))
    measured = f"rank correlation {found.statistic:.2f} over {len(pairs)} runs (p = {found.pvalue:.2g})"
    if found.pvalue >= 0.05:
        return f"{measured}: the share does not tell anything of the loss."
    return f"{measured}: runs of a larger share have the {'higher' if found.statistic > 0 else 'lower'} loss."


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
