"""What each section of docs/results.md found: the sentences that stand first in it, by rules from the estimates."""

from collections.abc import Sequence

from capacities import (
    largest_sentence,
    longer_gains,
    most_bits,
    slope_by_count,
    slope_of_most_bits,
    slope_without_largest,
)
from energies import family_shares, share_changes
from tables import SMOOTHED, Known, bullets, estimate, interval_of, span, verdict

from amscale.scaling.answer import names_of
from amscale.scaling.answer_on_floor import NEAR
from amscale.scaling.estimate import ends_of
from amscale.settings import format_size

RECTANGLE = "rectangle_english"
TUNED = "every cell tuned"
PARTS = (TUNED, *(f"{TUNED}, D from {D}k" for D in (60, 120, 240)))
LONGER_GRAMMAR = "floor_grammar_long"
SHARED_N = 30_000
"""Above the largest N that was run at every D of the rectangle."""


def choices_answer(known: Known) -> str:
    """Return what tuning found, and whether the way of choosing learning rate and batch moves k."""
    cells = known[RECTANGLE]["fits"][TUNED]["tuning"]["cells"]
    inside = sum("train.learning_rate" not in cell["edges"] for cell in cells)
    least = sum("train.batch_tokens" in cell["at_least"] for cell in cells)
    lines = [
        f"One pass over English: the best learning rate is inside what was tried in {inside} of {len(cells)} cells, "
        f"and the best batch is one sequence, the least there can be, in {least}."
    ]
    labels = {name: known[name]["fits"] for name in (RECTANGLE, "rectangle_one_rate") if name in known}
    treated = [
        estimate(known, name, "k_kaplan", label) for name, fits in labels.items() for label in fits if label != TUNED
    ]
    found = [item for item in treated if item is not None and item["value"] is not None]
    if len(found) > 1:
        values, ends = [item["value"] for item in found], [ends_of(item["interval"]) for item in found]
        apart = any(not low <= value <= high for value in values for low, high in ends)
        shown = (
            "an interval leaves another's value out"
            if apart
            else "every interval holds every value: no effect is shown"
        )
        lines.append(
            f"Over the ways in which rate and batch were chosen, k by Kaplan's law is {min(values):.3g} to "
            f"{max(values):.3g}, and {shown}."
        )
    return bullets(lines)


def spread_of_losses(known: Known) -> str:
    """Return how far the best losses of one D differ over N: by this a part of the rectangle was chosen."""
    cells = [cell for cell in known[RECTANGLE]["facts"]["losses"] if cell["N"] < SHARED_N]
    by_D: dict[float, list[float]] = {}
    for cell in cells:
        by_D.setdefault(cell["D"], []).append(cell["loss"])
    rows = [
        f"{100 * (max(of) / min(of) - 1):.2g} % at {format_size(D)}" for D, of in sorted(by_D.items()) if len(of) > 1
    ]
    return f"over N = {span([cell['N'] for cell in cells])} the best losses of one D differ by {', '.join(rows)}"


def capacity_answer(known: Known) -> str:
    """Return what the memorised bits say of the slope, and how far from rest the runs were."""
    lines = []
    if without := slope_without_largest(known, "capacity"):
        lines.append(f"Without the largest N the slope is {without}.")
    if gains := longer_gains(known, "capacity_long", "capacity"):
        listed = ", ".join(f"{100 * gain:.0f}" for _, gain in gains)
        lines.append(
            f"No N had come to rest: four times the steps add {listed} % to the most bits seen, from the smallest N to "
            f"the largest, the most at N = {format_size(max(gains, key=lambda pair: pair[1])[0])}. C is a lower bound."
        )
    if slope := slope_of_most_bits(known, "capacity_longer"):
        total = slope_by_count(known, "capacity_longer", "total")
        lines.append(
            f"With 256,000 steps at every N, at one D and one seed each, it is {slope}; by all parameters {total}."
        )
    if largest := largest_sentence(known):
        lines.append(largest)
    if against := _against_a_half(most_bits(known, "capacity_longer")):
        lines.append(against)
    return bullets(lines)


