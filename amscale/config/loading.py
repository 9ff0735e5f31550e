"""Load an Experiment from a YAML file and the overrides of a command line, and expand its grid into cells."""

import copy
import difflib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from amscale.config.checking import check, closest, known_keys
from amscale.config.rules import multiple_of
from amscale.config.schema import Experiment, TrainSettings
from amscale.config.written import parse_written, text_at
from amscale.errors import InputError
from amscale.files import packaged, read_text
from amscale.settings import Settings

_SECTIONS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(field.rebuild_annotation()) for name, field in Experiment.model_fields.items()
}
_SCHEMA = TypeAdapter(Experiment)
_MOST_CELLS = 100_000


def section_of(key: str) -> str:
    """Return the first part of a dotted key: `model` of `model.size`."""
    return key.partition(".")[0]


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in a tree of settings.

    Raises:
        InputError: a part of the key is a value, not a section.
    """
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise InputError(f"{key}={value!r}: {parent} is a value, not a section")
    if isinstance(tree.get(last), dict) and not isinstance(value, dict):
        raise InputError(f"{key}={value!r}: {last} is a section here, with {', '.join(tree[last])}; remove these keys")
    tree[last] = value


def assign_axis(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key to a value of its axis; `x0.5` is a multiple of what the tree, or its policy, has for it.

    Raises:
        InputError: as `assign`.
    """
    section, _, name = key.partition(".")
    if section == "train" and isinstance(value, str) and isinstance(tree.get("train"), dict):
        train = tree["train"]
        default = TrainSettings.model_fields[name].default if name in TrainSettings.model_fields else None
        present = train.get(name, "policy" if train.get("policy") else default)
        value = multiple_of(present, value) or value
    assign(tree, key, value)


def expand(experiment: Experiment) -> list[Experiment]:
    """Return the cells of the grid, each an Experiment with an empty grid, in the order of the axes.

    Sections that cells share are validated once, so that 10 000 cells take well under a second.

    Raises:
        InputError: a value of an axis is not allowed, or there are too many cells.
    """
    axes = all_axes(experiment)
    count = math.prod(len(values) for values in axes.values())
    if count > _MOST_CELLS:
        raise InputError(f"grid: {count:,} cells; at most {_MOST_CELLS:,}")
    names = {section_of(key) for key in axes}
    bases = {name: json.dumps(_as_written(getattr(experiment, name))) for name in names}
    cells = []
    for values in itertools.product(*axes.values()):
        assigned = dict(zip(axes, values, strict=True))
        update = {name: check_section(name, bases[name], assigned) for name in names}
        cells.append(experiment.model_copy(update={"grid": {}, "tune": None, **update}))
    return cells


def all_axes(experiment: Experiment) -> dict[str, tuple[Any, ...]]:
    """Return the axes of the grid, and after them those that its cells are tuned over."""
    return experiment.grid | (experiment.tune.axes if experiment.tune else {})


def check_section(name: str, base: str, assigned: Mapping[str, Any]) -> Any:
    """Validate one section with the values that the axes give it.

    Args:
        name: name of the section.
        base: the section without the axes, as JSON.
        assigned: values by dotted key; those of other sections are ignored.

    Raises:
        InputError: a key or value is not allowed.
    """
    in_section = {key: value for key, value in assigned.items() if section_of(key) == name}
    return _validate(name, base, json.dumps(in_section, default=str))


@lru_cache(maxsize=65536)
def _validate(name: str, base: str, assigned: str) -> Any:
    tree = {name: json.loads(base)}
    for key, value in json.loads(assigned).items():
        assign_axis(tree, key, value)
    return check(_SECTIONS[name], tree[name], tree[name], name)


def _as_written(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_unset=True) if isinstance(value, Settings) else value


_AXIS_SECTIONS = ("model", "data", "train", "probes", "launch", "seed")


