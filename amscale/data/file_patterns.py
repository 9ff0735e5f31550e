"""Find the files that a setting names: paths, and patterns of them; say what is nearly there where none is."""

import difflib
import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from amscale.errors import InputError

_SHOWN = 3
"""Names that a message shows."""
_LOOKED_AT = 1000
"""Files of a folder that are looked at to suggest a pattern."""


def expand_home(path: str) -> Path:
    """Return a path with the home folder in the place of `~`, where there is one."""
    return Path(os.path.expanduser(path))


def find_files(patterns: str | Sequence[str], key: str = "data.files") -> list[Path]:
    """Return the files that paths or patterns match, sorted, each once however it is reached.

    A path that exists is that file, whatever characters its name has; so is the part of a pattern that exists.

    Raises:
        InputError: a pattern matches no file, or no pattern is given.
    """
    found: dict[tuple[str, str], Path] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = _matches(pattern)
        if not matches:
            raise InputError(f"{key}: {pattern!r} matches no file: {_nearest(pattern)}; give paths or patterns that do")
        for path in matches:
            # One folder by two names, or a link to a folder above, does not make its files two.
            place = os.path.realpath(path.parent), path.name
            found[place] = min(path, found.get(place, path), key=lambda one: (len(one.parts), one))
    if not found:
        raise InputError(f"{key} is empty; give at least one path or pattern")
    return sorted(found.values())


def _matches(pattern: str) -> set[Path]:
    if os.path.isfile(pattern):
        return {Path(pattern)}
    head, rest = _existing(pattern)
    if not rest:
        return {head} if os.path.isfile(head) else set()
    for tail in (os.path.join(*rest), os.path.join(*rest).replace("[", "[[]")):  # brackets: a set, else themselves
        names = glob.glob(os.path.join(glob.escape(str(head)), tail), recursive=True)
        if files := {Path(name) for name in names if os.path.isfile(name)}:
            return files
    return set()


def _existing(pattern: str) -> tuple[Path, tuple[str, ...]]:
    """Return the longest beginning of a path that is there, and the names that follow."""
    parts = expand_home(pattern).parts
    head = Path(parts[0]) if parts and os.path.isabs(parts[0]) else Path()
    rest = parts[1:] if head.parts else parts
    while rest and (name := _entry(head, rest[0])) is not None:
        head, rest = head / name, rest[1:]
    return head, rest


def _entry(folder: Path, name: str) -> str | None:
    """Return the name of an entry of a folder as it is written there: accents have two spellings in Unicode."""
    if os.path.exists(folder / name):
        return name
    if name.isascii():
        return None
    wanted = unicodedata.normalize("NFC", name)
    return next((entry for entry in _entries(folder) if unicodedata.normalize("NFC", entry) == wanted), None)


def _entries(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _nearest(pattern: str) -> str:
    """Return a phrase that says how far a path exists, and what is nearly there."""
    head, rest = _existing(pattern)
    where = os.path.abspath(head)
    if not rest:
        return f"{where} {_kind(head)}"
    if not os.path.isdir(head):
        return f"{where} is a file, not a folder"
    if os.path.islink(head / rest[0]):
        return f"{where}/{rest[0]} is a link to {os.readlink(head / rest[0])!r}, which is not there"
    if not os.access(head, os.R_OK | os.X_OK):
        return f"{where} cannot be read (Permission denied)"
    entries = [entry for entry in _entries(head) if not entry.startswith(".")]
    if not entries:
        return f"{where} is empty"
    names = {entry.casefold(): entry for entry in entries}
    close = [names[name] for name in difflib.get_close_matches(rest[0].casefold(), names, _SHOWN, 0.6)]
    shown = ", ".join(map(repr, close or entries[:_SHOWN])) + (", …" if not close and len(entries) > _SHOWN else "")
    return f"no {os.path.join(*rest)!r} in {where}, {'where the nearest is' if close else 'which holds'} {shown}"


def _kind(path: Path) -> str:
    """Return what a path is that is there and no file; of a folder, a pattern for its files."""
    if not os.path.isdir(path):
        return "is a pipe or a device, and files are read more than once"
    inside = (Path(folder) / name for folder, _, names in os.walk(path) for name in names if name[0] != ".")
    files = list(islice(inside, _LOOKED_AT))
    if not files:
        return "is a folder without files"
    ending = Counter(file.suffix for file in files).most_common(1)[0][0]
    above = "" if any(file.parent == path and file.suffix == ending for file in files) else "**"
    return f"is a folder; {str(path / above / ('*' + ending))!r} matches files of it"
