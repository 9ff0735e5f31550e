"""Write the reference page of all settings, from the schema:

python -m amscale.config.reference > docs/configuration.md
"""

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from amscale.config.schema import Experiment
from amscale.data import CORPORA, Corpus
from amscale.data.corpora import find_corpus
from amscale.models import FAMILIES, FamilySettings, find_family

_INTRODUCTION = """# Configuration

One YAML file is one experiment. Every key can be overridden on the command line by `key=value`; a key of `model`,
`data`, `train`, `probes`, `launch`, and `seed` can be an axis of `grid`. Sizes are written in full or as `400k`,
`1.5M`, `9B`, `2e6`. Scalars are read by YAML 1.2: `010` is 10, `1e-3` a number, `on` and `2026-11-28` are text; a
number where text is wanted, as in `name: 20261128`, is taken as it is written. None is written `null`. An unknown
key, or one given twice in a file, is an error; on the command line the last one counts. This page comes
from the schema: `python -m amscale.config.reference`.

A number under `train` may be a rule, an expression of N, D and what else a cell has (`3e-3 * (N / 1M) ** -0.33`);
`train.policy` names a published one, and `tune` tunes settings by cell: [tuning](tuning.md).
"""


def reference() -> str:
    """Return the page as Markdown."""
    parts = [_INTRODUCTION, "## Top level\n", _table(Experiment.model_fields)]
    for section, field in Experiment.model_fields.items():
        if section == "model":
            families = [find_family(name).settings for name in FAMILIES]
            parts += _variants("model", "family", FamilySettings, families)
        elif section == "data":
            parts += _variants("data", "corpus", Corpus, [find_corpus(name) for name in CORPORA])
        elif settings := _settings(field):
            parts += [f"## {section}\n", _docstring(settings), _table(settings.model_fields)]
    return "\n".join(parts)


def _variants(section: str, key: str, base: type[BaseModel], classes: Sequence[type[BaseModel]]) -> Iterator[str]:
    """Yield the keys that all classes of a section share, then for each class the keys and defaults that differ.

    Args:
        key: the key whose value chooses the class; the headings give its values.
        base: the class of the shared keys.
    """
    names = [cls.model_fields[key].default for cls in classes]
    shared = {name: field for name, field in base.model_fields.items() if name != key}
    yield f"## {section}, every {key}\n"
    yield f"`{key}` is one of {', '.join(f'`{name}`' for name in names)}.\n"
    yield _table(shared)
    for variant, cls in zip(names, classes, strict=True):
        fields = {name: field for name, field in cls.model_fields.items() if name != key}
        yield f"## {section}, {variant}\n"
        yield _docstring(cls)
        other = {name: field for name, field in fields.items() if _differs(field, shared.get(name))}
        if other:
            yield _table(other)
        defaults = [
            f"`{name}` {_default(field)}"
            for name, field in fields.items()
            if name not in other and field.default != shared[name].default
        ]
        if defaults:
            yield f"Other defaults: {', '.join(defaults)}.\n"


def _differs(field: FieldInfo, shared: FieldInfo | None) -> bool:
    """Return whether a key is new or means something else than the shared one."""
    return shared is None or field.description not in (None, shared.description)


def _docstring(cls: type[BaseModel]) -> str:
    return " ".join((cls.__doc__ or "").split()) + "\n"


def _table(fields: Mapping[str, FieldInfo]) -> str:
    return "\n".join(["| key | default | values | meaning |", "|---|---|---|---|", *_rows(fields)]) + "\n"


def _rows(fields: Mapping[str, FieldInfo], prefix: str = "") -> Iterator[str]:
    """Yield a row for each key; the keys of a section that has no table of its own come after it, dotted."""
    for name, field in fields.items():
        if field.exclude:
            continue
        nested = None if name in Experiment.model_fields else _settings(field)
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        meaning = re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", meaning)
        default = "" if nested else _default(field)
        yield f"| `{prefix}{name}` | {default} | {_values(field.annotation, field.metadata)} | {meaning} |"
        if nested:
            yield from _rows(nested.model_fields, f"{prefix}{name}.")


def _settings(field: FieldInfo) -> type[BaseModel] | None:
    """Return the class of a key that is a section of settings, or None."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


_KINDS = {int: "whole number", float: "number", bool: "`true`, `false`", str: "text", type(None): "None"}
_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "multiple_of": "a multiple of"}


def _values(kind: Any, metadata: Sequence[Any] = ()) -> str:
    """Return in words what a key of that annotation takes."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        inner = [item for extra in parts[1:] for item in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
        return _values(parts[0], [*inner, *metadata])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in parts)
    if origin in (Union, types.UnionType):
        return ", ".join(_values(part, metadata) for part in parts)
    if origin is tuple:
        return f"list of: {_values(parts[0])}" if parts[-1] is ... else f"list of {len(parts)}: {_values(parts[0])}"
    if kind in (int, float):
        bounds = [f"{sign} {item}" for key, sign in _BOUNDS.items() for item in _attributes(metadata, key)]
        return f"{_KINDS[kind]} {' and '.join(bounds)}".rstrip()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    return _KINDS.get(kind, "keys and values")


def _attributes(items: Sequence[Any], name: str) -> list[Any]:
    return [value for item in items if (value := getattr(item, name, None)) is not None]


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default_factory is not None:
        return ""
    if isinstance(field.default, BaseModel):
        return "see below"
    return f"`{list(field.default) if isinstance(field.default, tuple) else field.default}`"


if __name__ == "__main__":
    print(reference(), end="")
