"""Files that a user, a crash or another version may have written: read as plain data, or refused in one line.

Everything is data: YAML by its safe loader, JSON, text. What comes out has bounded depth, size and numbers, so that no
later step can be brought to run for hours or out of memory by a few lines of text.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from amscale.errors import InputError

_DEEPEST = 40
_MOST_VALUES = 200_000
_LARGEST = 2**63
_LARGEST_MEASURED = 1e100
_LARGEST_FILE = 64 << 20
_NUMBERS = {"train": ("loss", "tokens", "time", "learning_rate", "gradient_norm"), "validation": ("loss",), "probe": ()}
"""The numbers in a record of each kind; the first must be there."""
_MEASURED = re.compile(r"\w+/(layer_[0-9]{1,4}/\w+|(?!layer_)\w+(/\w+)*)", re.ASCII)
"""The name of a value that a probe measured: `group/layer_00/name`, `group/global/name` or `group/name`."""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: it cannot be read, is not UTF-8, or is far too large for what a person writes.
        FileNotFoundError: there is none.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}: cannot be read: larger than {_LARGEST_FILE >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # a ValueError: not UTF-8, or a path with a NUL in it
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from None


def parse_yaml(text: str) -> Any:
    """Plain data from YAML.

    Raises:
        ValueError: not YAML, or not plain data within bounds; says what, without naming the source.
    """
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"not valid YAML: nested more than {_DEEPEST} deep") from None
    except (ValueError, ArithmeticError, AttributeError, TypeError, LookupError) as error:  # of a malformed scalar
        raise ValueError(f"not valid YAML: {error}") from None
    check_plain(tree)
    return tree


def parse_json(text: str | bytes) -> Any:
    """Plain data from JSON.

    Raises:
        ValueError: not JSON, or not within bounds.
    """
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {_DEEPEST} deep") from None
    check_plain(tree)
    return tree


def check_plain(tree: Any) -> None:
    """Check that a tree is plain data: mappings by text, lists, text and numbers, none too many, too deep or too large.

    A value that is named in several places (an anchor of YAML) counts in each.

    Raises:
        ValueError: it is not; says what.
    """
    _weigh(tree, 0, {})


def _weigh(value: Any, depth: int, known: dict[int, int]) -> int:
    """The number of values in a tree; `known` keeps that of each container, so that anchors are quick to count."""
    if isinstance(value, bool | str | None | float):
        return 1
    if isinstance(value, int):
        if abs(value) >= _LARGEST:
            raise ValueError(f"a number of {value.bit_length()} bits; numbers have at most 63")
        return 1
    if not isinstance(value, dict | list):
        raise ValueError(
            f"{str(value)[:40]!r} is a {type(value).__name__}; write numbers, quoted text, lists and mappings"
        )
    if depth >= _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} deep")
    if id(value) not in known:
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ValueError(f"the key {str(key)[:40]!r} is a {type(key).__name__}; keys are text")
        children = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_weigh(child, depth + 1, known) for child in children)
    if known[id(value)] > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES:,} values")
    return known[id(value)]


def is_number(value: Any) -> bool:
    """Whether a value is a number that can have been measured; infinite and undefined ones are those of divergence."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return not math.isfinite(value) or abs(value) < _LARGEST_MEASURED


def parse_record(line: str | bytes) -> dict[str, Any] | None:
    """A record of `metrics.jsonl`, or None for a line that is none: torn by a crash, or damaged.

    It has a `kind` and a `step`; training and validation have a `loss`, which is not a number where a run diverged.
    """
    try:
        record = parse_json(line)
    except ValueError:
        return None
    kind = record.get("kind") if isinstance(record, dict) else None
    if not isinstance(kind, str) or kind not in _NUMBERS:
        return None
    step, numbers = record.get("step"), _NUMBERS[kind]
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        return None
    if (numbers and "loss" not in record) or not all(is_number(record[name]) for name in numbers if name in record):
        return None
    if kind == "probe" and not _are_numbers(record.get("values")):
        return None
    return record


def _are_numbers(values: Any) -> bool:
    return isinstance(values, Mapping) and all(
        _MEASURED.fullmatch(name) and is_number(value) for name, value in values.items()
    )


def read_records(path: Path) -> Iterator[dict[str, Any] | None]:
    """The lines of `metrics.jsonl` in order, None for one that is no record, as a last line without an end is none.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    yield parse_record(line) if line.endswith(b"\n") else None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def read_lines(path: Path, *keys: str) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines that have all `keys`, as text or numbers; other lines are passed over.

    Raises:
        InputError: the file cannot be read.
    """
    if not path.is_file():
        return []
    found = []
    for line in read_text(path).splitlines():
        try:
            entry = parse_json(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and all(isinstance(entry.get(key), str | int | float) for key in keys):
            found.append(entry)
    return found


_RESULT: dict[str, dict[str, str]] = {
    "": {"state": "text", "reason": "text?", "seed": "count?", "steps": "count"},
    "parameters": dict.fromkeys(("embedding", "output_head", "attention", "feed_forward", "norms_and_rest"), "amount"),
    "shape": {"family": "text?"},
    "flops": {"total": "number"},
    "data": {"corpus": "text?", "unique_tokens": "amount", "tokens_seen": "amount?", "entropy_per_token": "number?"}
    | {"memorised_per_token": "number?", "documents": "count?", "epochs": "number?"},
    "losses": dict.fromkeys(
        ("validation_last", "validation_least", "train_last", "train_least", "train_evaluated"), "number?"
    )
    | {"validation_least_step": "count?", "train_least_step": "count?"},
}
"""What a result must hold for those who read it; `?`: or null, or nothing."""


def check_result(result: Any) -> dict[str, Any]:
    """A trial's result, if it is one.

    Raises:
        ValueError: it is not; names what is missing or wrong.
    """
    if not isinstance(result, dict):
        raise ValueError("not a mapping")
    for section, fields in _RESULT.items():
        part = result.get(section) if section else result
        if not isinstance(part, dict):
            raise ValueError(f"{section} is missing")
        for name, kind in fields.items():
            _check_field(f"{section}.{name}".lstrip("."), part.get(name), kind)
    for name in ("time", "engine", "versions", "settings"):
        if not isinstance(result.get(name, {}), dict):
            raise ValueError(f"{name} is no mapping")
    for name in ("wall_seconds", "device_seconds", "probe_seconds", "probe_share"):
        _check_field(f"time.{name}", result.get("time", {}).get(name), "number?")
    _check_field("engine.world_size", result.get("engine", {}).get("world_size", 1), "count")
    if result.get("engine", {}).get("world_size", 1) < 1:
        raise ValueError("engine.world_size is 0")
    return result


def _check_field(name: str, value: Any, kind: str) -> None:
    if value is None and kind.endswith("?"):
        return
    if value is None:
        raise ValueError(f"{name} is missing")
    kind = kind.rstrip("?")
    good = {
        "text": isinstance(value, str),
        "number": is_number(value),
        "amount": is_number(value) and math.isfinite(value) and value >= 0,
        "count": is_number(value) and math.isfinite(value) and value >= 0 and value == int(value),
    }[kind]
    if not good:
        raise ValueError(f"{name}={str(value)[:60]!r} is no {kind}")
