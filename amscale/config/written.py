"""Read YAML that a person wrote: numbers and words as they are meant, and beside them as they are written.

By YAML 1.1, which PyYAML reads, `on` is true, `010` is 8, `1:30` is 90, `2026-11-28` a date, and `1e-3` text. Here
plain scalars follow the core schema of YAML 1.2. A number can still be meant as text, as in `name: 20261128`: only the
setting knows, and then takes the scalar as it is written.
"""

import re
from typing import Any

import yaml

from amscale.files import parse_yaml

_SCALARS = {
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": ("[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": ("~|null|Null|NULL|", ["~", "n", "N", ""]),
}
"""Expressions of the plain scalars that are no text, and with what they begin."""


class _AsWritten(yaml.SafeLoader):
    """Leave every scalar the text that it is, and refuse a key that is given twice."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping.

        Raises:
            YAMLError: a key is given twice.
        """
        lines: dict[str, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise yaml.YAMLError(
                        f"the key {key.value!r} is given twice, in lines {lines[key.value]} and {line}"
                    )
                lines[key.value] = line
        return super().construct_mapping(node, deep)  # type: ignore[no-any-return, arg-type]


class _AsMeant(_AsWritten):
    """Read plain scalars by the core schema of YAML 1.2."""

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Return an integer; one with leading zeros is decimal."""
        text = str(node.value).replace("_", "")
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


for _loader in (_AsWritten, _AsMeant):
    _loader.yaml_implicit_resolvers = {}
    _loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("^<<$"), ["<"])
for _name, (_expression, _first) in _SCALARS.items():
    _AsMeant.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_expression})$"), list(_first))
_AsMeant.add_constructor("tag:yaml.org,2002:int", _AsMeant.construct_integer)


def parse_written(text: str) -> tuple[Any, Any]:
    """Return the plain data that a YAML text means, and the same with every scalar as it is written.

    Raises:
        ValueError: the text is not YAML, or not plain data within bounds; the message does not name the source.
    """
    return parse_yaml(text, _AsMeant), parse_yaml(text, _AsWritten)


def text_at(written: Any, path: tuple[Any, ...]) -> str | None:
    """Return the scalar at a path of a tree as text; None for a section, a list, or a word that stands for no value.

    Args:
        written: a tree of scalars as they are written, or of Python's values.
    """
    for part in path:
        try:
            written = written[part]
        except (KeyError, IndexError, TypeError):
            return None
    if isinstance(written, str):
        return None if written.lower() in ("", "null") else written
    return str(written) if isinstance(written, int | float) and not isinstance(written, bool) else None