def _against_a_half(most: dict[float, float]) -> str:
    """Return what a slope of ½ would ask of the smallest N, from what the largest N holds at the least."""
    if len(most) < 2:
        return ""
    (small, held), (large, bits) = min(most.items()), max(most.items())
    asked = bits * (small / large) ** 0.5
    return (
        f"Against ½ no rest is needed: N = {format_size(large)} holds at least {format_size(bits)} bits. By a slope of "
        f"½ N = {format_size(small)} would hold {format_size(asked)}, {asked / small:.0f} a parameter, "
        f"{asked / held:.1f} times what it holds after 256,000 steps."
    )


def floor_answer(known: Known) -> str:
    """Return at how many texts on each side of 1 validation loss rests at the entropy, and which runs are far off."""
    return floor_summary(known) + _far_from_entropy(known) + _after_more_steps(known)


def floor_summary(known: Known) -> str:
    """Return at how many texts on each side of 1 validation loss rests at the entropy."""
    lines = []
    for name, what in (("floor_random", "random tokens, with and without z-loss"), ("floor_grammar", "grammars")):
        rows = list(_unsmoothed(known, name))
        sides = []
        for side, of in _sides(rows).items():
            near = sum(abs(value / entropy - 1) < NEAR for value, entropy in of)
            entropies = names_of(sorted({round(entropy, 3) for _, entropy in of}))
            sides.append(f"in {near} of {len(of)} cases of an entropy {side} ({entropies})")
        if rows:
            within = f"validation loss rests within {100 * NEAR:.0f} % of the entropy"
            lines.append(f"Of {what}, {within} {', '.join(sides)}.")
    if (longer := known.get(LONGER_GRAMMAR)) and lines and not longer["facts"]["unsettled"]:
        (entropy,) = longer["facts"]["entropy"]
        lines[-1] += f" With three times the steps it does at {entropy:.3g}, too."
    return bullets(lines)


def _far_from_entropy(known: Known) -> str:
    """Return the runs that end farther from the entropy of their text."""
    lines = []
    far = [run for name in ("floor_random", "floor_grammar") for run in known[name]["facts"]["unsettled"]]
    for entropy in sorted({run["entropy"] for run in far}):
        runs = [run for run in far if run["entropy"] == entropy]
        losses = "; ".join(f"seed {r['seed']}: validation {r['validation']:.3g}, train {r['train']:.3g}" for r in runs)
        lines.append(f"Farther from an entropy of {entropy:.3g} is {losses}: a run that has not learnt its text.")
    return bullets(lines)


def _after_more_steps(known: Known) -> str:
    """Return where the text that a run had not learnt comes to rest with more steps; nothing where none was trained."""
    lines = []
    for value, entropy in _unsmoothed(known, LONGER_GRAMMAR):
        facts, before = known[LONGER_GRAMMAR]["facts"], known["floor_grammar"]["facts"]
        seeds, far = len(facts["seeds"]), len(facts["unsettled"])
        lines.append(
            f"With {facts['steps'][1]:,} steps instead of {before['steps'][1]:,} validation loss of that text is "
            f"{value:.4g} in the mean of {seeds} seeds, {100 * (value / entropy - 1):+.2g} % from its entropy, and in "
            f"{seeds - far} of them within {100 * NEAR:.0f} % of it."
        )
    return bullets(lines)


def _sides(rows: Sequence[tuple[float, float]]) -> dict[str, list[tuple[float, float]]]:
    """Return the rows by their entropy: below 1, too near to it to tell the two apart, and above."""
    sides = {
        "below 1": [row for row in rows if row[1] <= 1 - NEAR],
        "too near to 1 to tell the two apart": [row for row in rows if abs(row[1] - 1) < NEAR],
        "above 1": [row for row in rows if row[1] >= 1 + NEAR],
    }
    return {side: of for side, of in sides.items() if of}


