"""The verdict on a fit in sentences, made by rules from its estimates and never stronger than these."""

from collections.abc import Sequence

from amscale.scaling.estimate import CAPACITY, EXPONENT, FLOOR, Estimate, interval_text

_SUBJECTS = {EXPONENT: "Exponents k of N ∝ D^k", FLOOR: "Loss floors, nats per token", CAPACITY: "Capacity"}


def verdict(estimates: Sequence[Estimate]) -> str:
    """Return sentences, one a line: values by group, which hypotheses are rejected by which, what is not determined."""
    sentences = []
    for group in dict.fromkeys(estimate.group for estimate in estimates):
        determined = [item for item in estimates if item.group == group and item.value is not None]
        sentences += [_values(group, determined), *_tests(determined)] if determined else []
    if sum(len(item.tests) for item in estimates if item.value is not None) > 1:
        sentences.append("Each test is at the 5 % level by itself, whatever the others say.")
    return "\n".join([*sentences, *_not_determined(estimates)])


def _values(group: str, determined: Sequence[Estimate]) -> str:
    texts = []
    for item in determined:
        interval = "no interval" if item.interval is None else f"95 % interval {interval_text(item.interval)}"
        texts.append(f"{item.id} {item.value:.4g} ({interval})")
    return f"{_SUBJECTS.get(group, group)}: {'; '.join(texts)}."


def _tests(determined: Sequence[Estimate]) -> list[str]:
    """Return a sentence for each hypothesis: the ids of the estimates that reject it, and of those that do not."""
    results: dict[str, dict[bool, list[str]]] = {}
    for item in determined:
        for test in item.tests:
            results.setdefault(test.name, {}).setdefault(test.rejected, []).append(item.id)
    sentences = []
    for name, ids in results.items():
        parts = []
        if True in ids:
            parts.append(f"rejected by {', '.join(ids[True])}")
        if False in ids:
            parts.append(f"not rejected by {', '.join(ids[False])}")
        sentences.append(f"“{name}” is {'; '.join(parts)}.")
    if results and not any(True in ids for ids in results.values()):
        sentences.append("These points do not tell the hypotheses apart.")
    return sentences


def _not_determined(estimates: Sequence[Estimate]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for item in estimates:
        if item.value is None:
            reasons.setdefault(item.reason or "no reason recorded", []).append(item.id)
    if not reasons:
        return []
    texts = [f"{', '.join(ids)} ({reason})" for reason, ids in reasons.items()]
    return [f"Not determined: {'; '.join(texts)}."]
