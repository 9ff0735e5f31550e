"""The section on the over-fitting threshold D* of docs/results.md: its sentences and tables."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from tables import Known, brief, estimate, fit_named, interval_of, span, table, tests_of, verdict

from amscale.scaling.dstar import place_of
from amscale.scaling.estimate import interval_text
from amscale.settings import format_size

THRESHOLD = 0.04
COUNTS = {"": "attention and feed-forward", ", with_head": "these and the output head", ", total": "all parameters"}
"""Labels of fits under other counts of N, by how they end."""
ESTIMANDS = {"k_dstar": "D*", "k_overfitting": "δ/γ"}


def dstar_answer(known: Known, sweeps: Sequence[tuple[str, str]]) -> str:
    """Return what the section found: a line for each sweep and fit, and on what each k depends."""
    lines = []
    for name, label in ((name, label) for name, label in sweeps if label in known.get(name, {}).get("fits", {})):
        item = estimate(known, name, "k_dstar", label)
        up, down, pairs = _pairs(_stars(known, name, label))
        text = (
            f"* {fit_named(name, label)}: of two N the larger has the larger D* in {up} of {pairs} pairs, the "
            f"smaller in {down}; the others overlap."
        )
        if item is not None and item["value"] is not None:
            text += f" k at D* is {brief(item)}, which {tests_of(item)}"
            if moved := item["details"].get("for_tuned_runs"):
                text += f", as k of tuned runs may be {interval_text(moved)}"
            text += f". {_by_choice(known, name, label)}"
        elif item is not None:
            text += f" k at D* is not determined: {item['refusal']}."
        text = f"{text.rstrip()}{_by_laws(known, name, label)}"
        lines.append(text.rstrip() + "\n")
    return "".join(lines)


def _by_laws(known: Known, name: str, label: str) -> str:
    """Return k by the laws that describe tuned cells, by Huber's objective; elsewhere it may be that of one rate."""
    if known[name]["fits"][label]["tuning"] is None:
        return ""
    told = []
    for words, count in (("", ""), ("with N of all parameters ", ", total")):
        found = [estimate(known, name, id, f"{label}{count}") for id in _LAWS]
        told += [
            f"{words}{_LAWS[item['id']]} {verdict(item)}"
            for item in found
            if item is not None and item["value"] is not None and item["interval"]
        ]
    return f" k by the laws that describe these runs: {'; '.join(told)}." if told else ""


_LAWS = {
    "k_chinchilla": "Chinchilla",
    "k_coupled": "coupled",
    "k_kaplan": "Kaplan",
    "k_data_constrained": "data-constrained",
    "k_overfitting": "over-fitting",
}


def dstar_summary(known: Known) -> str:
    """Return k at D* on English by the choice of rate and batch, and which way D* goes on Question-Formation."""
    told = []
    for name, labels in _SUMMARY.items():
        for label, words in labels.items():
            item = estimate(known, name, "k_dstar", label)
            if item is not None:
                value = "not determined"
                if item["value"] is not None:
                    value = interval_of(item["value"], item["interval"])
                told.append(f"{value} {words}")
    text = f"On English k at D* is {'; '.join(told)}." if told else ""
    ways = []
    for name in ("overfitting_questions", "overfitting_questions_tuned"):
        if name in known:
            up, down, pairs = _pairs(_stars(known, name, next(iter(known[name]["fits"]))))
            ways.append(f"the larger N has the larger D* in {up} of {pairs} pairs and the smaller one in {down}")
    if ways:
        text += f" On Question-Formation {'; with every cell tuned '.join(ways)}."
    law, total = (
        estimate(known, "overfitting_questions_tuned", "k_chinchilla", f"every cell tuned{count}")
        for count in ("", ", total")
    )
    if law and total and law["value"] and total["value"]:
        text += (
            f" By Chinchilla's law on its tuned cells k is {interval_of(law['value'], law['interval'])}, with N of all "
            f"parameters {interval_of(total['value'], total['interval'])}."
        )
    return text.strip()


_SUMMARY = {
    "overfitting_english": {"weight decay 0.0": "at one batch for all"},
    "overfitting_english_tuned": {
        "every cell tuned": "with rate and batch tuned in every cell",
        "batch 256, learning rate tuned": "at a batch of 256 with the rate tuned",
    },
}


def _by_choice(known: Known, name: str, label: str) -> str:
    """Return over what the value of k at D* goes by window, threshold and count of N."""
    found = [row["k"] for row in known[name]["fits"][label]["sensitivity"] if row["k"]]
    counts = [estimate(known, name, "k_dstar", f"{label}{count}") for count in COUNTS]
    by_count = [item["value"] for item in counts if item is not None and item["value"] is not None]
    text = (
        f"With window and threshold halved and doubled it goes from {min(found):.3g} to {max(found):.3g}"
        if found
        else ""
    )
    if (alone := known[name]["fits"][label]["criterion"]["without_variance"])["k"]:
        text += f", by the squared gap alone it is {interval_of(alone['k'], alone['interval'])}"
    if len(by_count) > 1:
        text += f", and with the count of N it goes from {min(by_count):.3g} to {max(by_count):.3g}"
    return text + "." if text else ""