def split_arguments(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split a command line `[CONFIG] [key=value …]` into path and overrides; without CONFIG the path is quick.yaml."""
    words = [str(argument) for argument in arguments]
    path = words.pop(0) if words and "=" not in words[0] else "quick.yaml"
    return path, words


Override = str | tuple[str, Any]
"""`key=value`, or a dotted key and a value of Python's."""


def load(source: str | Mapping[str, Any], overrides: Sequence[Override] | Mapping[str, Any] = ()) -> Experiment:
    """Read an experiment, apply overrides, and check the whole.

    Args:
        source: a YAML file, of which a bare name is also looked for among the configurations that come with the
            package; or its content as a mapping.
        overrides: `dotted.key=value`, the value read as YAML, or dotted keys and values. A key that is an axis of the
            grid is narrowed to the value (or to the values, for a list).

    Raises:
        InputError: a key or a value is not allowed; names it and what is allowed.
    """
    if isinstance(source, Mapping):
        tree = copy.deepcopy(dict(source))
        written = copy.deepcopy(tree)
    else:
        tree, written = read_configuration(source)
    pairs = overrides.items() if isinstance(overrides, Mapping) else overrides
    given = []
    parsed = _wholes_first([parse_override(pair) for pair in pairs])
    for replaced in {"grid", "tune"} & {key for key, _, _ in parsed}:
        # An axis of a grid that is replaced takes no setting that is given before.
        tree.pop(replaced, None)
        written.pop(replaced, None)
    for key, value, as_written in parsed:
        _override(tree, key, value)
        _override(written, key, as_written)
        given.append(key)
    _refuse_undone(tree.get("grid"), given)
    try:
        return parse(tree, written)
    except InputError as error:
        raise InputError(f"{error}{_of_another_kind(str(error), given, source)}") from None


def _wholes_first(parsed: list[tuple[str, Any, Any]]) -> list[tuple[str, Any, Any]]:
    """Return overrides in their order, but those that replace a section, or others' parent, before what is in it.

    `train.steps=9 train={…}` sets the steps of the section that is given. `grid` and `tune` stay where they are:
    `tune={train.learning_rate: [x1, x2]} train.learning_rate=1e-3` narrows what is tuned, and the other way round the
    rate is what is multiplied.
    """
    keys = [key for key, _, _ in parsed]

    def depth(key: str, value: Any) -> float:
        section = isinstance(value, dict) and "." not in key and key not in ("grid", "tune")
        return key.count(".") if section or any(other.startswith(f"{key}.") for other in keys) else math.inf

    return sorted(parsed, key=lambda one: depth(one[0], one[1]))


def _refuse_undone(grid: Any, given: Sequence[str]) -> None:
    """Raise InputError where a setting was given before a grid that has it as an axis, and would count for nothing."""
    if "grid" in given and isinstance(grid, dict):
        undone = [key for key in given[: given.index("grid")] if key in grid]
        if undone:
            raise InputError(
                f"{undone[0]} is given, and after it a grid with that axis, which undoes it; leave one of them out, or "
                f"give {undone[0]} after grid to narrow the axis"
            )


def _of_another_kind(message: str, given: Sequence[str], source: str | Mapping[str, Any]) -> str:
    """Return advice where another corpus or family was given, and the file has a setting of the one before."""
    for section, kind in (("data", "corpus"), ("model", "family")):
        if f"{section}.{kind}" in given and message.startswith(f"unknown key {section}."):
            key = message.removeprefix("unknown key ").partition("=")[0]
            if key not in given and isinstance(source, str):
                return f"; it is in {source}: {section}={{{kind}: …, …}} replaces the whole section"
    return ""


def _override(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, or narrow the axis of that name."""
    grid = tree["grid"] = tree.get("grid") or {}
    tune = tree.get("tune")
    if isinstance(grid, dict) and (key in grid or key.startswith("grid.")):
        grid[key.removeprefix("grid.")] = value
    elif isinstance(tune, dict) and key in tune:
        tune[key] = value
    elif key.startswith("tune."):
        tree["tune"] = (tune if isinstance(tune, dict) else {}) | {key.removeprefix("tune."): value}
    else:
        assign(tree, key, value)


def parse_override(override: Override) -> tuple[str, Any, Any]:
    """Return the dotted key, the value, and the value with its scalars as they are written.

    Raises:
        InputError: the key or the `=` is missing, or the value is not YAML.
    """
    if not isinstance(override, str):
        return (*override, override[1])
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"{override!r} is not an override; write key=value, for example model.size=25k")
    if re.fullmatch(r"\[[0-9A-Fa-f:.]+\]:[0-9]+", text):  # an IPv6 address and its port; YAML would begin a list
        return key, text, text
    try:
        return (key, *parse_written(text))
    except ValueError as error:
        raise InputError(f"{override!r}: {error}") from None


def parse(tree: dict[str, Any], written: Mapping[str, Any] | None = None) -> Experiment:
    """Validate a tree of settings, and every value of every axis of its grid.

    Args:
        tree: plain data.
        written: the same with scalars as they are written, for settings that are text.

    Raises:
        InputError: a key or a value is not allowed; names the first and what is allowed.
    """
    written = copy.deepcopy(dict(tree if written is None else written))
    tree = copy.deepcopy(tree)
    grid = tree.get("grid") or {}
    for key, values in grid.items() if isinstance(grid, dict) else ():
        if section_of(str(key)) not in _AXIS_SECTIONS:
            close = closest(str(key), tuple(known_keys(Experiment, tree)))
            meant = f"; did you mean grid.{close[0]}?" if close else ""
            raise InputError(f"grid.{key}: not an axis; axes are keys of {', '.join(_AXIS_SECTIONS)}{meant}")
        if values == []:
            raise InputError(f"grid.{key}=[]: an axis needs at least one value")
        # A section is validated with its axes in place: one of them may give a setting that the section requires.
        for each, axis in ((tree, values), (written, written["grid"][key])):
            assign_axis(each, str(key), axis[0] if isinstance(axis, list) else axis)
    experiment = check(_SCHEMA, tree, written, known=tuple(known_keys(Experiment, tree)))
    experiment = experiment.model_copy(update={"grid": _axes_as_written(experiment.grid, tree, written)})
    tuned = experiment.tune.axes if experiment.tune else {}
    if both := [key for key in tuned if key in experiment.grid]:
        raise InputError(f"tune.{both[0]}: an axis of grid too; leave it out of one of them")
    for key, values in all_axes(experiment).items():
        expand(experiment.model_copy(update={"grid": {key: values}, "tune": None}))
    return experiment


def _axes_as_written(
    axes: Mapping[str, tuple[Any, ...]], tree: dict[str, Any], written: dict[str, Any]
) -> dict[str, tuple[Any, ...]]:
    """Return the axes of a checked tree; the numbers of those whose setting is text, as they are written."""
    found = dict(axes)
    for key, values in axes.items():
        setting: Any = tree
        for part in key.split("."):
            setting = setting[part]
        if isinstance(setting, str) and not isinstance(values[0], str):
            given = written["grid"][key]
            texts = given if isinstance(given, list) else [given]
            found[key] = tuple(text_at(texts, (index,)) or value for index, value in enumerate(values))
    return found


def read_yaml(path: str) -> dict[str, Any]:
    """Return a YAML file as a tree; a bare name is also looked up among the configurations of the package.

    Raises:
        InputError: the file is missing, cannot be read, or is not a mapping.
    """
    return read_configuration(path)[0]


def read_configuration(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a YAML file as a tree, and the same with its scalars as they are written.

    Raises:
        InputError: as `read_yaml`.
    """
    try:
        tree, written = parse_written(_configuration_text(Path(path)))
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration; {_instead(Path(path))}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if tree is None:
        raise InputError(f"{path}: empty; a configuration is a mapping of keys, for example configs/quick.yaml")
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a configuration is a mapping of keys, found {type(tree).__name__}")
    return tree, written


def _instead(path: Path) -> str:
    """Return what to give instead of a file that is not there."""
    with suppress(OSError):
        beside = path.expanduser().absolute().parent.iterdir()
        names = {file.stem: file.name for file in beside if file.suffix in (".yaml", ".yml")}
        if close := difflib.get_close_matches(path.stem, names, n=1):
            return f"did you mean {path.with_name(names[close[0]])}?"
    return "give a YAML file, for example configs/quick.yaml"


@lru_cache(maxsize=1)
def _pipe_text(file: Path) -> str:
    """Return what a pipe holds: `<(...)` and /dev/stdin can be read once, and a command looks twice."""
    return read_text(file)


def _configuration_text(file: Path) -> str:
    try:
        pipe = file.is_fifo()
    except OSError:  # what is wrong with the name, reading says
        pipe = False
    try:
        return _pipe_text(file) if pipe else read_text(file)
    except FileNotFoundError:
        if file.is_absolute():
            raise
        return read_text(packaged("configs") / file.name)
