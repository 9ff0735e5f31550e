"""The corpora that the runs of a sweep read. Estimates over several of them together would hold for none."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from amscale.errors import InputError
from amscale.scaling.estimate import Estimate
from amscale.scaling.floor import floors, references
from amscale.scaling.points import Point, PointTable
from amscale.settings import format_value, parse_size

_AMOUNTS = {"size", "documents"}
"""Settings for the amount of a corpus; more of a corpus is the same corpus."""


def by_corpus(table: PointTable) -> dict[str, PointTable]:
    """Split points by corpus, labelled with the settings by which the corpora differ: `data.word_classes=half`.

    There is one entry, with an empty label, where all points read the same corpus.
    """
    names = _differing(table.points)
    found: dict[str, PointTable] = {}
    for point in table.points:
        label = ",".join(f"data.{name}={format_value(_corpus(point).get(name))}" for name in names)
        if label not in found:
            found[label] = PointTable(table.source, table.convention, [], list(table.left_out))
        found[label].points.append(point)
    return found


def select_trials(table: PointTable, where: str | None) -> PointTable:
    """Select the points whose settings match `where`, `key=value` or several joined by commas.

    Raises:
        InputError: `where` is malformed, or no point has these settings.
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


def estimates_of_corpora(table: PointTable, corpora: dict[str, PointTable]) -> list[Estimate]:
    """Return the floors of each corpus, by ascending entropy, after a row that says why there is no exponent.

    The id of a floor ends in the settings that tell its corpus from the others: `floor_validation_variant_half`.
    """
    no_exponent = Estimate(
        id="k_all_corpora",
        estimand="exponent k and laws in N and D",
        convention=table.convention,
        objective="",
        method="",
        used=len(table.points),
        left_out=table.reasons,
        reason=f"the points are of {len(corpora)} corpora, and a law over all of them holds for none; "
        f"--where '{next(iter(corpora))}' fits one",
    )
    entropies = {label: references(each).get("entropy") for label, each in corpora.items()}
    ladder = sorted(corpora, key=lambda label: (entropies[label] or 0.0, label))
    known = {label: f"; entropy {value:.4g}" for label, value in entropies.items() if value is not None}
    by_floor = zip(*(floors(corpora[label]) for label in ladder), strict=True)
    suffixes = _id_suffixes(ladder)
    return [no_exponent] + [
        floor.model_copy(
            update={
                "id": f"{floor.id}_{suffixes[label]}",
                "estimand": f"{floor.estimand}: {_describe(label)}{known.get(label, '')}",
                "details": floor.details | {"corpus": _describe(label)},
            }
        )
        for same in by_floor
        for label, floor in zip(ladder, same, strict=True)
    ]


def _id_suffixes(labels: Sequence[str]) -> dict[str, str]:
    """Return `word_classes_half` for `data.word_classes=half`, with a hash where two labels would share theirs."""
    texts = {label: re.sub(r"[^a-z0-9]+", "_", label.lower().replace("data.", "")).strip("_") for label in labels}
    counts = Counter(texts.values())
    return {
        label: text if text and counts[text] == 1 else f"{text}_{sha256(label.encode()).hexdigest()[:8]}".strip("_")
        for label, text in texts.items()
    }


def _describe(label: str) -> str:
    """Return `word classes half, copies 2` for `data.word_classes=half,data.copies=2`."""
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


def _having(table: PointTable, key: str, text: str) -> PointTable:
    kept = [point for point in table.points if _is(_setting(point, key), text)]
    names = {point.name for point in kept}
    others = [point for point in table.points if point.name not in names]
    left_out = table.left_out + [(point.name, f"{key} is {format_value(_setting(point, key))}") for point in others]
    hopeless = [point for point in table.hopeless if _is(_setting(point, key), text)]
    return replace(table, points=kept, left_out=left_out, warnings=list(table.warnings), hopeless=hopeless)


def _is(value: Any, text: str) -> bool:
    """Return whether a setting has the value that a command line writes as `text`; sizes may be written as 8k."""
    if text == format_value(value):
        return True
    try:
        return isinstance(value, int | float) and value == (parse_size(text) if isinstance(value, int) else float(text))
    except ValueError:
        return False


def _hint(table: PointTable) -> str:
    names = _differing(table.points)
    return "its corpora differ in " + ", ".join(f"data.{name}" for name in names) if names else "all read one corpus"
