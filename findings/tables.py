"""The tables and sentences of docs/results.md, each made by a rule from docs/data/estimates.json."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from amscale.scaling.answer import names_of
from amscale.scaling.capacity import RESTS
from amscale.scaling.dstar import place_of
from amscale.scaling.estimate import EXPONENT, FLOOR, ends_of, interval_text
from amscale.scaling.forecast import score_lines
from amscale.scaling.power_law import fit_loglog
from amscale.settings import format_size

DOCS = Path(__file__).resolve().parents[1] / "docs"
HYPOTHESES = (0.5, 1.0, 1.35, 2.0, 4.0)
NOT_RUN = "*Not run yet.*"
Known = dict[str, Any]
"""docs/data/estimates.json: by sweep, `facts` of its runs, `commands`, and `fits` by name."""


def estimate(known: Known, sweep: str, id: str, fit: str | None = None) -> dict[str, Any] | None:
    """Return an estimate of a sweep's fit, the first one by default; None where there is none."""
    fits = known.get(sweep, {}).get("fits", {})
    found = fits.get(fit if fit is not None else next(iter(fits), ""), {})
    return next((item for item in found.get("estimates", ()) if item["id"] == id), None)


def number(item: dict[str, Any] | None) -> str:
    """Return a value with its interval, or why there is none."""
    if item is None:
        return "not estimated"
    if item["value"] is None:
        return f"not determined: {item['refusal']}"
    interval = item["interval"]
    return f"{item['value']:.4g}" + (f" ({interval_text(interval)})" if interval else " (no interval)")


def decided(rejected: Sequence[float], tested: Sequence[float]) -> str:
    """Return `rejects ½ and 2, and not 1`, for exponents that were tested."""
    kept = [k for k in tested if k not in rejected]
    if not tested:
        return "tests none"
    if not rejected:
        return f"rejects none of {names_of(kept)}"
    return f"rejects {names_of(rejected)}" + (f", and not {names_of(kept, 'or')}" if kept else "")


def tests_of(item: dict[str, Any]) -> str:
    """Return which of the hypotheses an estimate rejects."""
    tests = item["hypotheses"]
    return decided([test["value"] for test in tests if test["rejected"]], [test["value"] for test in tests])


def k_of_slope(slope: dict[str, Any]) -> tuple[float, tuple[float, float]] | None:
    """Return k = 1/slope of ln C on ln N with its interval; None where the slope's holds 0 or is not known."""
    if slope["value"] is None or slope["interval"] is None:
        return None
    low, high = ends_of(slope["interval"])
    return (1 / slope["value"], (1 / high, 1 / low)) if low > 0 else None


