"""The answer to how N grows with D: which exponents k the intervals of the estimates leave out."""

import math
from collections.abc import Sequence

from amscale.scaling.answer import Answer, by_law, counted_noun, names_of, range_of
from amscale.scaling.conditions import SAID_TO_BE_TUNED
from amscale.scaling.design import no_exponent
from amscale.scaling.estimate import EXPONENT, Estimate, interval_test, interval_text
from amscale.scaling.laws.compare import Comparison
from amscale.scaling.points import Point, PointTable
from amscale.scaling.power_law import exponents as inverse_interval
from amscale.scaling.power_law import hypothesis_name
from amscale.settings import format_size

_SUBJECTS = {
    "k_dstar": "At D*(N), the least D on which N parameters do not over-fit",
    "k_nopt": "At N_opt(D), the N of least loss on D tokens",
    "k_isoflop": "At N_opt(C), the N of least loss for a compute of C",
    "k_isoloss": "Where a given loss takes the least compute",
    "k_collapse": "Where all losses collapse onto one curve of N/D^k",
    "capacity_slope": "By the bits that N parameters memorise, C ∝ N^(1/k)",
}
"""The estimates of k that rest on no law, in the order to read them; a recommended law's follows."""


def answer_on_k(
    table: PointTable, estimates: Sequence[Estimate], hypotheses: Sequence[float], laws: Sequence[Comparison]
) -> Answer:
    """Return what the estimates say of k in N ∝ D^k, which values they reject, and what they cannot say.

    Args:
        table: the points.
        estimates: all of their fit.
        hypotheses: values of k that were tested.
        laws: the laws on these points, by which a law's k counts where no other law describes them as well.
    """
    exponents = [item for item in estimates if item.group == EXPONENT]
    chosen = _chosen([*exponents, *(_of_capacity(item, hypotheses) for item in estimates if item.id == _CAPACITY)])
    rivals = {item.id: _rivals(item, exponents, laws) for item in chosen}
    determined = [item for item in chosen if item.value is not None]
    firm = [item for item in determined if not rivals[item.id]]
    says = [_sentence_on_k(item, rivals[item.id]) for item in determined]
    others = [item.value for item in exponents if item.value is not None and item not in chosen]
    if others:
        describe = "describes" if len(others) == 1 else "describe"
        says.append(f"{counted_noun(len(others), 'law')} that {describe} these runs less well: k = {range_of(others)}.")
    if sum(len(item.tests) for item in firm) > 1 and any(item.rejected for item in firm):
        says.append("Each value is tested at the 5 % level by itself.")
    return Answer(
        question=f"Does N grow as D^k, with k = {names_of(hypotheses, 'or')}?",
        headline=_headline_on_k(firm, hypotheses),
        says=tuple(says),
        cannot_say=(*_undetermined(table, chosen, exponents), *_conditions(table, determined)),
    )


def _rivals(item: Estimate, exponents: Sequence[Estimate], laws: Sequence[Comparison]) -> list[str]:
    """Return the laws that describe the points as well as the law of an estimate, by AICc, and leave k open."""
    scores = {law.id: law.aicc for law in laws if law.objective == "squared_log" and law.aicc is not None}
    own = scores.get(item.details.get("id", ""))
    if own is None:
        return []
    open_ = {other.details["id"]: other.details["law"] for other in exponents if _is_law(other) and other.value is None}
    return [name for id, name in open_.items() if id in scores and scores[id] <= own + _AS_WELL]


def _is_law(item: Estimate) -> bool:
    return bool(item.details.get("law")) and "id" in item.details


_AS_WELL = 2.0
"""Laws whose AICc differ by less describe the points as well as each other (Burnham & Anderson)."""
_CAPACITY = "capacity_slope"


def _of_capacity(slope: Estimate, hypotheses: Sequence[float]) -> Estimate:
    """Return the k that a slope of ln C on ln N implies: D tokens of which each holds its bits need N ∝ D^(1/slope)."""
    if slope.value is None or slope.interval is None or slope.value <= 0:
        return slope.model_copy(update={"value": None, "interval": None, "tests": ()})
    interval = inverse_interval(slope.interval)
    tests = tuple(interval_test(hypothesis_name(k), k, interval, "t interval") for k in hypotheses)
    return slope.model_copy(update={"value": 1 / slope.value, "interval": interval, "tests": tests})


def _chosen(exponents: Sequence[Estimate]) -> list[Estimate]:
    """Return the estimates of k to read: those that rest on no law, and that of the recommended law."""
    by_id = {item.id: item for item in exponents}
    free = [by_id[id] for id in _SUBJECTS if id in by_id]
    return free + [item for item in exponents if item.details.get("recommended") and item not in free]


def _subject(item: Estimate) -> str:
    return _SUBJECTS.get(item.id) or by_law(item)


def _sentence_on_k(item: Estimate, rivals: Sequence[str] = ()) -> str:
    text = f"{_subject(item)}{item.details.get('choice', '')}: k = {item.value:.3g}"
    if rivals:
        interval = "" if item.interval is None else f" (95 % interval {interval_text(item.interval)})"
        verbs = ("describes", "leaves") if len(rivals) == 1 else ("describe", "leave")
        return f"{text}{interval}; but {' and '.join(rivals)} {verbs[0]} these runs as well, and {verbs[1]} k open."
    if item.interval is None:
        return f"{text}, without an interval: nothing is tested."
    moved = item.details.get("for_tuned_runs")
    of_tuned = "" if moved is None else f"; of tuned runs it may be {interval_text(tuple(moved))}"
    text += f" (95 % interval {interval_text(item.interval)}{of_tuned})"
    kept = [test.value for test in item.tests if not test.rejected]
    if item.rejected and kept:
        return f"{text}: {names_of(item.rejected)} {_are(item.rejected)} rejected; {names_of(kept)} {_are(kept)} not."
    if item.rejected:
        return f"{text}: {names_of(item.rejected)} {_are(item.rejected)} rejected."
    return f"{text}: none of them is rejected." if kept else f"{text}."


