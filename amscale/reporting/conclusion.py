"""What a report says beside its verdict: what was trained, key numbers, and what was seen besides."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amscale.reporting.report_data import ReportData
from amscale.scaling.estimate import EXPONENT, FLOOR, interval_text
from amscale.settings import format_size

_KEY_NUMBERS = 3
"""Key numbers of each of the two main groups."""
NOT_DETERMINED = "not determined"


@dataclass(frozen=True)
class Section:
    """A heading with its sentences."""

    heading: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class KeyNumber:
    """An estimate in large print: its value, and as a note its interval."""

    name: str
    value: str
    note: str


def headline(report: ReportData) -> str:
    """Return what was trained, and what has not finished."""
    results = [trial.result for trial in report.with_result if trial.result]
    corpora = " and ".join(sorted({result.data.corpus or "a corpus without a name" for result in results}))
    families = " and ".join(sorted({result.shape.family or "unnamed" for result in results}))
    steps = _range([float(result.steps) for result in results], ",.0f")
    seeds = len({trial.seed for trial in report.finished})
    epochs = [result.data.epochs for result in results if result.data.epochs]
    text = (
        f"{_count(len(report.finished), 'run')} of the {families} family finished: "
        f"{_count(len(report.sizes), 'size')} of {_range(report.sizes, format_size)} parameters by "
        f"{_count(len(report.tokens), 'data set')} of {_range(report.tokens, format_size)} unique tokens of {corpora}, "
        f"{_count(seeds, 'seed')}, {steps} steps a run"
    )
    if epochs:
        text += f" ({_range(epochs, _passes)} passes over the data)"
    return f"{text}. {_convention(report)}"


def _passes(epochs: float) -> str:
    """Return `2,500` or `0.313`: three digits, without an exponent."""
    return f"{float(f'{epochs:.3g}'):,g}"


def _convention(report: ReportData) -> str:
    text = f"{report.fit['convention']}."
    others = Counter(t.status.state for t in report.trials if not t.finished)
    if others:
        text += " Not finished: " + ", ".join(f"{number} {state}" for state, number in sorted(others.items())) + "."
    return text


def key_numbers(report: ReportData) -> list[KeyNumber]:
    """Return the numbers to read first, of those that are determined: exponents, observed losses and a law's floor."""
    observed = [e for e in report.estimates(FLOOR) if "references" in e["details"]]
    chosen = []
    for first, group, digits in ((report.estimates(EXPONENT)[:2], EXPONENT, 3), (observed, FLOOR, 4)):
        ordered = [*first, *(e for e in report.estimates(group) if e not in first)]
        chosen += [_key_number(e, digits) for e in ordered if e["value"] is not None][:_KEY_NUMBERS]
    return chosen


def _key_number(estimate: dict[str, Any], digits: int) -> KeyNumber:
    return KeyNumber(estimate["estimand"], f"{estimate['value']:.{digits}g}", _interval(estimate["interval"]))


def sections(report: ReportData) -> list[Section]:
    """Return what else was seen, beside the verdict: where D* lies, the losses, the probes, and warnings."""
    found = [
        Section("D* of each N", tuple(_dstar(report))),
        Section("Losses", tuple(_below_known_losses(report) if report.estimates(FLOOR) else ())),
        Section("Inside the networks", tuple(_last_probes(report))),
        Section("To keep in mind", tuple(_sentence(warning) for warning in report.fit["warnings"])),
    ]
    return [section for section in found if section.sentences]


def rejections(tests: Sequence[dict[str, Any]]) -> str:
    """Return which hypotheses the data reject at the 5 % level, and which they do not."""
    if not tests:
        return ""
    rejected = _names([test for test in tests if test["rejected"]])
    not_rejected = _names([test for test in tests if not test["rejected"]])
    parts = [
        f"Rejected at 5 %: {rejected}." if rejected else "",
        f"Not rejected: {not_rejected}." if not_rejected else "",
    ]
    return " ".join(part for part in parts if part)


def _names(tests: Sequence[dict[str, Any]]) -> str:
    """Return `k = 1, 1.35, 2` for exponents, otherwise the names of the hypotheses."""
    if tests and all(test["name"].startswith("k = ") for test in tests):
        return "k = " + ", ".join(f"{test['value']:g}" for test in tests)
    return "; ".join(test["name"] for test in tests)