def span(values: Sequence[float], size: bool = True) -> str:
    """Return `456 to 47.3k`."""
    low, high = (format_size(v) if size else f"{v:.3g}" for v in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; empty without rows."""
    lines = ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines]) + "\n"


# --- parts of a section


def runs_table(known: Known, names: Sequence[str]) -> str:
    """Return what was run: amounts, settings and time of each sweep, and the commands."""
    rows, commands = [], []
    for name in names:
        if name not in known:
            rows.append([name, NOT_RUN, *[""] * 7])
            continue
        facts = known[name]["facts"]
        rates = f"{span(facts['learning_rate'], False)}; {span(facts['batch_tokens'])}"
        cost = f"{60 * facts['device_hours']:.0f} min, {facts['flops']:.2g}"
        model = f"{', '.join(facts['family'])}, {span(facts['layers'])} layers"
        passes = f"{span(facts['steps'])}; {span(facts['epochs'], False)}"
        seeds = str(len(facts["seeds"]))
        rows.append([f"[{name}](data/{name}.parquet)", model, span(facts["N"]), span(facts["D"])])
        rows[-1] += [f"{facts['finished']} of {facts['trials']}", seeds, passes, rates, cost]
        commands += known[name]["commands"]
    heads = (
        "sweep",
        "model",
        "N",
        "D",
        "runs finished",
        "seeds",
        "steps; passes",
        "learning rate; batch",
        "time, FLOPs",
    )
    shown = "".join(f"    {command}\n" for command in commands)
    return table(heads, rows) + ("\n" + shown if shown else "")


def k_table(known: Known, names: Sequence[str], ids: Sequence[str] = (), of: str | None = None) -> str:
    """Return every estimate of k of each fit with what it rejects; below the table, which have no value and why.

    Args:
        known: what is known.
        names: the sweeps.
        ids: the estimates to show, all by default.
        of: the one fit to show, by default all of each sweep.
    """
    rows, warnings = [], []
    without: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, label, fit in _fits(known, names, of):
        warnings += fit.get("warnings", ())
        if "refusal" in fit:
            without.setdefault((name, "every estimate"), {}).setdefault(fit["refusal"], []).append(label)
        for item in fit.get("estimates", ()):
            if item["group"] != EXPONENT or (ids and item["id"] not in ids):
                continue
            if item["value"] is None:
                reasons = without.setdefault((name, item["estimand"]), {})
                reasons.setdefault(item["refusal"], []).append(label)
            else:
                rows.append([name, label, item["estimand"], number(item), *_tested(item)])
    heads = ("sweep", "fit", "estimand", "k (95 % interval)", "k of tuned runs", "of ½, 1, 1.35, 2, 4")
    text = table(heads, rows)
    if warnings:
        text += "\nWarnings of the fits:\n\n" + "".join(f"* {line}.\n" for line in dict.fromkeys(warnings))
    if without:
        text += "\nNot determined:\n\n" + "".join(
            f"* {name}, {estimand}: {_reasons(reasons)}.\n" for (name, estimand), reasons in without.items()
        )
    return text


def treatments_table(known: Known, names: Sequence[str], part: str) -> str:
    """Return k by the laws that describe rectangles, for each way in which learning rate and batch were chosen.

    Args:
        known: what is known.
        names: the sweeps.
        part: how the label of a fit of the part that all of them have ends.
    """
    ids = ("k_kaplan", "k_coupled", "k_chinchilla")
    rows, found, reasons = [], [], {}
    for name, label, _ in (one for one in _fits(known, names) if one[1].endswith(part)):
        items = [estimate(known, name, id, label) for id in ids]
        cells = ["not determined" if item is None or item["value"] is None else number(item) for item in items]
        rows.append([label.removesuffix(part), *cells])
        if items[0] is not None:
            found += [items[0]["value"]] if items[0]["value"] is not None else []
            if items[0]["value"] is None:
                reasons.setdefault(items[0]["refusal"], []).append(label.removesuffix(part))
    text = table(("chosen how", "k by Kaplan's law", "k by the coupled law", "k by Chinchilla's law"), rows)
    if found:
        text += f"\nBy Kaplan's law k lies between {min(found):.3g} and {max(found):.3g} with the choice.\n"
    if reasons:
        listed = "; ".join(f"{reason} ({', '.join(labels)})" for reason, labels in reasons.items())
        text += f"\nNot determined by Kaplan's law: {listed}.\n"
    return text


def slopes_table(known: Known, name: str) -> str:
    """Return bits per parameter and the slope of ln C on ln N of each fit, and the k that follows."""
    rows, found = [], []
    for _, label, _ in _fits(known, [name]):
        bits, slope = (estimate(known, name, f"capacity_{what}", label) for what in ("bits_per_parameter", "slope"))
        of_slope = k_of_slope(slope) if slope else None
        k = "not determined"
        if of_slope is not None:
            k = f"{of_slope[0]:.3g} ({of_slope[1][0]:.3g} to {of_slope[1][1]:.3g})"
            found.append(of_slope[0])
        of_N = "" if bits is None else str(bits["used"])
        values = ["not determined" if i is None or i["value"] is None else number(i) for i in (bits, slope)]
        rows.append([label, of_N, *values, k])
    text = table(("chosen how", "N whose C is known", "bits per parameter", "slope of ln C on ln N", "k"), rows)
    text += (
        "\nC of an N is known where the most bits are at neither end of its D; a slope needs three N, and of three its "
    )
    text += "interval is narrow or wide by chance.\n"
    return text + (f"\nk lies between {min(found):.3g} and {max(found):.3g} with the choice.\n" if found else "")


def _fits(known: Known, names: Sequence[str], of: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield sweep, label and fit of every fit, or of those labelled `of`."""
    for name in (name for name in names if name in known):
        yield from ((name, label, fit) for label, fit in known[name]["fits"].items() if of in (None, label))


def _reasons(reasons: dict[str, list[str]]) -> str:
    """Return each reason with the fits that give it; `reason` alone where all give the same."""
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(f"{reason} ({', '.join(dict.fromkeys(labels))})" for reason, labels in reasons.items())


def _tested(item: dict[str, Any]) -> tuple[str, str]:
    """Return in which range k of tuned runs may be where that counts, and what the estimate rejects."""
    moved = item["details"].get("for_tuned_runs")
    return ("" if moved is None else f"may be {interval_text(moved)}"), tests_of(item)


def says(known: Known, names: Sequence[str], subject: str) -> str:
    """Return what the verdict of each fit says on `k` or on the `floor`: rules make it from the estimates."""
    lines = []
    for name in (name for name in names if name in known):
        for label, fit in known[name]["fits"].items():
            for answer in fit.get("verdict", ()):
                if ("floor" in answer["question"]) == (subject == "floor"):
                    told = " ".join([answer["headline"], *answer["says"]])
                    lines.append(f"* {name}, {label}: {told}\n")
    return "".join(lines)


def picture(known: Known, name: str, figure: str, caption: str) -> str:
    """Return a figure of a sweep; empty where it was not drawn."""
    file = f"images/results/{name}_{figure}.png"
    return f"![{caption}]({file})\n" if name in known and (DOCS / file).is_file() else ""


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
        best = item["memorised"].index(max(item["memorised"]))
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
    k = "" if found is None else f", k {found[0]:.3g} ({found[1][0]:.3g} to {found[1][1]:.3g})"
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
    grows = f"to hold D tokens by heart N must grow as D^{k:.3g} ({low:.3g} to {high:.3g})"
    return f"{text}: {grows}, which {decided(rejected, HYPOTHESES)}."


def rest_sentence(known: Known, name: str = "capacity") -> str:
    """Return at which N the runs that memorise the most had come to rest, and what follows where some had not."""
    bits = estimate(known, name, "capacity_bits_per_parameter")
    found = [
        item for item in (bits["details"].get("capacities", ()) if bits else ()) if item["bits"] and item.get("late")
    ]
    late = [(item["N"], item["late"][item["memorised"].index(max(item["memorised"]))]) for item in found]
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


def dstar_table(known: Known, names: Sequence[str]) -> str:
    """Return between which D the threshold D* of each N lies, by weight decay."""
    rows = []
    for name in (name for name in names if name in known):
        for label in known[name]["fits"]:
            item = estimate(known, name, "k_dstar", label)
            for each in item["details"].get("dstar", ()) if item else ():
                place = place_of(each["lower"], each["upper"])
                rows.append([name, label, format_size(each["N"]), place, "; ".join(each["flags"])])
    return table(("sweep", "fit", "N", "D* lies in", "remark"), rows)


def dstar_trend(known: Known, names: Sequence[str]) -> str:
    """Return whether D* grows with N, from the places where it lies alone."""
    lines = []
    for name in (name for name in names if name in known):
        for label in known[name]["fits"]:
            item = estimate(known, name, "k_dstar", label)
            stars = item["details"].get("dstar", ()) if item else ()
            pairs = [(a, b) for a in stars for b in stars if a["N"] < b["N"]]
            high = [math.inf if each["upper"] is None else each["upper"] for each in stars]
            up = sum(b["lower"] >= (math.inf if a["upper"] is None else a["upper"]) for a, b in pairs)
            down = sum(a["lower"] >= (math.inf if b["upper"] is None else b["upper"]) for a, b in pairs)
            if pairs and high:
                trend = "grows" if up and not down else "shrinks" if down and not up else "has no one direction"
                lines.append(
                    f"* {name}, {label}: of {len(pairs)} pairs of N, D* is larger for the larger N in {up} and smaller "
                    f"in {down}, the others overlap: D* {trend} with N. {_failing(known[name]['fits'][label])}\n"
                )
    return "".join(lines)


def _failing(fit: dict[str, Any]) -> str:
    """Return what kind of runs fail the criterion: those that over-fit, or those that still learn."""
    of = fit["criterion"]
    text = f"{of['failing']} of {of['runs']} runs fail the criterion"
    if of["failing"]:
        below = of["failing"] - of["above"]
        text += (
            f": {below} over-fit, with a train loss below the least validation loss in the window, and {of['above']} "
            "still learn in it, with one above"
        )
    text += f". In {of['at_end']} the validation loss was least at the end."
    pairs = of["pairs"]
    if pairs:
        lower = sum(large < small for small, large in pairs)
        small, large = (median(losses) for losses in zip(*pairs, strict=True))
        text += (
            f" Of two N at one D the smaller fails and the larger passes in {len(pairs)} pairs; in {lower} of them the "
            f"larger has the lower least validation loss (medians {large:.3g} and {small:.3g})"
        )
        text += (
            ": it passes where it has learnt more of what holds for unseen text too" * (lower >= 0.9 * len(pairs)) + "."
        )
    return text


def floor_table(known: Known, names: Sequence[str]) -> str:
    """Return the least losses of each text and treatment beside its entropy and 1."""
    rows = []
    for name in (name for name in names if name in known):
        for label, fit in known[name]["fits"].items():
            for item in fit.get("estimates", ()):
                if item["group"] != FLOOR or not item["id"].startswith("floor_validation") or item["value"] is None:
                    continue
                entropy, interval = item["details"]["references"].get("entropy"), item["interval"]
                near = "" if entropy is None else f"{100 * (item['value'] / entropy - 1):+.2g} %"
                below = "no interval" if interval is None else "yes" if ends_of(interval)[1] < 1 else "no"
                rows.append([name, label, item["id"].removeprefix("floor_validation_").replace("_", " "), number(item)])
                rows[-1] += ["not known" if entropy is None else f"{entropy:.4g}", near, below]
    heads = ("sweep", "fit", "text", "least validation loss", "entropy", "above it", "whole interval below 1")
    return table(heads, rows)


def laws_table(known: Known, name: str, of: str) -> str:
    """Return the laws of one fit side by side: held-out error, k, floor and κ, or why it has none of these."""
    rows = []
    for _, _, fit in _fits(known, [name], of):
        for law in fit.get("laws", ()):
            own = [item for item in fit["estimates"] if item["details"].get("law") == law["law"]]
            kinds = [next((i for i in own if i["id"].startswith(kind)), None) for kind in ("k_", "floor_", "kappa_")]
            reasons = dict.fromkeys(item["refusal"] for item in kinds if item is not None and item["refusal"])
            held = law["held_out"].get("C") if law["held_out"] else None
            cells = ["" if item is None or item["value"] is None else number(item) for item in kinds]
            why = "; ".join(reasons) or law["refusal"] or ""
            rows.append([law["law"], "" if held is None else f"{held:.2g}", *cells, why])
    return table(("law", "error of ln loss, largest C held out", "k", "floor", "κ", "not determined, because"), rows)


def forecasts(known: Known, name: str) -> str:
    """Return the scores of the forecasts that were written down before their cells were run."""
    fit = next(iter(known.get(name, {}).get("fits", {}).values()), {})
    lines = [line for score in fit.get("forecasts", ()) for line in score_lines(score)]
    return "".join(f"    {line}\n" for line in lines)


def tuned_table(known: Known, names: Sequence[str]) -> str:
    """Return the learning rates of least validation and of least train loss of each tuned cell, a row for each N."""
    rows: dict[tuple[str, float], list[list[str]]] = {}
    for name in (name for name in names if name in known):
        fit = next(iter(known[name]["fits"].values()))
        for cell in (fit.get("tuning") or {}).get("cells", ()):
            validation, train = rows.setdefault((name, cell["N"]), [[], []])
            best = ", ".join(f"{value:.3g}" for value in cell["settings"].values()) or cell["reason"]
            validation.append(f"{format_size(cell['D'])}: {best}{'†' if cell['edges'] else ''}")
            found = next((item for item in known[name]["facts"]["least_train"] if _same_cell(item, cell)), None)
            if found is not None:
                rate = f"{found['learning_rate']:.3g}{'†' if found['edge'] else ''}"
                train.append(f"{format_size(cell['D'])}: {rate}")
    shown = [[name, format_size(N), *("; ".join(cells) for cells in both)] for (name, N), both in rows.items()]
    headings = ("sweep", "N", "D: learning rate of least validation loss, interpolated", "D: that of least train loss")
    return table(headings, shown) + "\n† at the end of what was tried.\n"


def tuned_rules(known: Known, names: Sequence[str]) -> str:
    """Return how many cells are best at an end of what was tried, and the rules that follow from the others."""
    lines = []
    for name in (name for name in names if name in known):
        tuning = next(iter(known[name]["fits"].values())).get("tuning") or {"axes": (), "cells": (), "lines": ()}
        edges = Counter(axis for cell in tuning["cells"] for axis in cell["edges"])
        cells = len(tuning["cells"])
        for axis in tuning["axes"]:
            where = f"at the end of what was tried in {edges[axis]} of {cells} cells"
            lines.append(f"* {name}: the best {axis.partition('.')[2]} is {where}.")
        lines += [f"* {name}: {line}." for line in tuning["lines"] if line.startswith(("rule:", "no rule:"))]
    return "".join(f"{line}\n" for line in lines)


def _same_cell(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["N"], one["D"]) == (other["N"], other["D"])


def smoothed(symbols: Sequence[int], epsilon: float) -> str:
    """Return what a model scores on random tokens that does as label smoothing asks, over the end token too."""
    losses = [math.log(V) - math.log(1 - epsilon / (V + 1)) for V in symbols]
    return f"{names_of(losses)} for V = {names_of(symbols)} and ε = {epsilon:g}"
