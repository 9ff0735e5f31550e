"""An answer of a verdict, and the words that answers share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from amscale.scaling.estimate import Estimate


@dataclass(frozen=True)
class Answer:
    """What runs say to one question: a headline, sentences with the numbers behind it, and what they cannot say."""

    question: str
    headline: str
    says: tuple[str, ...]
    cannot_say: tuple[str, ...]


def names_of(values: Iterable[float], last: str = "and") -> str:
    """Return `½, 1 and 2` for 0.5, 1 and 2."""
    texts = ["½" if value == 0.5 else f"{value:.4g}" for value in values]
    return f" {last} ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def by_law(item: Estimate) -> str:
    """Return `By the recommended law (coupled)`, the subject of a sentence on an estimate of a law."""
    recommended = "the recommended law" if item.details.get("recommended") else "the law"
    return f"By {recommended} ({item.details['law']})"


def range_of(values: Sequence[float]) -> str:
    """Return `0.56 to 1.84`."""
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"


def counted_noun(number: int, noun: str) -> str:
    """Return `1 run` or `2 runs`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