def count_of_N_table(known: Known, fits: Sequence[tuple[str, str]], ids: Sequence[str]) -> str:
    """Return k under each count of N: a row for each fit and estimand, and how far N ranges under each."""
    rows = []
    for name, label in ((name, label) for name, label in fits if name in known):
        for id in ids:
            found = [estimate(known, name, id, f"{label}{count}") for count in COUNTS]
            if any(item is not None and item["value"] is not None for item in found):
                named = ESTIMANDS.get(id) or next(item["estimand"] for item in found if item)
                rows.append([fit_named(name, label), named, *(_tested(item) for item in found)])
    return table(("runs", "k by", *(f"N counts {what}" for what in COUNTS.values())), rows)


def _tested(item: dict[str, Any] | None) -> str:
    if item is None or item["value"] is None:
        return "not determined"
    return f"{brief(item)}: {tests_of(item)}"


def window_table(known: Known, fits: Sequence[tuple[str, str]]) -> str:
    """Return k at D* by the window and the threshold of the criterion, with the intervals."""
    rows = []
    for name, label in ((name, label) for name, label in fits if label in known.get(name, {}).get("fits", {})):
        found = known[name]["fits"][label]["sensitivity"]
        for window in dict.fromkeys(row["window"] for row in found):
            cells = [
                next((row for row in found if (row["window"], row["threshold"]) == (window, s)), None) for s in _SIGMAS
            ]
            shown = ["" if row is None or row["k"] is None else interval_of(row["k"], row["interval"]) for row in cells]
            if any(shown):
                rows.append([fit_named(name, label), f"{window:g}", *(text or "not determined" for text in shown)])
    heads = ("runs", "window, share of the steps", *(f"k, threshold {s:g}" for s in _SIGMAS))
    return table(heads, rows)


_SIGMAS = (THRESHOLD / 2, THRESHOLD, 2 * THRESHOLD)


def dstar_table(known: Known, names: Sequence[str]) -> str:
    """Return between which D the threshold D* of each N lies, by the criterion and by the squared gap alone."""
    rows = []
    for name in (name for name in names if name in known):
        for label, fit in known[name]["fits"].items():
            stars = _stars(known, name, label)
            own = (f"{format_size(s['N'])}: {place_of(s['lower'], s['upper'])}{'‡' * bool(s['flags'])}" for s in stars)
            alone = fit["criterion"]["without_variance"]["stars"]
            gaps = (f"{format_size(N)}: {place_of(lower, upper)}" for N, lower, upper in alone)
            rows.append([fit_named(name, label), "; ".join(own), "; ".join(gaps)])
    text = table(("runs", "N: D* lies in", "N: D* by the squared gap alone lies in"), rows)
    return text + "\n‡ passing is not monotone in D: D* lies somewhere in all of this.\n"


def _stars(known: Known, name: str, label: str) -> Sequence[dict[str, Any]]:
    item = estimate(known, name, "k_dstar", label)
    return item["details"].get("dstar", ()) if item else ()


def _pairs(stars: Sequence[dict[str, Any]]) -> tuple[int, int, int]:
    """Return in how many pairs of N the larger has the larger D*, the smaller has it, and how many there are."""
    pairs = [(a, b) for a in stars for b in stars if a["N"] < b["N"]]
    up = sum(b["lower"] >= _upper(a) for a, b in pairs)
    return up, sum(a["lower"] >= _upper(b) for a, b in pairs), len(pairs)


def _upper(star: dict[str, Any]) -> float:
    return math.inf if star["upper"] is None else float(star["upper"])


def failing_sentences(known: Known, names: Sequence[str]) -> str:
    """Return what kind of runs fail the criterion, over-fitting or still learning, a line for each fit."""
    lines = []
    for name in (name for name in names if name in known):
        for label, fit in known[name]["fits"].items():
            if "criterion" in fit and not label.startswith("batch"):
                lines.append(f"* {fit_named(name, label)}: {_failing(fit['criterion'])}\n")
    return "".join(lines)


def _failing(of: dict[str, Any]) -> str:
    text = f"{of['failing']} of {of['runs']} runs fail the criterion"
    if of["failing"]:
        below = of["failing"] - of["above"]
        text += (
            f": {below} over-fit, with a train loss below the least validation loss in the window, and {of['above']} "
        )
        text += "still learn in it, with one above"
    text += "."
    if of["learning_at_lower_end"]:
        sizes = ", ".join(format_size(N) for N in of["learning_at_lower_end"])
        text += f" At N = {sizes} the lower end of D* rests on runs that still learn alone: no onset of over-fitting."
    text += (
        f" The window is {span(of['window_steps'])} steps. In {of['at_end']} runs the validation loss was least at the "
    )
    text += "end: trained longer, D* may move."
    pairs = of["pairs"]
    if pairs:
        lower = sum(large < small for small, large in pairs)
        small, large = (median(losses) for losses in zip(*pairs, strict=True))
        which = "all of these" if lower == len(pairs) else f"{lower} of them"
        text += (
            f" The smaller N fails and the larger passes at the same D in {_number(len(pairs), 'pair')}; in {which} "
        )
        text += f"the larger has the lower least validation loss (medians {large:.3g} and {small:.3g})"
        text += (
            ": it passes where it has learnt more of what holds for unseen text too" * (lower >= 0.9 * len(pairs)) + "."
        )
    return text


def _number(amount: int, noun: str) -> str:
    return f"{amount} {noun}{'' if amount == 1 else 's'}"
