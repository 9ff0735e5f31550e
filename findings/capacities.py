"""How many bits N parameters memorise, as sentences and tables of the results page."""

from collections.abc import Sequence
from typing import Any

from tables import HYPOTHESES, NOT_RUN, Known, brief, decided, estimate, fits_of, number, span, table

from amscale.scaling.capacity import RESTS
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
    one, other = (estimate(known, sweep, "capacity_bits_per_parameter") for sweep in (name, beside))
    if one is None or other is None:
        return NOT_RUN
    before = {
        item["N"]: dict(zip(item["D"], item["memorised"], strict=True)) for item in other["details"]["capacities"]
    }
    gains = []
    for item in one["details"]["capacities"]:
        best = _best(item)
        bits, late = item["memorised"][best], (item.get("late") or [None] * (best + 1))[best]
        text = f"N = {format_size(item['N'])} {bits / item['N']:.3g} a parameter"
        if earlier := before.get(item["N"], {}).get(item["D"][best]):
            text += f", {100 * (bits / earlier - 1):+.0f} %"
        gains.append(text + ("" if late is None else f", {100 * late:.1f} % in the last fifth"))
    slope = slope_of_most_bits(known, name)
    taken = f" Taken as C, their slope on ln N is {slope}." if slope else ""
    return f"Most bits, beside the same D in fewer steps: {'; '.join(gains)}.{taken}"


def slope_of_most_bits(known: Known, name: str) -> str:
    """Return the slope on ln N of the most bits that runs of each N memorised, and the k that follows, by fewer D than
    C needs; empty with fewer than three N."""
    bits = estimate(known, name, "capacity_bits_per_parameter")
    most = {item["N"]: max(item["memorised"]) for item in (bits["details"]["capacities"] if bits else ())}
    if len(most) < 3:
        return ""
    fit = fit_loglog([*most], [*most.values()])
    low, high = fit.interval
    found = k_of_slope({"value": fit.slope, "interval": fit.interval})
    k = "" if found is None else f", k {_of_k(*found)}"
    return f"{fit.slope:.4g} ({low:.4g} to {high:.4g}){k}"


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
            rows.append([name, item["count"], number(per), number(of)])
        if not counted:
            rows.append([name, "non_embedding", number(bits), number(slope)])
    return table(("sweep", "N counts", "bits per parameter", "slope of ln C on ln N"), rows)


_BY_COUNT = (("bits_per_parameter", "interval"), ("slope", "slope_interval"))


def capacity_sentence(known: Known, name: str = "capacity") -> str:
    """Return what the memorised bits say of k."""
    bits, slope = (estimate(known, name, f"capacity_{what}") for what in ("bits_per_parameter", "slope"))
    if bits is None or slope is None:
        return NOT_RUN
    facts, found = known[name]["facts"], k_of_slope(slope)
    text = (
        f"N = {span(facts['N'])} parameters (embeddings not counted, {len(facts['N'])} N, {len(facts['seeds'])} seeds) "
        f"memorise {number(bits)} bits each, and the slope of ln C on ln N is {number(slope)}"
    )
    if found is None:
        return f"{text}."
    k, (low, high) = found
    rejected = [value for value in HYPOTHESES if not low <= value <= high]
    grows = f"to hold D tokens by heart N must grow as D^{_of_k(k, (low, high))}"
    return f"{text}: {grows}, which {decided(rejected, HYPOTHESES)}."


def rest_sentence(known: Known, name: str = "capacity") -> str:
    """Return at which N the runs that memorise the most had come to rest, and what follows where some had not."""
    bits = estimate(known, name, "capacity_bits_per_parameter")
    found = [
        item for item in (bits["details"].get("capacities", ()) if bits else ()) if item["bits"] and item.get("late")
    ]
    late = [(item["N"], item["late"][_best(item)]) for item in found]
    late = [(N, share) for N, share in late if share is not None]
    if not late:
        return ""
    moving = [(N, share) for N, share in late if share >= RESTS]
    text = (
        f"At the D of C, {len(late) - len(moving)} of {len(late)} N had come to rest: less than {100 * RESTS:.0f} % of "
    )
    text += "their bits came in the last fifth of the steps."
    if moving:
        listed = ", ".join(f"N = {format_size(N)} {100 * share:.1f} %" for N, share in moving)
        text += f" Elsewhere C is a lower bound, and would rise with more steps ({listed})."
    (first, least), (last, most) = min(late), max(late)
    if moving and first != last and least != most:
        text += f" That share is {'larger' if most > least else 'smaller'} at the largest N than at the smallest: "
        text += f"with more steps the slope would {'rise, and k fall' if most > least else 'fall, and k rise'}."
    return text


def slopes_table(known: Known, name: str) -> str:
    """Return bits per parameter and the slope of ln C on ln N of each fit, and the k that follows."""
    rows: list[list[str]] = []
    found: list[float] = []
    for _, label, _ in fits_of(known, [name]):
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
    return text + (f"\nk lies between {min(found):.3g} and {max(found):.3g} with the choice.\n" if found else "")
