"""Files that a user, a crash or another version may have written: read as plain data, or refused in one line.

Everything is data: YAML by its safe loader, JSON, text. What comes out has bounded depth, size and numbers, so that no
later step can be brought to run for hours or out of memory by a few lines of text.

Files that travel with the package: `configs` and `launch`.

What ran: trial identity by content, trial folders, atomic results.

A sweep folder holds `trials/<trial>/` with `spec.yaml`, `metrics.jsonl`, `tb/`, `checkpoints/`, `log.txt` and, written
last and atomically, `result.json`: a trial is done if and only if that file is there. Ray keeps no record that counts.
"""

import json
import math
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from amscale.errors import InputError

_DEEPEST = 40
_MOST_VALUES = 200_000
_LARGEST = 2**63
_LARGEST_MEASURED = 1e100
_LARGEST_FILE = 64 << 20


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
    return abs(value) < _LARGEST_MEASURED or (isinstance(value, float) and not math.isfinite(value))


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


def packaged(folder: str) -> Path:
    """A folder of the project: inside the package where it was installed from a wheel, beside it in a checkout."""
    inside = Path(str(resources.files("amscale"))) / folder
    return inside if inside.is_dir() else inside.parents[1] / folder


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a crash at any instant leaves either the old or the new one whole."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
