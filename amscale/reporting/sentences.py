"""What a sweep says, in sentences with numbers."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amscale.reporting.gather import Sweep
from amscale.scaling.estimate import EXPONENT, FLOOR, interval_text
from amscale.settings import format_size

_OF_EACH = 3
_HEADINGS = {EXPONENT: "N against D", FLOOR: "The loss floor"}


@dataclass(frozen=True)
class Passage:
    """A heading with its sentences."""

    heading: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One number of the conclusion: what it is, its value, and what stands beside it."""

    name: str
    value: str
    beside: str


def headline(sweep: Sweep) -> str:
    """What was trained."""
    results = [trial.result for trial in sweep.shown if trial.result]
    corpora = " and ".join(sorted({result.data.corpus or "a corpus without a name" for result in results}))
    families = " and ".join(sorted({result.shape.family or "unnamed" for result in results}))
    steps = _range([float(result.steps) for result in results], lambda value: f"{value:,.0f}")
    seeds = len({trial.seed for trial in sweep.finished})
    epochs = [result.data.epochs for result in results if result.data.epochs]
    text = (
        f"{_count(len(sweep.finished), 'run')} of the {families} family finished: "
        f"{_count(len(sweep.sizes), 'size')} of {_range(sweep.sizes, format_size)} parameters by "
        f"{_count(len(sweep.tokens), 'data set')} of {_range(sweep.tokens, format_size)} unique tokens of {corpora}, "
        f"{_count(seeds, 'seed')}, {steps} steps a run"
    )
    if epochs:
        text += f" ({_range(epochs, lambda value: f'{value:.3g}')} passes over the data)"
    return f"{text}. {_convention(sweep)}"


def _convention(sweep: Sweep) -> str:
    text = f"{sweep.fit['convention']}."
    others = Counter(t.status.state for t in sweep.trials if not t.finished)
    if others:
        text += " Not finished: " + ", ".join(f"{number} {state}" for state, number in sorted(others.items())) + "."
    return text


def figures(sweep: Sweep) -> list[Figure]:
    """The numbers to see first: of the exponents those of D* and N_opt and the next that there is; of the floors the
    losses that were observed and the next."""
    observed = [e for e in sweep.estimates(FLOOR) if "references" in e["details"]]
    chosen = []
    for first, group, digits in ((sweep.estimates(EXPONENT)[:2], EXPONENT, 3), (observed, FLOOR, 4)):
        more = [e for e in sweep.estimates(group) if e not in first and e["value"] is not None]
        chosen += [(estimate, digits) for estimate in (*first, *more[: _OF_EACH - len(first)])]
    return [_figure(estimate, digits) for estimate, digits in chosen]


def _figure(estimate: dict[str, Any], digits: int) -> Figure:
    if estimate["value"] is None:
        return Figure(estimate["estimand"], "refused", estimate["refusal"])
    return Figure(estimate["estimand"], f"{estimate['value']:.{digits}g}", _interval(estimate["interval"]))


def passages(sweep: Sweep) -> list[Passage]:
    """A passage for each group of estimates, the networks' inside, what was refused, and warnings."""
    before: dict[str, list[str]] = {EXPONENT: _dstar(sweep), FLOOR: _passed_below(sweep)}
    after: dict[str, list[str]] = {EXPONENT: _tally(sweep.estimates(EXPONENT))}
    found = []
    for group in dict.fromkeys((EXPONENT, FLOOR, *sweep.groups)):
        made = [estimate for estimate in sweep.estimates(group) if estimate["value"] is not None]
        made.sort(key=lambda estimate: "references" not in estimate["details"])
        sentences = (*before.get(group, []), *(say(e, made) for e in made), *after.get(group, []))
        found.append(Passage(_HEADINGS.get(group, group[:1].upper() + group[1:]), sentences))
    found += [
        Passage("Inside the networks", tuple(_inside(sweep))),
        Passage("Refused", tuple(_refusals(sweep))),
        Passage("To keep in mind", tuple(_sentence(warning) for warning in sweep.fit["warnings"])),
    ]
    return [passage for passage in found if passage.sentences]


def _refusals(sweep: Sweep) -> list[str]:
    """What was refused, by its reason."""
    reasons: dict[str, list[str]] = {}
    for estimate in sweep.fit["estimates"]:
        if estimate["value"] is None:
            reasons.setdefault(estimate["refusal"], []).append(estimate["estimand"])
    return [f"{_capital('; '.join(dict.fromkeys(names)))}: {reason}." for reason, names in reasons.items()]


def say(estimate: dict[str, Any], same: Sequence[dict[str, Any]] = ()) -> str:
    """One estimate in a sentence: value, interval, and which hypotheses the data reject.

    The objective is named where another of `same` has the same estimand.
    """
    name = _capital(estimate["estimand"])
    if sum(other["estimand"] == estimate["estimand"] for other in same) > 1:
        name += f" (by {estimate['objective'].partition(',')[0]})"
    text = f"{name}: {estimate['value']:.4g}, {_interval(estimate['interval'])}, {_count(estimate['used'], 'point')}."
    return f"{text} {verdict(estimate['hypotheses'])}".strip()


def _capital(text: str) -> str:
    """A capital first letter, but for a symbol that stands alone."""
    return text[0].upper() + text[1:] if text[1:2].isalpha() else text


def verdict(tests: Sequence[dict[str, Any]]) -> str:
    """Which hypotheses the data reject at the 5 % level, and which they do not."""
    if not tests:
        return ""
    rejected = _named([test for test in tests if test["rejected"]])
    standing = _named([test for test in tests if not test["rejected"]])
    parts = [f"Rejected at 5 %: {rejected}." if rejected else "", f"Not rejected: {standing}." if standing else ""]
    return " ".join(part for part in parts if part)