def _unsmoothed(known: Known, name: str) -> list[tuple[float, float]]:
    """Return the least validation loss and the entropy of each text and treatment whose losses are not smoothed."""
    fits = [fit for label, fit in known.get(name, {}).get("fits", {}).items() if SMOOTHED not in label]
    items = [item for fit in fits for item in fit["estimates"] if item["id"].startswith("floor_validation")]
    return [(item["value"], item["details"]["references"]["entropy"]) for item in items if item["value"] is not None]


def energies_answer(known: Known, names: Sequence[str]) -> str:
    """Return the shares of each family before and after training, and in how many runs they fall."""
    lines = []
    for key, words in (("E", "their layer's energy, E_t"), ("E_global", "the energy of all layers, E_global")):
        shares = family_shares(known, names, key)
        told = "; ".join(f"{family} {before} untrained, {after} trained" for family, before, after in shares)
        fell, rose, runs = share_changes(known, names, key, untrained=True)
        later = share_changes(known, names, key)
        lines.append(
            f"Layer steps that lower {words}: {told}. From the untrained network to the trained the share rises in "
            f"{rose} of {runs} runs and falls in {fell}; from the first probe of training to the last it rises in "
            f"{later[1]} of {later[2]} and falls in {later[0]}."
        )
    return bullets(lines)


def part_answer(known: Known) -> str:
    """Return k by Kaplan's law on the whole rectangle of English and on its parts."""
    found = {label: estimate(known, RECTANGLE, "k_kaplan", label) for label in PARTS}
    told = [
        f"{label.removeprefix(TUNED + ', ') if label != TUNED else 'all cells'} {verdict(item)}"
        for label, item in found.items()
    ]
    totals = [estimate(known, RECTANGLE, "k_kaplan", f"{label}, total") for label in PARTS]
    by_total = [interval_of(item["value"], item["interval"]) for item in totals if item and item["value"] is not None]
    also = f" With N of all parameters {' and '.join(by_total)}." if by_total else ""
    return f"k by Kaplan's law: {'; '.join(told)}.{also} The parts were chosen after their losses had been seen."


def optimum_answer(known: Known) -> str:
    """Return k by Kaplan's law on the whole rectangle and on its parts, κ, and how the forecasts did."""
    lines = [part_answer(known)]
    found = [estimate(known, RECTANGLE, "k_kaplan", label) for label in PARTS]
    values = [item["value"] for item in found if item is not None and item["value"] is not None]
    if len(values) > 1 and max(values) > 1.2 * min(values):
        lines.append(
            f"The part decides between {min(values):.3g} and {max(values):.3g}: these runs do not tell which k holds."
        )
    kappa = estimate(known, RECTANGLE, "kappa_coupled", PARTS[2])
    if kappa is not None and kappa["value"] is not None:
        low, high = ends_of(kappa["interval"])
        holds = "holds" if low <= 1 <= high else "leaves out"
        shown = interval_of(kappa["value"], kappa["interval"])
        lines.append(f"Chinchilla's law is the coupled one at κ = 1: on D from 120k κ is {shown}, which {holds} 1.")
    scores = known[RECTANGLE]["fits"][TUNED]["forecasts"]
    cells = [cell for score in scores for cell in score["cells"] if cell["measured"]]
    if cells:
        errors = [100 * (cell["loss"] / cell["measured"] - 1) for cell in cells]
        side = "all too high" if min(errors) > 0 else "all too low" if max(errors) < 0 else "on both sides"
        widths = names_of(round(cell["interval"][1] / cell["interval"][0], 2) for cell in cells)
        inside = sum(cell["inside"] for cell in cells)
        lines.append(
            f"Forecasts are off by {names_of(round(error, 1) for error in errors)} %, {side}; {inside} of {len(cells)} "
            f"are inside their intervals, whose upper ends are {widths} times the lower: a wide one is hard to miss."
        )
    return bullets(lines)
