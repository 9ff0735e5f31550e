"""Expand the grid of an experiment into its cells."""

import itertools
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from amscale.config.schema import Experiment
from amscale.errors import InputError
from amscale.settings import Settings, describe_error

_SECTIONS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(field.rebuild_annotation()) for name, field in Experiment.model_fields.items()
}
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


def expand(experiment: Experiment) -> list[Experiment]:
    """Return the cells of the grid, each an Experiment with an empty grid, in the order of the axes.

    Sections that cells share are validated once, so that 10 000 cells take well under a second.

    Raises:
        InputError: a value of an axis is not allowed, or there are too many cells.
    """
    count = math.prod(len(values) for values in experiment.grid.values())
    if count > _MOST_CELLS:
        raise InputError(f"grid: {count:,} cells; at most {_MOST_CELLS:,}")
    names = {section_of(key) for key in experiment.grid}
    bases = {name: json.dumps(_as_written(getattr(experiment, name))) for name in names}
    cells = []
    for values in itertools.product(*experiment.grid.values()):
        assigned = dict(zip(experiment.grid, values, strict=True))
        update = {name: check_section(name, bases[name], assigned) for name in names}
        cells.append(experiment.model_copy(update={"grid": {}, **update}))
    return cells


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
        assign(tree, key, value)
    try:
        return _SECTIONS[name].validate_python(tree[name])
    except ValidationError as error:
        raise InputError(describe_error(error, tree[name], name)) from None


def _as_written(value: Any) -> Any:
    return value.model_dump(mode="json", exclude_unset=True) if isinstance(value, Settings) else value