def _are(values: Sequence[float]) -> str:
    return "is" if len(values) == 1 else "are"


def _headline_on_k(determined: Sequence[Estimate], hypotheses: Sequence[float]) -> str:
    tested = [item for item in determined if item.tests]
    if not determined:
        return "These runs do not determine k."
    if not tested:
        return "k is estimated without intervals, so nothing is rejected."
    known = {test.value for item in tested for test in item.tests}
    counts = {k: sum(k in item.rejected for item in tested) for k in hypotheses if k in known}
    kept = [k for k, count in counts.items() if not count]
    if len(kept) == len(counts):
        return f"These runs do not tell k = {names_of(counts)} apart."
    apart = _disjoint(tested)
    if apart is not None:
        found = [f"{_value(item)} by {_SHORT.get(item.id, item.estimand)}" for item in apart]
        return f"k depends on the question: it is {found[0]}, and {found[1]}."
    if len(tested) == 1:
        rejected = [k for k, count in counts.items() if count]
        kept_text = f"; {names_of(kept)} {_are(kept)} not" if kept else ", all that were tested"
        return f"k = {names_of(rejected)} {_are(rejected)} rejected{kept_text}."
    total = len(tested)
    parts: list[str] = []
    for count in sorted(set(counts.values()) - {0}, reverse=True):
        values = [k for k in counts if counts[k] == count]
        many = f"all {total}" if count == total else f"{count} of {total}"
        verb = f" {_are(values)} rejected" if not parts else ""
        parts.append(f"{names_of(values)}{verb} by {many}{' estimates' if not parts else ''}")
    parts += [f"{names_of(kept)} by none"] if kept else []
    return f"k = {', '.join(parts)}."


def _value(item: Estimate) -> str:
    """Return `1.09 (95 % interval 0.914 to 1.34)`, or the interval alone where an end is open."""
    assert item.interval is not None
    text = interval_text(item.interval)
    return text if math.isinf(item.interval[1]) else f"{item.value:.3g} (95 % interval {text})"


def _disjoint(tested: Sequence[Estimate]) -> tuple[Estimate, Estimate] | None:
    """Return the first two estimates whose intervals have nothing in common, one that is bounded first."""
    tested = sorted(tested, key=lambda item: item.interval is None or math.isinf(item.interval[1]))
    for index, one in enumerate(tested):
        for other in tested[index + 1 :]:
            if (
                one.interval
                and other.interval
                and (one.interval[1] < other.interval[0] or other.interval[1] < one.interval[0])
            ):
                return one, other
    return None


_MOST_REASONS = 3
_SHORT = {
    "k_dstar": "D*(N)",
    "k_nopt": "N_opt(D)",
    "k_isoflop": "N_opt(C)",
    "k_isoloss": "iso-loss",
    "k_collapse": "the collapse of losses onto one curve",
    _CAPACITY: "memorised bits",
}


def _undetermined(table: PointTable, chosen: Sequence[Estimate], exponents: Sequence[Estimate]) -> list[str]:
    """Return why estimates of k have no value, those of one reason in one line."""
    everywhere = no_exponent(table) if table.points else "there are no points"
    if everywhere and not any(item.id in ("k_all_corpora", "k_all_kinds") for item in exponents):
        return [f"k: {everywhere}."]
    reasons: dict[str, list[str]] = {}
    for item in chosen or exponents:
        if item.value is None:
            reasons.setdefault(item.reason or "no reason recorded", []).append(_SHORT.get(item.id, item.estimand))
    found = [f"k by {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    if len(found) > _MOST_REASONS:
        others = [name for names in list(reasons.values())[_MOST_REASONS:] for name in names]
        found = [*found[:_MOST_REASONS], f"k by {', '.join(others)}: not determined either."]
    fitted = [item for item in exponents if _is_law(item)]
    if fitted and not any(item.value is not None for item in fitted):
        found.append(
            f"k by a law: none of the {counted_noun(len(fitted), 'law')} fitted has one that these runs support."
        )
    return found


_NUISANCES = {
    "learning_rate": ("learning rate", lambda value: f"{value:.3g}"),
    "batch_tokens": ("batch", lambda value: f"{format_size(value)} tokens"),
}


def _conditions(table: PointTable, determined: Sequence[Estimate]) -> list[str]:
    """Return what the values of k are conditional on: a learning rate or a batch that all runs share."""
    if not determined or not table.points:
        return []
    tuned = {axis.rpartition(".")[2] for point in table.points for axis in point.settings}
    if not tuned and all(point.result is None for point in table.points):
        if all(SAID_TO_BE_TUNED in item.details.get("conditions", ()) for item in determined):
            return []
        return ["k of tuned runs: a table does not say how its runs were tuned, and k may follow from that."]
    shared = {name: _shared(table.points, f"train.{name}") for name in _NUISANCES if name not in tuned}
    parts = [
        f"one {_NUISANCES[name][0]}, {_NUISANCES[name][1](value)}"
        for name, value in shared.items()
        if value is not None
    ]
    if not parts:
        return []
    return [f"k of tuned runs: all N and D were trained at {', and '.join(parts)}, and k may follow from that."]


def _shared(points: Sequence[Point], key: str) -> float | None:
    """Return the number that a setting is in all runs; None where it varies, is a rule, or is not recorded."""
    values = {point.result.setting(key) if point.result else None for point in points}
    value = values.pop() if len(values) == 1 else None
    return float(value) if isinstance(value, int | float) else None
