"""Load an Experiment from a YAML file and the overrides of a command line."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from amscale.config.grid import assign, expand, section_of
from amscale.config.schema import Experiment
from amscale.errors import InputError
from amscale.files import packaged, parse_yaml, read_text
from amscale.settings import describe_error

_AXIS_SECTIONS = ("model", "data", "train", "probes", "launch", "seed")


def split_arguments(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split a command line `[CONFIG] [key=value …]` into path and overrides; without CONFIG the path is quick.yaml."""
    words = [str(argument) for argument in arguments]
    path = words.pop(0) if words and "=" not in words[0] else "quick.yaml"
    return path, words


def load(source: str | Mapping[str, Any], overrides: Sequence[str] | Mapping[str, Any] = ()) -> Experiment:
    """Read an experiment, apply overrides, and check the whole.

    Args:
        source: a YAML file, of which a bare name is also looked for among the configurations that come with the
            package; or its content as a mapping.
        overrides: `dotted.key=value`, the value read as YAML, or dotted keys to values. A key that is an axis of the
            grid is narrowed to the value (or to the values, for a list).

    Raises:
        InputError: a key or a value is not allowed; names it and what is allowed.
    """
    tree = copy.deepcopy(dict(source)) if isinstance(source, Mapping) else read_yaml(source)
    grid = tree.get("grid") or {}
    tree["grid"] = grid
    for key, value in overrides.items() if isinstance(overrides, Mapping) else map(parse_override, overrides):
        if isinstance(grid, dict) and (key in grid or key.startswith("grid.")):
            grid[key.removeprefix("grid.")] = value
        else:
            assign(tree, key, value)
    return parse(tree)


def parse_override(override: str) -> tuple[str, Any]:
    """Return the dotted key and the value, read as YAML, of `key=value`.

    Raises:
        InputError: the key or the `=` is missing, or the value is not YAML.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"{override!r} is not an override; write key=value, for example model.size=25k")
    try:
        return key, parse_yaml(text)
    except ValueError as error:
        raise InputError(f"{override!r}: the value is not valid YAML: {error}") from None


def parse(tree: dict[str, Any]) -> Experiment:
    """Validate a tree of settings, and every value of every axis of its grid.

    Raises:
        InputError: a key or a value is not allowed; names the first and what is allowed.
    """
    tree = copy.deepcopy(tree)
    grid = tree.get("grid") or {}
    for key, values in grid.items() if isinstance(grid, dict) else ():
        if section_of(str(key)) not in _AXIS_SECTIONS:
            raise InputError(f"grid.{key}: not an axis; axes are keys of {', '.join(_AXIS_SECTIONS)}")
        if values == []:
            raise InputError(f"grid.{key}=[]: an axis needs at least one value")
        # A section is validated with its axes in place: one of them may give a setting that the section requires.
        assign(tree, str(key), values[0] if isinstance(values, list) else values)
    try:
        experiment = Experiment.model_validate(tree)
    except ValidationError as error:
        raise InputError(describe_error(error, tree)) from None
    for key, values in experiment.grid.items():
        expand(experiment.model_copy(update={"grid": {key: values}}))
    return experiment


def read_yaml(path: str) -> dict[str, Any]:
    """Return a YAML file as a tree; a bare name is also looked up among the configurations of the package.

    Raises:
        InputError: the file is missing, cannot be read, or is not a mapping.
    """
    file = Path(path)
    if not file.exists() and not file.is_absolute():
        shipped = packaged("configs") / file.name
        file = shipped if shipped.is_file() else file
    try:
        loaded = parse_yaml(read_text(file))
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration; give a YAML file, for example configs/quick.yaml") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(loaded, dict):
        raise InputError(f"{path}: a configuration is a mapping of keys, found {type(loaded).__name__}")
    return loaded
