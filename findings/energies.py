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
                family = ", ".join(known[name]["facts"]["family"]) + name.removeprefix("energies").replace("_", " ")
                rows.append([family, f"{layers} x {width}", f"{step:,}", str(len(at)), *shares])
    heads = ("family", "layers x width", "step", "seeds", "steps that lower E_t", "that lower E_global")
    return table(heads, rows)


def _share(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{100 * found[0]:.0f} %" if len(found) == 1 else f"{100 * found[0]:.0f} to {100 * found[-1]:.0f} %"


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
    told = "goes with" if found.pvalue < 0.05 else "does not tell anything of"
    measured = f"rank correlation {found.statistic:.2f} over {len(pairs)} runs (p = {found.pvalue:.2g})"
    return f"{measured}: the share {told} the loss."


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
