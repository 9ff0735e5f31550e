"""pydantic's errors in one line: the key as the user wrote it, the value, and what is allowed."""

from typing import Any

from pydantic import ValidationError


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