def _named(tests: Sequence[dict[str, Any]]) -> str:
    """`k = 1, 1.35 or 2` for exponents, the hypotheses' own names otherwise."""
    if tests and all(test["name"].startswith("k = ") for test in tests):
        return "k = " + ", ".join(f"{test['value']:g}" for test in tests)
    return "; ".join(test["name"] for test in tests)


def _tally(exponents: Sequence[dict[str, Any]]) -> list[str]:
    """How many estimates of k reject each hypothesis."""
    tests: dict[float, list[dict[str, Any]]] = {}
    for estimate in exponents:
        for test in estimate["hypotheses"] if estimate["value"] is not None else ():
            tests.setdefault(test["value"], []).append(test)
    if not tests:
        return []
    counts = [f"{row[0]['name']} by {sum(t['rejected'] for t in row)} of {len(row)}" for row in tests.values()]
    text = f"Rejected by these estimates of k: {'; '.join(counts)}."
    if not any(test["rejected"] for row in tests.values() for test in row):
        text += " These runs do not tell the hypotheses apart."
    return [text]


def _inside(sweep: Sweep) -> list[str]:
    """Energies and radii at the last probe of each trial."""
    last = [trial.probes[-1][1] for trial in sweep.finished if trial.probes]
    sentences = []
    shares = [
        [values[key] for values in last if key in values]
        for key in ("energy/global/steps_lowering_E", "energy/global/steps_lowering_E_global")
    ]
    if all(shares):
        layer, whole = (_range([100 * share for share in found], lambda value: f"{value:.0f}") for found in shares)
        sentences.append(
            f"At the last probe, {layer} % of the steps from layer to layer lowered the layer's energy E, {whole} % "
            "the global energy; the theory reads a layer as a majorise-minimise step, which lowers both."
        )
    pairs = [pair for values in last if (pair := _radius(values)) is not None]
    if pairs:
        ratio = _range([radius / star for radius, star in pairs], lambda value: f"{value:.2g}")
        sentences.append(f"The sampled radius of the last layer is {ratio} times r*.")
    return sentences


def _radius(values: dict[str, float]) -> tuple[float, float] | None:
    """Median sampled radius and r* of the last layer."""
    layers = sorted(key.split("/")[1] for key in values if re.fullmatch(r"radius/layer_\d+/r_star", key))
    if not layers or f"radius/{layers[-1]}/sampled_median" not in values:
        return None
    return values[f"radius/{layers[-1]}/sampled_median"], values[f"radius/{layers[-1]}/r_star"]


def _dstar(sweep: Sweep) -> list[str]:
    rows = sweep.detail("dstar") or []
    if not rows:
        return []
    threshold = sweep.fit["settings"].get("threshold")
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


def _passed_below(sweep: Sweep) -> list[str]:
    """Which losses passed below 1, and below the entropy of the corpus; of several corpora, how far from theirs."""
    if sweep.mixed:
        return _beside_entropies(sweep)
    entropy = sweep.fact("entropy_per_token", sweep.finished)
    if entropy is None:
        sentences = ["The entropy of the corpus is not known, so the floor is held against 1 nat per token alone."]
    else:
        sentences = [f"The known entropy of the corpus is {entropy:.4g} nats per token; the claim under test is 1."]
    sentences.append(_passed(sweep, "training", "train_least", 1.0, "1"))
    if entropy is not None:
        sentences.append(_passed(sweep, "training", "train_least", entropy, "the known entropy"))
    sentences.append(_passed(sweep, "validation", "validation_least", 1.0, "1"))
    return [sentence for sentence in sentences if sentence]


def _beside_entropies(sweep: Sweep) -> list[str]:
    """How the least losses of several corpora lie beside the entropies that are known."""
    sentences = [f"The runs read {len(sweep.mixed)} corpora; each loss stands beside the entropy of its own."]
    for name in ("least settled train loss", "least validation loss"):
        pairs = sweep.beside_entropy(name)
        if len(pairs) > 1:
            entropies = _range([entropy for entropy, _ in pairs], lambda value: f"{value:.4g}")
            over = _range([row["value"] - entropy for entropy, row in pairs], lambda value: f"{value:+.2g}")
            sentences.append(f"Entropies: {entropies} nats per token. The {name} less the entropy: {over}.")
    return sentences


def _passed(sweep: Sweep, name: str, key: str, limit: float, said: str) -> str:
    runs = [(getattr(t.result.losses, key), t) for t in sweep.finished if t.result]
    known = [(value, trial) for value, trial in runs if value is not None and math.isfinite(value)]
    below = [pair for pair in known if pair[0] < limit]
    if not known:
        return ""
    if not below:
        return f"The {name} loss passed below {said} in 0 of {_count(len(known), 'run')}."
    least, trial = min(below, key=lambda pair: pair[0])
    text = (
        f"The {name} loss passed below {said} in {len(below)} of {_count(len(known), 'run')}, least {least:.4g} at "
        f"N = {format_size(trial.N or 0)}, D = {format_size(trial.D or 0)}"
    )
    if name == "training" and said == "1":
        text += ": 1 nat per token is no bound on the training loss of these runs. (The bound was stated per pattern.)"
        return text
    return text + "."


def _interval(interval: tuple[float, float] | None) -> str:
    return "no interval" if interval is None else f"95 % interval {interval_text(interval)}"


def _range(values: Sequence[float], written: Any) -> str:
    low, high = written(min(values)), written(max(values))
    return low if low == high else f"{low} to {high}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