def _last_probes(report: ReportData) -> list[str]:
    """Return what the last probe of each trial measured of energies and radii."""
    last = [trial.probes[-1][1] for trial in report.finished if trial.probes]
    sentences = []
    shares = [
        [values[name] for values in last if name in values]
        for name in ("energy/global/steps_lowering_E", "energy/global/steps_lowering_E_global")
    ]
    if all(shares):
        layer, whole = (_range([100 * share for share in found], ".0f") for found in shares)
        sentences.append(
            f"At the last probe, {layer} % of the steps from layer to layer lowered the layer's energy E, {whole} % "
            "the global energy; the theory reads a layer as a majorise-minimise step, which lowers both."
        )
    pairs = [pair for values in last if (pair := _radius(values)) is not None]
    if pairs:
        ratio = _range([radius / star for radius, star in pairs], ".2g")
        sentences.append(f"The sampled radius of the last layer is {ratio} times r*.")
    return sentences


def _radius(values: dict[str, float]) -> tuple[float, float] | None:
    """Return the median sampled radius and r* of the last layer, or None where they were not measured."""
    layers = sorted(name.split("/")[1] for name in values if re.fullmatch(r"radius/layer_\d+/r_star", name))
    if not layers or f"radius/{layers[-1]}/sampled_median" not in values:
        return None
    return values[f"radius/{layers[-1]}/sampled_median"], values[f"radius/{layers[-1]}/r_star"]


def _dstar(report: ReportData) -> list[str]:
    """Return between which D of the grid D* of each N lies."""
    rows = report.detail("dstar") or []
    if not rows:
        return []
    threshold = report.fit["settings"].get("threshold")
    places = []
    for row in rows:
        if row["lower"] and row["upper"] is not None:
            place = f"between {format_size(row['lower'])} and {format_size(row['upper'])}"
        elif row["upper"] is not None:
            place = f"at most {format_size(row['upper'])}"
        else:
            place = f"above {format_size(row['lower'])}"
        places.append(f"N = {format_size(row['N'])} {place}")
    limit = "" if threshold is None else f" (threshold {threshold:g} nats²)"
    return [
        f"D*(N), the unique tokens from which N parameters no longer over-fit{limit}, lies for {'; '.join(places)}."
    ]


def _below_known_losses(report: ReportData) -> list[str]:
    """Return in how many runs the losses passed below 1 and below the entropy of the corpus."""
    if report.corpora:
        return _losses_and_entropies(report)
    entropy = report.corpus_fact("entropy_per_token", report.finished)
    if entropy is None:
        sentences = ["The entropy of the corpus is not known, so the floor is compared with 1 nat per token only."]
    else:
        sentences = [f"The known entropy of the corpus is {entropy:.4g} nats per token; the claim under test is 1."]
    sentences.append(_below(report, "training", "train_least", 1.0, "1"))
    if entropy is not None:
        sentences.append(_below(report, "training", "train_least", entropy, "the known entropy"))
    sentences.append(_below(report, "validation", "validation_least", 1.0, "1"))
    return [sentence for sentence in sentences if sentence]


def _losses_and_entropies(report: ReportData) -> list[str]:
    """Return how far the least losses of several corpora are from the known entropies."""
    sentences = [f"The runs read {len(report.corpora)} corpora; each loss is compared with the entropy of its corpus."]
    for name in ("least settled train loss", "least validation loss"):
        pairs = report.floors_with_entropy(name)
        if len(pairs) > 1:
            entropies = _range([entropy for entropy, _ in pairs], ".4g")
            over = _range([row["value"] - entropy for entropy, row in pairs], "+.2g")
            sentences.append(f"Entropies: {entropies} nats per token. The {name} less the entropy: {over}.")
    return sentences


def _below(report: ReportData, name: str, key: str, limit: float, limit_name: str) -> str:
    """Return in how many runs the loss `key` passed below `limit`; empty where no run has that loss."""
    runs = [(getattr(t.result.losses, key), t) for t in report.finished if t.result]
    known = [(value, trial) for value, trial in runs if value is not None and math.isfinite(value)]
    below = [pair for pair in known if pair[0] < limit]
    if not known:
        return ""
    if not below:
        return f"The {name} loss passed below {limit_name} in 0 of {_count(len(known), 'run')}."
    least, trial = min(below, key=lambda pair: pair[0])
    text = (
        f"The {name} loss passed below {limit_name} in {len(below)} of {_count(len(known), 'run')}, "
        f"least {least:.4g} at N = {format_size(trial.N or 0)}, D = {format_size(trial.D or 0)}"
    )
    if name == "training" and limit_name == "1":
        text += ": 1 nat per token is no bound on the training loss of these runs. (The bound was stated per pattern.)"
        return text
    return text + "."


def _interval(interval: tuple[float, float] | None) -> str:
    return "no interval" if interval is None else f"95 % interval {interval_text(interval)}"


def _range(values: Sequence[float], form: str | Callable[[float], str]) -> str:
    """Return `low to high`, or one value where they read the same."""
    low, high = (form(end) if callable(form) else format(end, form) for end in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
