"""Check a tree of settings against its schema: text that looks like a number, and hints for what is mistyped."""

import difflib
import json
from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError

from amscale.config.written import text_at
from amscale.data import CORPORA
from amscale.data.corpora import find_corpus
from amscale.errors import InputError
from amscale.models import FAMILIES, find_family
from amscale.settings import Settings, describe_error

T = TypeVar("T")


def check(schema: TypeAdapter[T], tree: Any, written: Any, section: str = "", known: tuple[str, ...] = ()) -> T:
    """Return the settings that a tree holds.

    A scalar that YAML reads as a number, where the schema wants text, is taken as it is written, and changed in `tree`.

    Args:
        schema: of the settings.
        tree: plain data.
        written: the same with scalars as they are written, or `tree` again.
        section: dotted key of the tree in the whole configuration.
        known: dotted keys of the whole configuration, for hints.

    Raises:
        InputError: names the first key or value that is not allowed, and what is.
    """
    try:
        try:
            return schema.validate_python(tree)
        except ValidationError as error:
            if not _take_text(error, tree, written):
                raise
            return schema.validate_python(tree)
    except ValidationError as error:
        if not section and not error.errors()[0]["loc"] and isinstance(tree, dict):  # of the sections together
            raise InputError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        raise InputError(describe_error(error, tree, section, lambda key, fault: hint(key, fault, known))) from None


def _take_text(error: ValidationError, tree: Any, written: Any) -> bool:
    """Put text in the place of every scalar that was to be text; return whether any was."""
    changed = False
    for fault in error.errors():
        path = _path_of(fault["loc"], tree)
        text = text_at(written, path) if fault["type"] == "string_type" else None
        if text is None or not path:
            continue
        node = tree
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = text
        changed = True
    return changed


def _path_of(location: tuple[int | str, ...], tree: Any) -> tuple[Any, ...]:
    """Return the path in a tree of a location of pydantic's, which also names members of unions."""
    path: list[Any] = []
    for part in location:
        if part in (tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()):
            path.append(part)
            tree = tree[part]
    return tuple(path)


def known_keys(cls: type[Settings], tree: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a schema, those of the family and the corpus that a tree names included."""
    for name, field in cls.model_fields.items():
        if field.exclude:
            continue
        yield prefix + name
        below = tree.get(name) if isinstance(tree, dict) else None
        for section in _sections(name, field.annotation, below):
            yield from known_keys(section, below, f"{prefix}{name}.")


def _sections(name: str, annotation: Any, tree: Any) -> Iterator[type[Settings]]:
    """Yield the classes that describe a section; none for a value."""
    chosen = tree.get({"model": "family", "data": "corpus"}.get(name, "")) if isinstance(tree, dict) else None
    if name == "model" and chosen in list(FAMILIES):
        yield find_family(chosen).settings
    elif name == "data" and chosen in list(CORPORA):
        yield find_corpus(chosen)
    else:
        for found in (annotation, *get_args(annotation)):
            if isinstance(found, type) and issubclass(found, Settings):
                yield found


_MOST_HINTS = 3


def hint(key: str, fault: Any, known: tuple[str, ...]) -> str:
    """Return what may have been meant by a key or value that is not allowed, or where to look; else nothing."""
    if fault["type"] == "extra_forbidden":
        close = closest(key, known)
        return f"; did you mean {' or '.join(close)}?" if close else ""
    if fault["type"] in ("missing", "union_tag_not_found"):
        return "; docs/configuration.md lists its settings, and configs/ has examples"
    is_list = isinstance(fault["input"], list) and fault["type"] != "model_type"
    if is_list and "grid" in known:
        return f"; to run one trial for each, make it an axis: grid.{key}={json.dumps(fault['input'])}"
    return ""


def closest(key: str, known: tuple[str, ...]) -> list[str]:
    """Return the known dotted keys that are most like a mistyped one."""
    section, _, last = key.rpartition(".")
    same_name = [other for other in known if other.rpartition(".")[2] == last]
    if same_name:  # in another section
        return same_name[:_MOST_HINTS]
    beside = [other for other in known if other.rpartition(".")[0] == section]
    names = {other.rpartition(".")[2]: other for other in beside}
    close = difflib.get_close_matches(last, names, n=1) or [name for name in names if _initials(name) == last]
    if close:
        return [names[close[0]]]
    anywhere = {other.rpartition(".")[2]: other for other in reversed(known)}
    close = difflib.get_close_matches(last, anywhere, n=1, cutoff=0.8) or [n for n in anywhere if _initials(n) == last]
    return [anywhere[close[0]]] if close else []


def _initials(name: str) -> str:
    return "".join(word[0] for word in name.split("_"))
