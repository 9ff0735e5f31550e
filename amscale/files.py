"""Read files that a user, a crash or another version may have written; write files atomically; find packaged folders.

YAML, JSON and text are read as plain data of bounded depth, size and numbers, so that a few lines of text cannot make a
later step run for hours or out of memory. Whatever is not such data raises an error of one line.
"""

import codecs
import errno
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
    """Return the text of a file.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or is larger than 64 MiB.
        FileNotFoundError: the file is missing.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}: cannot be read: larger than {_LARGEST_FILE >> 20} MiB")
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read: not UTF-8 text ({_odd_bytes(error)}); save it as UTF-8") from None
    except (OSError, ValueError) as error:  # a ValueError: a path with a NUL in it
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: cannot be read: {reason}") from None


def _odd_bytes(error: UnicodeDecodeError) -> str:
    """Say what in a text is not UTF-8, and what it may be instead."""
    data: bytes = error.object
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "it begins as UTF-16 does"
    line = data.count(b"\n", 0, error.start) + 1
    return f"byte 0x{data[error.start]:02x} in line {line}"


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """Return the plain data that a YAML text holds.

    Args:
        loader: how scalars are read; by default as `yaml.safe_dump`, with which files of a sweep are written, has it.

    Raises:
        ValueError: the text is not YAML, or not plain data within bounds; the message does not name the source.
    """
    try:
        tree = loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        if "'\\t'" in problem:
            problem = "a tab; indent with blanks"
        raise ValueError(f"not valid YAML: {where}{problem}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"not valid YAML: nested more than {_DEEPEST} deep") from None
    except (ValueError, ArithmeticError, AttributeError, TypeError, LookupError) as error:  # of a malformed scalar
        raise ValueError(f"not valid YAML: {error}") from None
    check_plain(tree)
    return tree


def parse_json(text: str | bytes) -> Any:
    """Return the plain data that a JSON text holds.

    Raises:
        ValueError: the text is not JSON, or not within bounds.
    """
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested more than {_DEEPEST} deep") from None
    check_plain(tree)
    return tree


def check_plain(tree: Any) -> None:
    """Check that a tree is plain data: mappings with text keys, lists, text and numbers, within bounds.

    A value that occurs in several places (an anchor of YAML) counts in each.

    Raises:
        ValueError: the tree is not plain data, or too deep, too large, or with too large a number; says which.
    """
    _count_values(tree, 0, {})


def _count_values(value: Any, depth: int, counts: dict[int, int]) -> int:
    """Return the number of values in a tree; `counts` keeps that of each container, so that anchors cost nothing."""
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
    if id(value) not in counts:
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ValueError(f"the key {str(key)[:40]!r} is a {type(key).__name__}; keys are text")
        children = value.values() if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_values(child, depth + 1, counts) for child in children)
    if counts[id(value)] > _MOST_VALUES:
        raise ValueError(f"more than {_MOST_VALUES:,} values")
    return counts[id(value)]


def is_number(value: Any) -> bool:
    """Return whether a value can be a measured number; infinite and undefined ones come from divergence."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST_MEASURED or (isinstance(value, float) and not math.isfinite(value))


def read_lines(path: Path, *keys: str) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file that have all `keys`, as text or numbers; other lines are skipped.

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
    """Return a folder of the project, such as `configs`: inside an installed package, beside it in a checkout."""
    inside = Path(str(resources.files("amscale"))) / folder
    return inside if inside.is_dir() else inside.parents[1] / folder


def sync_folder(folder: Path, *, files: bool = True) -> None:
    """Have a folder's entries on the disk, and its files' content too, so that no power loss takes them back."""
    for path in [*(sorted(folder.iterdir()) if files else []), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if path != folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks: files only
                raise
        finally:
            os.close(descriptor)


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder after the block, and those above it, where they were missing before it and hold nothing.

    So a command that is refused leaves no folder that it had made to see whether it can be made.
    """
    made = []
    for path in (folder, *folder.parents):
        if os.path.lexists(path):
            break
        made.append(path)
    try:
        yield
    finally:
        for path in made:
            try:
                path.rmdir()
            except (OSError, ValueError):  # not made or not empty, and a name with a NUL in it
                break


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a crash at any instant leaves either the old or the new content complete."""
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
