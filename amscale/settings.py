"""The base of every settings class, sizes and durations as text, and pydantic's errors in one line.

Each package declares its settings beside the code that uses them; `amscale.config` joins them into the schema of a
configuration.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, ValidationError
from pydantic_core import PydanticKnownError

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
_WORDS = {"thousand": "k", "million": "m", "bn": "b", "billion": "b", "trillion": "t"}
_QUOTE = "'"
_NUMBER = (
    r"(?P<whole>[0-9][0-9_]*[0-9]|[0-9]|[1-9][0-9]{{0,2}}(?:(?P<group>[{thousands}])[0-9]{{3}})(?:(?P=group)[0-9]{{3}})*)?"
    r"(?:{decimal}(?P<part>[0-9]*))?(?:e(?P<exponent>[+-]?[0-9]+))?\s*(?P<unit>[a-z]*)"
)
_PATTERNS = {
    ".": re.compile(_NUMBER.format(decimal=r"\.", thousands=", '’\u00a0\u2009\u202f"), re.IGNORECASE),
    ",": re.compile(_NUMBER.format(decimal=",", thousands=". '’\u00a0\u2009\u202f"), re.IGNORECASE),
}


class Settings(BaseModel):
    """Frozen, typed settings: an unknown key is an error, and every field carries its own description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def parse_number(text: str, decimal: str = ".") -> float:
    """Return the number that `3.25`, `-1e-3`, `400k`, `6.7B`, `10.0 M`, `6.7 billion`, `1,000,000` or `1_000` means.

    Args:
        text: digits with thousands in groups of three or none; a power of ten; a suffix or a word for one.
        decimal: the decimal sign, `.` or `,`; the other one then groups thousands.

    Raises:
        ValueError: the text is not such a number.
    """
    stripped = text.strip()
    sign = -1 if stripped[:1] in ("-", "−") else 1
    match = _PATTERNS[decimal].fullmatch(stripped[1:] if stripped[:1] in ("-", "−", "+") else stripped)
    if match is None or (match["whole"] is None and not match["part"]):
        raise ValueError(f"{text!r} is not a number")
    unit = match["unit"].lower()
    suffix = _SUFFIXES.get(_WORDS.get(unit, unit))
    if suffix is None:
        raise ValueError(f"{text!r} is not a number: {match['unit']!r} is none of k, M, B, G, T, thousand, million, …")
    digits = re.sub(r"[^0-9]", "", match["whole"] or "0")
    if len(match["exponent"] or "") > 4 or len(digits) > 20:
        raise ValueError(f"{text!r} is too large a number")
    return sign * float(f"{digits}.{match['part'] or 0}e{match['exponent'] or 0}") * suffix


