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
from amscale.scaling.table_rows import Condition
from amscale.settings import format_value

_AMOUNTS = {"size", "documents"}
"""Settings for the amount of a corpus; more of a corpus is the same corpus."""


def by_corpus(table: PointTable) -> dict[str, PointTable]:
    """Split points by corpus, labelled with the settings by which the corpora differ: `data.word_classes=half`.

    There is one entry, with an empty label, where all points read the same corpus.
    """
    names = _telling_apart(table.points, _differing(table.points))
    found: dict[str, PointTable] = {}

    def of(point: Point) -> PointTable:
        label = ",".join(f"data.{name}={format_value(_corpus(point).get(name))}" for name in names)
        return found.setdefault(label, table.with_points([], []))

    for point in table.points:
        of(point).points.append(point)
    for point in table.others:
        of(point).others.append(point)
    return found


def _telling_apart(points: Sequence[Point], names: Sequence[str]) -> list[str]:
    """Return names without those that the others make superfluous: of corpora of two kinds the kind says it all."""

    def groups(kept: Sequence[str]) -> int:
        return len({tuple(repr(_corpus(point).get(name)) for name in kept) for point in points})

    kept = list(names)
    for name in sorted(names, key=lambda name: name == "corpus"):
        without = [other for other in kept if other != name]
        if groups(without) == groups(names):
            kept = without
    return kept


def select_trials(table: PointTable, where: str | None, name: str = "where") -> PointTable:
    """Select the points whose settings are as `where` says, conditions such as `key=value` joined by commas.

    Beside settings, N, D, tokens, flops, loss and seed are known, as in `N<10M`.

    Raises:
        InputError: `where` is malformed, or no point has these settings.
    """
    if where is None:
        return table
    for part in str(where).split(","):
        condition = Condition.parse(part)
        if condition is None:
            raise InputError(
                f"{name}={where!r} must be settings as key=value joined by commas, such as data.copies=2 or N<10M"
            )
        key = condition.name
        values = [_setting(point, key) for point in table.points]
        if all(value is None for value in values):
            raise InputError(f"{name}={where!r}: no finished trial has a setting {key!r}; {_hint(table)}")
        table = _having(table, condition)
        if not table.points:
            has = ", ".join(sorted(set(map(format_value, values))))
            raise InputError(f"{name}={where!r}: no trial is left; {key} is one of {has}")
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


_COLUMNS = ("N", "D", "tokens", "flops", "loss", "seed")


def _setting(point: Point, key: str) -> Any:
    if key in _COLUMNS:
        return getattr(point, key)
    return point.result.setting(key) if point.result else None


def _having(table: PointTable, condition: Condition) -> PointTable:
    def holds(point: Point) -> bool:
        value = _setting(point, condition.name)
        # A setting that is a text, a list or nothing is compared as a command line writes it.
        plain = value if isinstance(value, int | float) and not isinstance(value, bool) else format_value(value)
        return condition.holds(plain)

    kept = [point for point in table.points if holds(point)]
    names = {point.name for point in kept}
    others = [point for point in table.points if point.name not in names]
    key = condition.name
    left_out = table.left_out + [(point.name, f"{key} is {format_value(_setting(point, key))}") for point in others]
    hopeless = [point for point in table.hopeless if holds(point)]
    return replace(table, points=kept, left_out=left_out, warnings=list(table.warnings), hopeless=hopeless)


def _hint(table: PointTable) -> str:
    names = _differing(table.points)
    return "its corpora differ in " + ", ".join(f"data.{name}" for name in names) if names else "all read one corpus"
