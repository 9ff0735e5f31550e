"""The base of every settings class, and the types that settings share.

Each room declares its own settings beside the code that uses them; `amscale.config` joins them into the one
schema that a YAML file is held against.
"""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e\+?([0-9]+))?\s*([kmbgt]?)\s*", re.IGNORECASE)


def parse_size(value: Any) -> int:
    """A whole number from `400000`, `400k`, `1.5M`, `9B` or `2e6`.

    Raises:
        ValueError: the text is not such a number, or it is not whole.
    """
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is not a size; write a number such as 400k, 1.5M or 2e6")
    if isinstance(value, int):
        return value
    match = _SIZE.fullmatch(format(value, ".15g") if isinstance(value, float) else str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a size; write a number such as 400k, 1.5M or 2e6")
    mantissa, exponent, suffix = match.groups()
    if len(exponent or "") > 2 or len(mantissa) > 20:
        raise ValueError(f"{value!r} is too large a number")
    number = float(mantissa) * 10 ** int(exponent or 0) * _SUFFIXES[suffix.lower()]
    if number >= 2**63:
        raise ValueError(f"{value!r} is too large a number")
    if abs(number - round(number)) > 1e-6 * max(1.0, number):
        raise ValueError(f"{value!r} is not a whole number")
    return round(number)


Size = Annotated[int, BeforeValidator(parse_size)]
"""A count of parameters, tokens or documents, written as 400k, 1.5M, 9B, 2e6 or in full."""


def format_size(number: float) -> str:
    """The shortest reading of a count with three significant digits: 98304 becomes `98.3k`."""
    for suffix, unit in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= 0.9995 * unit:
            return f"{number / unit:.3g}{suffix}"
    return f"{number:.3g}"


def format_value(value: Any) -> str:
    """A setting's value as it is written in a configuration or on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


class Settings(BaseModel):
    """Frozen, typed settings: an unknown key is an error, and every field carries its own description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def describe(error: ValidationError, tree: dict[str, Any]) -> str:
    """The first complaint about `tree`, the settings that were checked."""
    first = error.errors()[0]
    key = ".".join(_written(first["loc"], tree))
    more = f" ({error.error_count() - 1} more like it)" if error.error_count() > 1 else ""
    context = first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            return f"unknown key {key}={first['input']!r}; docs/configuration.md lists the keys{more}"
        case "missing":
            return f"{key} is missing{more}"
        case "union_tag_not_found":
            return f"{key}.{context['discriminator'].strip(chr(39))} is missing"
        case "union_tag_invalid":
            discriminator = context["discriminator"].strip("'")
            return f"{key}.{discriminator}={context['tag']!r}; allowed are {context['expected_tags']}"
    return f"{key}={first['input']!r}: {first['msg'].removeprefix('Value error, ')}{more}"


def _written(location: tuple[int | str, ...], tree: Any) -> list[str]:
    """The parts of a location that stand in the user's settings: the tag of a union, which pydantic adds, does not."""
    parts: list[str] = []
    node = tree
    for part in location:
        if isinstance(node, dict) and part not in node and part in [v for v in node.values() if isinstance(v, str)]:
            continue
        parts.append(str(part))
        if isinstance(node, dict):
            node = node.get(part)
    return parts
