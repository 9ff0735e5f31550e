"""The tables and sentences of docs/results.md, each made by a rule from docs/data/estimates.json."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from catalogue import FINDINGS

from amscale.scaling.answer import names_of
from amscale.scaling.estimate import EXPONENT, FLOOR, ends_of, interval_text
from amscale.scaling.forecast import score_lines
from amscale.settings import format_size

DOCS = Path(__file__).resolve().parents[1] / "docs"
HYPOTHESES = (0.5, 1.0, 1.35, 2.0, 4.0)
NOT_RUN = "*Not run yet.*"
Known = dict[str, Any]
"""docs/data/estimates.json: by sweep, `facts` of its runs, `commands`, and `fits` by name."""


def estimate(known: Known, sweep: str, id: str, fit: str | None = None) -> dict[str, Any] | None:
    """Return an estimate of a sweep's fit, the first one by default; None where there is none.

    Of a fit all may be kept, or its exponents and its capacity alone.
    """
    fits = known.get(sweep, {}).get("fits", {})
    label = fit if fit is not None else next(iter(fits), "")
    found = fits.get(label) or known.get(sweep, {}).get("also", {}).get(label, {})
    return next((item for item in found.get("estimates", ()) if item["id"] == id), None)


def number(item: dict[str, Any] | None) -> str:
    """Return a value with its interval, or why there is none."""
    if item is None:
        return "not estimated"
    if item["value"] is None:
        return f"not determined: {item['refusal']}"
    interval = item["interval"]
    return f"{item['value']:.4g}" + (f" ({interval_text(interval)})" if interval else " (no interval)")


def interval_of(value: float, interval: Sequence[float | None]) -> str:
    """Return `1.58 (1.02 to 3.54)`."""
    low, high = ends_of(interval)
    ends = f"above {low:.3g}" if math.isinf(high) else f"{low:.3g} to {high:.3g}"
    return f"{value:.3g} ({ends})"


def brief(item: dict[str, Any] | None) -> str:
    """Return a value with its interval; of one that is not there no reason."""
    return "not determined" if item is None or item["value"] is None else number(item)


def verdict(item: dict[str, Any] | None) -> str:
    """Return `1.58 (1.02 to 3.54), which rejects ½, and not 1`, or that it is not determined."""
    if item is None or item["value"] is None:
        return "not determined"
    return f"{interval_of(item['value'], item['interval'])}, which {tests_of(item)}"


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


def title(name: str) -> str:
    """Return what the page calls a sweep."""
    return FINDINGS[name].title


def fit_named(name: str, label: str) -> str:
    """Return `English, weight decay 0`: a sweep and one of its fits."""
    whole, tuned = title(name), ", tuned"
    if label in ("all", "every cell tuned"):
        return whole
    shown = re.sub(r"\b0[.]0\b", "0", label)
    return f"{whole.removesuffix(tuned)}, {shown.removeprefix('every cell ')}"


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
        rows.append([f"{title(name)}: [{name}](data/{name}.parquet)", model, span(facts["N"]), span(facts["D"])])
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
    return table(heads, rows) + (folded("The commands that ran them", shown) if shown else "")


def bullets(lines: Iterable[str]) -> str:
    """Return a Markdown list."""
    return "".join(f"* {line}\n" for line in lines)


def folded(summary: str, text: str) -> str:
    """Return a part of the page that is closed until somebody opens it."""
    return f'\n<details markdown="1"><summary>{summary}</summary>\n\n{text}\n</details>\n'


def k_table(known: Known, names: Sequence[str], ids: Sequence[str] = (), of: str | None = None) -> str:
    """Return every estimate of k of each fit with what it rejects; below the table, which have no value and why.

    Args:
        known: what is known.
        names: the sweeps.
        ids: the estimates to show, all by default.
        of: the one fit to show, by default all of each sweep.
    """
    rows, conditions = [], []
    without: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, label, fit in fits_of(known, names, of):
        conditions += [f"{fit_named(name, label)}: {text.partition('; ')[0]}" for text in fit.get("warnings", ())]
        if "refusal" in fit:
            without.setdefault((name, "every estimate"), {}).setdefault(fit["refusal"], []).append(label)
        for item in fit.get("estimates", ()):
            if item["group"] != EXPONENT or (ids and item["id"] not in ids):
                continue
            named = item["estimand"] + ", by squares" * item["id"].endswith("_squared")  # else by Huber's objective
            if item["value"] is None:
                reasons = without.setdefault((name, named), {})
                reasons.setdefault(item["refusal"], []).append(label)
            else:
                rows.append([fit_named(name, label), named, number(item), *_tested(item)])
    heads = ("runs", "estimand", "k (95 % interval)", "k of tuned runs", "of ½, 1, 1.35, 2, 4")
    text = table(heads, rows)
    if conditions:
        text += "\n" + "".join(f"* {line}.\n" for line in dict.fromkeys(conditions))
    if without:
        listed = "".join(
            f"* {title(name)}, {estimand}: {_reasons(reasons)}.\n" for (name, estimand), reasons in without.items()
        )
        text += folded("Estimates of k that are not determined, and why", listed)
    return text


def treatments_table(known: Known, names: Sequence[str], part: str) -> str:
    """Return k by the laws that describe rectangles, for each way in which learning rate and batch were chosen.

    Args:
        known: what is known.
        names: the sweeps.
        part: how the label of a fit of the part that all of them have ends.
    """
    rows: list[list[str]] = []
    found: list[float] = []
    reasons: dict[str, list[str]] = {}
    for name, label, _ in (one for one in fits_of(known, names) if one[1].endswith(part)):
        kaplan, *others = (estimate(known, name, f"k_{law}", label) for law in ("kaplan", "coupled", "chinchilla"))
        chosen = label.removesuffix(part)
        rows.append([chosen, *map(brief, (kaplan, *others))])
        if kaplan is not None and kaplan["value"] is not None:
            found.append(kaplan["value"])
        elif kaplan is not None:
            reasons.setdefault(kaplan["refusal"], []).append(chosen)
    text = table(("chosen how", "k by Kaplan's law", "k by the coupled law", "k by Chinchilla's law"), rows)
    if found:
        text += f"\nBy Kaplan's law k lies between {min(found):.3g} and {max(found):.3g} with the choice.\n"
    if reasons:
        listed = "; ".join(f"{reason} ({', '.join(labels)})" for reason, labels in reasons.items())
        text += f"\nNot determined by Kaplan's law: {listed}.\n"
    return text


def fits_of(known: Known, names: Sequence[str], of: str | None = None) -> Iterator[tuple[str, str, dict[str, Any]]]:
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
                    lines.append(f"* {fit_named(name, label)}: {told}\n")
    return "".join(lines)


def picture(known: Known, name: str, figure: str, caption: str) -> str:
    """Return a figure of a sweep; empty where it was not drawn."""
    file = f"images/results/{name}_{figure}.png"
    return f"![{caption}]({file})\n" if name in known and (DOCS / file).is_file() else ""


_WORDS = {
    "copied half true": "with its copied half,",
    "copied half false": "without a copied half,",
    "word classes full": "all words",
    "word classes half": "half of the words",
    "word classes quarter": "a quarter of the words",
}
"""What settings of a text mean, by their names in the id of its floor."""


def _text_named(id: str) -> str:
    """Return `without a copied half, all words`, or `vocabulary 4`, for the id of the floor of one text of several."""
    words = id.removeprefix("floor_validation").replace("_", " ").strip()
    for setting, meaning in _WORDS.items():
        words = words.replace(setting, meaning)
    return words


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
                rows.append([fit_named(name, label), _text_named(item["id"]), number(item)])
                rows[-1] += ["not known" if entropy is None else f"{entropy:.4g}", near, below]
                rows[-1].append(
                    f"{entropy - math.log(1 - EPSILON / (round(math.exp(entropy)) + 1)):.4g}"
                    if SMOOTHED in label and entropy
                    else ""
                )
    heads = (
        "runs",
        "text",
        "least validation loss",
        "entropy",
        "above it",
        "whole interval below 1",
        "asked for by the smoothing",
    )
    return table(heads, rows)


SMOOTHED, EPSILON = "smoothing 0.1", 0.1
"""What labels of fits of smoothed losses hold, and by how much these are smoothed."""


def laws_table(known: Known, name: str, of: str) -> str:
    """Return the laws of one fit side by side: held-out error, k, floor and κ, or why it has none of these."""
    rows = []
    for _, _, fit in fits_of(known, [name], of):
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
    fit: dict[str, Any] = next(iter(known.get(name, {}).get("fits", {}).values()), {})
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
    shown = [[title(name), format_size(N), *("; ".join(cells) for cells in both)] for (name, N), both in rows.items()]
    headings = ("runs", "N", "D: learning rate of least validation loss, interpolated", "D: that of least train loss")
    return table(headings, shown) + "\n† at the end of what was tried.\n"


def tuned_rules(known: Known, names: Sequence[str]) -> str:
    """Return how many cells are best at an end of what was tried, and the rules that follow from the others.

    Only a batch has a least value that is known: one sequence.
    """
    rows = []
    for name in (name for name in names if name in known):
        tuning = next(iter(known[name]["fits"].values())).get("tuning") or {"axes": (), "cells": (), "lines": ()}
        edges = Counter(axis for cell in tuning["cells"] for axis in cell["edges"])
        cells = len(tuning["cells"])
        for axis in tuning["axes"]:
            short = axis.partition(".")[2]
            rule = next(
                (line.removeprefix("rule: ") for line in tuning["lines"] if line.startswith(f"rule: {short}")), ""
            )
            least = sum(axis in cell["at_least"] for cell in tuning["cells"])
            inside = cells - edges[axis] - least
            words = short.removesuffix("_tokens").replace("_", " ")
            rows.append([title(name), words, str(cells), str(inside), str(least or ""), str(edges[axis]), rule])
    heads = (
        "runs",
        "setting",
        "cells",
        "best inside",
        "best the least there can be",
        "best at an end of what was tried",
    )
    return table((*heads, "rule of the cells with the best inside (95 %)"), rows)


def _same_cell(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["N"], one["D"]) == (other["N"], other["D"])
