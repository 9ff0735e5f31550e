"""Which corpora the runs of a sweep read: what is estimated over several of them together holds for none."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from amscale.errors import InputError
from amscale.scaling.estimate import Estimate
from amscale.scaling.floor import floors, references
from amscale.scaling.points import Point, Points
from amscale.settings import format_value, parse_size

_AMOUNTS = {"size", "documents"}
"""Settings of a corpus that say how much of it there is; more of one corpus is no other corpus."""


def by_corpus(table: Points) -> dict[str, Points]:
    """The points of each corpus, by the settings that tell it from the others: `data.word_classes=half`.

    One entry, of an empty name, where all points read the same corpus.
    """
    names = _differing(table.points)
    found: dict[str, Points] = {}
    for point in table.points:
        label = ",".join(f"data.{name}={format_value(_corpus(point).get(name))}" for name in names)
        if label not in found:
            found[label] = Points(table.source, table.convention, [], list(table.left_out))
        found[label].points.append(point)
    return found


def chosen(table: Points, where: str | None) -> Points:
    """The points whose settings are as `where` says, `key=value` or several of them joined by commas.

    Raises:
        InputError: it says something else, or no point has these settings.
    """
    if where is None:
        return table
    for part in str(where).split(","):
        key, equals, text = map(str.strip, part.partition("="))
        if not key or not equals:
            raise InputError(f"where={where!r} must be settings as key=value joined by commas, such as data.copies=2")
        values = [_setting(point, key) for point in table.points]
        if all(value is None for value in values):
            raise InputError(f"where={where!r}: no finished trial has a setting {key!r}; {_hint(table)}")
        table = _having(table, key, text)
        if not table.points:
            has = ", ".join(sorted(set(map(format_value, values))))
            raise InputError(f"where={where!r}: no trial is left; {key} is one of {has}")
    return table


def estimates_of_corpora(table: Points, corpora: dict[str, Points]) -> list[Estimate]:
    """A refusal of what would need one corpus, and the floors of each, in the order of the entropies that are known."""
    refused = Estimate(
        estimand="exponent k and laws in N and D",
        convention=table.convention,
        objective="",
        method="",
        used=len(table.points),
        left_out=table.reasons,
        refusal=f"the points are of {len(corpora)} corpora, and a law over all of them holds for none; "
        f"--where '{next(iter(corpora))}' fits one",
    )
    entropies = {label: references(each).get("entropy") for label, each in corpora.items()}
    ladder = sorted(corpora, key=lambda label: (entropies[label] or 0.0, label))
    known = {label: f"; entropy {value:.4g}" for label, value in entropies.items() if value is not None}
    by_floor = zip(*(floors(corpora[label]) for label in ladder), strict=True)
    return [refused] + [
        replace(
            floor,
            estimand=f"{floor.estimand}: {_in_words(label)}{known.get(label, '')}",
            details=floor.details | {"corpus": _in_words(label)},
        )
        for same in by_floor
        for label, floor in zip(ladder, same, strict=True)
    ]


def _in_words(label: str) -> str:
    """`word classes half, copies 2` of `data.word_classes=half,data.copies=2`."""
    parts = (part.removeprefix("data.").partition("=") for part in label.split(","))
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, _, value in parts)


def _corpus(point: Point) -> dict[str, Any]:
    return point.result.section("data") if point.result else {}


def _differing(points: Sequence[Point]) -> list[str]:
    known = [corpus for point in points if (corpus := _corpus(point))]
    names = sorted({name for corpus in known for name in corpus} - _AMOUNTS)
    return [name for name in names if any(corpus.get(name) != known[0].get(name) for corpus in known)]


def _setting(point: Point, key: str) -> Any:
    return point.result.setting(key) if point.result else None


def _having(table: Points, key: str, text: str) -> Points:
    kept = [point for point in table.points if _is(_setting(point, key), text)]
    names = {point.name for point in kept}
    others = [point for point in table.points if point.name not in names]
    left_out = table.left_out + [(point.name, f"{key} is {format_value(_setting(point, key))}") for point in others]
    return Points(table.source, table.convention, kept, left_out, list(table.warnings))


def _is(value: Any, text: str) -> bool:
    """Whether a setting has the value that a command line writes as `text`; sizes may be written as 8k."""
    if text == format_value(value):
        return True
    try:
        return isinstance(value, int | float) and value == (parse_size(text) if isinstance(value, int) else float(text))
    except ValueError:
        return False


def _hint(table: Points) -> str:
    names = _differing(table.points)
    return "its corpora differ in " + ", ".join(f"data.{name}" for name in names) if names else "all read one corpus"