def parse_size(value: Any) -> int:
    """Return the whole number that `400000`, `400k`, `1.5M`, `9B`, `2e6` or `1,000,000` means; see `parse_number`.

    Raises:
        ValueError: the text is not such a number, or the number is negative or not whole.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = format(value, ".15g") if isinstance(value, float) else str(value)
    try:
        number = -1.0 if isinstance(value, bool) else parse_number(text)
    except ValueError as error:
        if "too large" in str(error):
            raise
        number = -1.0
    if number < 0:
        raise ValueError(f"{value!r} is not a size; write a number such as 400k, 1.5M or 2e6")
    if number >= 2**63:
        raise ValueError(f"{value!r} is too large a number")
    if abs(number - round(number)) > 1e-6 * max(1.0, number):
        raise ValueError(f"{value!r} is not a whole number")
    return round(number)


Size = Annotated[int, BeforeValidator(parse_size)]
"""A count of parameters, tokens or documents, written as 400k, 1.5M, 9B, 2e6 or in full."""


def _auto_or(least: int) -> Callable[[Any], Any]:
    def checked(value: Any) -> Any:
        size = value if value == "auto" else parse_size(value)
        if size != "auto" and size < least:
            raise ValueError(f"{value!r} must be auto or at least {least}")
        return size

    return checked


AutoOrCount = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or(0))]
"""A count, 0 included, or `auto`."""
AutoOrSize = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or(1))]
"""A count of at least 1, or `auto`."""


def flatten(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by dotted key; an empty mapping is a value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def format_size(number: float) -> str:
    """Write a count with three significant digits: 98304 becomes `98.3k`."""
    for suffix, unit in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= 0.9995 * unit:
            return f"{number / unit:.3g}{suffix}"
    return f"{number:.3g}"


def counted(count: int, noun: str) -> str:
    """Return `1 trial`, `2 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_duration(seconds: float) -> str:
    """Write a duration as `45 s`, `3 min`, `2.5 h` or `4.1 d`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def format_value(value: Any) -> str:
    """Write a setting's value as in a configuration or on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


def select_settings(key: str, names: Collection[str], find: Callable[[str], type[Settings]]) -> PlainValidator:
    """Return the validator of a section that one of several settings classes describes, chosen by the value of a key.

    Only the class that a section names is imported, so that a broken package is noticed by those who use it.

    Args:
        key: the key that holds the name, such as `corpus`.
        names: names that are allowed.
        find: returns the class of a name.
    """

    def validate(section: Any) -> Any:
        """Return the section as settings of the class that it names."""
        if isinstance(section, dict):
            if key not in section:
                raise PydanticKnownError("union_tag_not_found", {"discriminator": repr(key)})
            name = section[key]
        elif (name := getattr(section, key, None)) is None:
            raise PydanticKnownError("dict_type")
        if not isinstance(name, str) or name not in list(names):
            allowed = ", ".join(map(repr, names))
            raise PydanticKnownError(
                "union_tag_invalid", {"discriminator": repr(key), "tag": str(name), "expected_tags": allowed}
            )
        chosen = find(name)
        return section if isinstance(section, chosen) else chosen.model_validate(section)

    return PlainValidator(validate)


def describe_error(
    error: ValidationError, tree: dict[str, Any], section: str = "", hint: Callable[[str, Any], str] = lambda *_: ""
) -> str:
    """Describe the first fault that pydantic found in some settings: the key as written, the value, what is allowed.

    Args:
        tree: the settings that were validated.
        section: dotted key of `tree` in the whole configuration.
        hint: returns what may have been meant, from the dotted key and the fault as pydantic has it.
    """
    first = error.errors()[0]
    written = _written_location(first["loc"], tree)
    # A value that may be one thing or another has one fault for each.
    here = [fault for fault in error.errors() if _written_location(fault["loc"], tree) == written]
    parts = [section] * bool(section) + written
    key = ".".join(parts)
    return _description(error, first, here, parts, key) + hint(key, first)


def _description(error: ValidationError, first: Any, here: list[Any], parts: list[str], key: str) -> str:
    others = f" ({error.error_count() - len(here)} more like it)" if error.error_count() > len(here) else ""
    context = first.get("ctx", {})
    match first["type"]:
        case "extra_forbidden":
            value = "" if isinstance(first["input"], dict) else f"={first['input']!r}"
            return f"unknown key {key}{value}; docs/configuration.md lists the keys{others}"
        case "missing":
            return f"{key} is missing{others}"
        case "union_tag_not_found":
            return f"{'.'.join([*parts, context['discriminator'].strip(_QUOTE)])} is missing"
        case "union_tag_invalid":
            tag = ".".join([*parts, context["discriminator"].strip(_QUOTE)])
            return f"{tag}={context['tag']!r}; allowed are {context['expected_tags']}"
        case "string_pattern_mismatch":  # of a name
            allowed = "letters, digits, '.', '_' and '-', and begins with a letter or a digit"
            return f"{key}={first['input']!r}: a name has {allowed}{others}"
        case "string_type" if first["input"] is None:
            return f"{key} is empty; give it text, or leave it out{others}"
        case "tuple_type" | "list_type":
            return f"{key}={first['input']!r}: not a list; write {key}=[{format_value(first['input'])}]{others}"
    said = [fault["msg"].removeprefix("Value error, ") for fault in here]
    alternatives = " or ".join(re.sub(_UNPARSED, "", words.removeprefix(_MUST_BE)) for words in said)
    value = "" if isinstance(first["input"], dict) and "." not in key else f"={first['input']!r}"  # no whole section
    return f"{key}{value}{' must be ' if said[0].startswith(_MUST_BE) else ': '}{alternatives}{others}"


_MUST_BE, _UNPARSED = "Input should be ", ", unable to parse string as an? .*"
"""How pydantic begins to say what is allowed, and what it adds of a text."""


def _written_location(location: tuple[int | str, ...], tree: Any) -> list[str]:
    """Return the parts of a location that the user wrote: pydantic adds the member of a union, which is left out."""
    parts: list[str] = []
    node = tree
    for part in location:
        if isinstance(node, str | int | float):
            break
        if isinstance(node, dict) and part not in node and part in [v for v in node.values() if isinstance(v, str)]:
            continue
        parts.append(str(part))
        if isinstance(node, dict):
            node = node.get(part)
    return parts
