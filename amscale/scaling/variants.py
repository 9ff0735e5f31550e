"""Trials of one N and D that differ in further settings: which are tuned by cell, and which of the others stand."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from amscale.config.rules import is_rule
from amscale.errors import InputError
from amscale.files import parse_yaml, read_text
from amscale.policies import POLICIES
from amscale.scaling.points import Point, PointTable
from amscale.scaling.several_corpora import by_corpus
from amscale.settings import format_value

_SECTIONS = ("model", "train")
_SIZE = {"model.size", "model.count"}
"""How N was asked for, which says nothing beside N."""


def tuned_settings(folder: str | Path) -> tuple[str, ...]:
    """Return the dotted keys under `tune` in a sweep's configuration; none in a folder without one."""
    axes = _configuration(folder).get("tune")
    axes = axes.get("axes", axes) if isinstance(axes, dict) else {}
    return tuple(key for key, values in axes.items() if isinstance(values, list | tuple))


def following_settings(folder: str | Path) -> tuple[str, ...]:
    """Return the keys of `train` that rules or a policy set: they follow from N, D and what is tuned."""
    train = _configuration(folder).get("train")
    if not isinstance(train, dict):
        return ()
    rules = [key for key, value in train.items() if isinstance(value, str) and is_rule(value)]
    name = train.get("policy")
    policy = list(POLICIES[name].sets) if name in list(POLICIES) else []
    keys = dict.fromkeys(f"train.{key}" for key in [*rules, *policy])
    grid = _configuration(folder).get("grid")
    return tuple(key for key in keys if not isinstance(grid, dict) or key not in grid)


def _configuration(folder: str | Path) -> dict[str, Any]:
    marker = Path(folder) / "sweep.yaml"
    if not marker.is_file():
        return {}
    try:
        tree = parse_yaml(read_text(marker))
    except ValueError as error:
        raise InputError(f"{marker}: {error}; run the sweep again to write it anew") from None
    return tree if isinstance(tree, dict) else {}


def choose_variants(table: PointTable, axes: Sequence[str], following: Collection[str] = ()) -> None:
    """Keep of the trials of a cell those of one variant; give the points their settings along `axes`.

    A variant is what a cell's trials have in the settings in which they differ, but for seed, `axes` and what follows
    from them. Its seeds are averaged before variants are compared: the least of single runs would be the luckiest.
    """
    table.points = [replace(point, settings=_settings(point, axes)) for point in table.points]
    table.hopeless = [replace(point, settings=_settings(point, axes)) for point in table.hopeless]
    cells: dict[tuple[str, float, float], list[Point]] = {}
    for label, each in by_corpus(table).items():
        for point in each.points:
            cells.setdefault((label, point.N, point.D), []).append(point)
    kept: set[str] = set()
    dropped: list[tuple[str, str]] = []
    for points in cells.values():
        keys = _differing(points, {*axes, *following})
        variants: dict[str, list[Point]] = {}
        for point in points:
            variants.setdefault(_describe(point, keys), []).append(point)
        best = min(variants, key=lambda name: _mean_at_best(variants[name]))
        kept |= {point.name for point in variants[best]}
        dropped += [
            (point.name, f"same N and D as with {best}, which has the lower mean validation loss over seeds")
            for name, others in variants.items()
            if name != best
            for point in others
        ]
    table.left_out += dropped
    if dropped:
        table.warnings.append(
            f"{len(dropped)} trials share N and D with others of better settings and were left out; --where fits one "
            "setting, and --tune interpolates the best value of one"
        )
    table.others = [point for point in table.points if point.name not in kept]
    table.points = [point for point in table.points if point.name in kept]


def by_setting(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Return the runs of one cell by the settings in which they differ, seeds together: `train.learning_rate=0.01`.

    The key is empty where they differ in none.
    """
    keys = _differing(points, ())
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(_describe(point, keys), []).append(point)
    return found


def _settings(point: Point, axes: Sequence[str]) -> dict[str, float]:
    found = {axis: point.result.setting(axis) if point.result else None for axis in axes}
    wrong = [axis for axis, value in found.items() if isinstance(value, bool) or not isinstance(value, int | float)]
    if wrong:
        raise InputError(
            f"tune={wrong[0]}: {point.name} has {wrong[0]}={found[wrong[0]]!r}; tuning interpolates settings that are "
            "numbers, such as train.learning_rate"
        )
    return {axis: float(value) for axis, value in found.items() if value is not None}


def _mean_at_best(points: Sequence[Point]) -> float:
    """Return the least over tuned settings of the mean loss over seeds."""
    groups: dict[tuple[float, ...], list[float]] = {}
    for point in points:
        groups.setdefault(tuple(point.settings.values()), []).append(point.loss)
    return min(float(np.mean(losses)) for losses in groups.values())


def _differing(points: Sequence[Point], left_out: Collection[str]) -> list[str]:
    """Return the keys that all of a cell's trials have, and in which they differ."""
    settings = [point.result.settings for point in points if point.result]
    keys = []
    for name in _SECTIONS:
        sections = [tree.get(name) for tree in settings]
        if len(settings) == len(points) and all(isinstance(section, dict) for section in sections):
            shared = set.intersection(*(set(section) for section in sections if section is not None))
            keys += [f"{name}.{key}" for key in sorted(shared)]
    keys += ["launch.precision"]
    return [key for key in keys if key not in {*left_out, *_SIZE} and len({_value(p, key) for p in points}) > 1]


def _value(point: Point, key: str) -> str:
    return format_value(point.result.setting(key)) if point.result else ""


def _describe(point: Point, keys: Sequence[str]) -> str:
    return ", ".join(f"{key}={_value(point, key)}" for key in keys)
