"""How many bits N parameters memorise, as sentences and tables of the results page."""

import math
from collections.abc import Sequence
from typing import Any

from tables import HYPOTHESES, NOT_RUN, Known, brief, decided, estimate, number, span, table, title

from amscale.scaling.estimate import ends_of
from amscale.scaling.power_law import fit_loglog
from amscale.settings import format_size


def k_of_slope(slope: dict[str, Any]) -> tuple[float, tuple[float, float]] | None:
    """Return k = 1/slope of ln C on ln N with its interval; None where the slope's holds 0 or is not known."""
    if slope["value"] is None or slope["interval"] is None:
        return None
    low, high = ends_of(slope["interval"])
    return (1 / slope["value"], (1 / high, 1 / low)) if low > 0 else None


def _of_k(k: float, interval: tuple[float, float]) -> str:
    return f"{k:.3g} ({interval[0]:.3g} to {interval[1]:.3g})"


def _best(item: dict[str, Any]) -> int:
    """Return at which of the D of an N the most bits were memorised."""
    return int(item["memorised"].index(max(item["memorised"])))


def capacity_table(known: Known, name: str) -> str:
    """Return what each N memorises at each D, and C."""
    bits = estimate(known, name, "capacity_bits_per_parameter")
    rows = []
    for item in bits["details"].get("capacities", ()) if bits else ():
        cells = zip(item["D"], item["memorised"], item.get("late") or [None] * len(item["D"]), strict=True)
        texts = [f"{format_size(D)}: {m:.4g}" + ("" if s is None else f" ({100 * s:.1f} %)") for D, m, s in cells]
        value = f"{item['bits']:.4g}, {item['bits'] / item['N']:.3g}" if item["bits"] else item["reason"]
        rows.append([format_size(item["N"]), "; ".join(texts), value])
    return table(("N", "bits memorised at D (share of them in the last fifth of the steps)", "C in bits, C/N"), rows)


def longer_sentence(known: Known, name: str, beside: str) -> str:
    """Return what runs of more steps memorise beside the same cells of fewer, and the slope of the most bits seen."""
    one, before = estimate(known, name, "capacity_bits_per_parameter"), _memorised(known, beside)
    if one is None or not before:
        return NOT_RUN
    gains = []
    for item in one["details"]["capacities"]:
        best = _best(item)
        bits, late = item["memorised"][best], (item.get("late") or [None] * (best + 1))[best]
        text = f"N = {format_size(item['N'])} {bits / item['N']:.3g} a parameter"
        if earlier := before.get(item["N"], {}).get(item["D"][best]):
            text += f", {round(100 * (bits / earlier - 1)):+d} %".replace("+0", "0")
        gains.append(text + ("" if late is None else f", {100 * late:.1f} % in the last fifth"))
    slope = slope_of_most_bits(known, name)
    taken = f" Taken as C, their slope on ln N is {slope}." if slope else ""
    return f"Most bits, beside the same D in fewer steps: {'; '.join(gains)}.{taken}"


def longer_gains(known: Known, name: str, beside: str) -> list[tuple[float, float]]:
    """Return by which share the most bits of each N grow with more steps, whatever their D."""
    most, before = most_bits(known, name), most_bits(known, beside)
    return [(N, bits / before[N] - 1) for N, bits in sorted(most.items()) if N in before]


def _memorised(known: Known, name: str) -> dict[float, dict[float, float]]:
    """Return the memorised bits at each D of each N."""
    bits = estimate(known, name, "capacity_bits_per_parameter")
    found = bits["details"].get("capacities", ()) if bits else ()
    return {item["N"]: dict(zip(item["D"], item["memorised"], strict=True)) for item in found}


def slope_of_most_bits(known: Known, name: str) -> str:
    """Return the slope on ln N of the most bits that runs of each N memorised, and the k that follows, by fewer D than
    C needs; empty with fewer than three N."""
    most = most_bits(known, name)
    return _slope([*most], [*most.values()])


def most_bits(known: Known, name: str) -> dict[float, float]:
    """Return the most bits that a run of each N memorised, at whatever D."""
    return {N: max(of.values()) for N, of in _memorised(known, name).items()}


def _labels(known: Known, name: str) -> list[str]:
    """Return the label of each fit of a sweep, whether everything or some estimates of it are kept."""
    return [label for kept in ("fits", "also") for label in known.get(name, {}).get(kept, ())]


def largest_sentence(known: Known, name: str = "capacity_largest", longer: str = "capacity_largest_long") -> str:
    """Return what the largest N memorises by the rule's rate and at the best of others, and with more steps."""
    after, rates = most_bits(known, longer), known.get(name, {}).get("facts", {}).get("learning_rate", ())
    found = []
    for label in _labels(known, name):
        item = estimate(known, name, "capacity_bits_per_parameter", label)
        runs = item["details"].get("capacities", ()) if item else ()
        found += [f"{max(run['memorised']) / run['N']:.3g} at {label}{_rate(run, rates)}" for run in runs]
    if not found or not after:
        return ""
    ((N, bits),), (few, more) = after.items(), (known[each]["facts"] for each in (name, longer))
    whole = more["D"][0] * more["entropy"][0] / math.log(2) / N
    return (
        f"At the largest N, {format_size(N)}, rate and batch count. In {few['steps'][1]:,} steps it memorises, bits a "
        f"parameter, {'; '.join(found)}. In {more['steps'][1]:,} steps of {more['batch_tokens'][1]:,.0f} tokens by the "
        f"rule {bits / N:.3g}; all that this D holds is {whole:.3g}."
    )


def _rate(run: dict[str, Any], ends: Sequence[float]) -> str:
    """Return ` (0.00674, the least tried)`, the rate at which a run memorised the most, where it was chosen."""
    given = dict(pair.split("=") for text in run["settings"][:1] for pair in text.split(", "))
    if "train.learning_rate" not in given:
        return ""
    rate = float(given["train.learning_rate"])
    return f" ({rate:.3g}{', the least tried' if rate == ends[0] else ''})"


def slope_by_count(known: Known, name: str, count: str) -> str:
    """Return the slope of the most bits, and k, under another count of N; empty with fewer than three N."""
    bits = estimate(known, name, "capacity_bits_per_parameter")
    found = bits["details"].get("capacities", ()) if bits else ()
    return _slope([item["sizes"][count] for item in found], [max(item["memorised"]) for item in found])


def slope_without_largest(known: Known, name: str) -> str:
    """Return the slope of ln C on ln N, and k, without the largest N; empty where C of three others is not known."""
    bits = estimate(known, name, "capacity_bits_per_parameter")
    found = [item for item in (bits["details"].get("capacities", ()) if bits else ()) if item["bits"]][:-1]
    return _slope([item["N"] for item in found], [item["bits"] for item in found])


def _slope(N: Sequence[float], bits: Sequence[float]) -> str:
    if len(N) < 3:
        return ""
    fit = fit_loglog([*N], [*bits])
    low, high = fit.interval
    found = k_of_slope({"value": fit.slope, "interval": fit.interval})
    k = "" if found is None else f", k {_of_k(*found)}"
    return f"{fit.slope:.3g} ({low:.3g} to {high:.3g}){k}"


def count_table(known: Known, names: Sequence[str]) -> str:
    """Return bits per parameter and the slope by each convention for N."""
    rows = []
    for name in names:
        bits, slope = (estimate(known, name, f"capacity_{what}") for what in ("bits_per_parameter", "slope"))
        if bits is None or slope is None:
            continue
        counted = bits["details"].get("by_count") or []
        for item in counted:
            per, of = ({"value": item[v], "interval": item[i], "refusal": "too few N"} for v, i in _BY_COUNT)
            rows.append([title(name), COUNTS[item["count"]], number(per), number(of)])
        if not counted:
            rows.append([title(name), COUNTS["non_embedding"], number(bits), number(slope)])
    return table(("runs", "N counts", "bits per parameter", "slope of ln C on ln N"), rows)


COUNTS = {
    "non_embedding": "attention and feed-forward",
    "with_head": "these and the output head",
    "total": "all parameters",
}
_BY_COUNT = (("bits_per_parameter", "interval"), ("slope", "slope_interval"))


def capacity_sentence(known: Known, name: str = "capacity") -> str:
    """Return what the memorised bits say of k."""
    bits, slope = (estimate(known, name, f"capacity_{what}") for what in ("bits_per_parameter", "slope"))
    if bits is None or slope is None:
        return NOT_RUN
    facts, found = known[name]["facts"], k_of_slope(slope)
    text = (
        f"N = {span(facts['N'])} parameters (embeddings not counted, {len(facts['N'])} N, {len(facts['seeds'])} seeds) "
        f"memorise at least {number(bits)} bits each, and the slope of ln C on ln N is {number(slope)}"
    )
    if found is None:
        return f"{text}."
    k, (low, high) = found
    rejected = [value for value in HYPOTHESES if not low <= value <= high]
    grows = f"to hold D tokens by heart N must grow as D^{_of_k(k, (low, high))}"
    return f"{text}: {grows}, which {decided(rejected, HYPOTHESES)}."


def slopes_table(known: Known, name: str) -> str:
    """Return bits per parameter and the slope of ln C on ln N of each fit, and the k that follows."""
    rows: list[list[str]] = []
    found: list[float] = []
    for label in _labels(known, name):
        bits, slope = (estimate(known, name, f"capacity_{what}", label) for what in ("bits_per_parameter", "slope"))
        of_slope = k_of_slope(slope) if slope else None
        if of_slope is not None:
            found.append(of_slope[0])
        k = "not determined" if of_slope is None else _of_k(*of_slope)
        rows.append([label, "" if bits is None else str(bits["used"]), brief(bits), brief(slope), k])
    text = table(("chosen how", "N whose C is known", "bits per parameter", "slope of ln C on ln N", "k"), rows)
    text += (
        "\nC of an N is known where the most bits are at neither end of its D; a slope needs three N, and of three its "
        "interval is narrow or wide by chance.\n"
    )
    if found:
        known_k = f"{len(found)} of {len(rows)} choices"
        text += f"\nk is known for {known_k}, {min(found):.3g} to {max(found):.3g}.{_ends_of_choices(known, name)}\n"
    return text


def _ends_of_choices(known: Known, name: str) -> str:
    """Return in how many cells the most bits were memorised at the largest of what was tried."""
    facts, found = known[name]["facts"], []
    cells = facts["least_train"]
    for axis in ("batch_tokens", "learning_rate"):
        top = facts[axis][1]
        if at_end := sum(cell[axis] == top for cell in cells):
            words = axis.removesuffix("_tokens").replace("_", " ")
            found.append(f"at the largest {words} that was tried, {top:g}, in {at_end} of {len(cells)} cells")
    if not found:
        return ""
    return (
        f" Most bits were memorised {' and '.join(found)}: what is called tuned here is not, from above; and at equal "
        "steps a larger batch also makes more passes."
    )
