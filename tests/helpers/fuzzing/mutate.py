"""Damage a tree of plain data, a text, bytes, or a place on disk.

Every function takes a `random.Random` and nothing else decides, so that an example is its seed.
"""

import copy
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**40, 10**400, -(10**400), 0.5, -0.0, 1e308, 1e-320,
    float("nan"), float("inf"), float("-inf"), "", " ", "nan", "1e400", "1e999999999", "9" * 5000, "auto", "all",
    "0x10", "\x00", "a\nb", "[/]", "[bold", "{0}", "%s", "$HOME", "~", "~nobody", ".", "..", "../../elsewhere", "/",
    "/etc/passwd", "/dev/null", "a" * 300, "\u202e\U0001f600\u0000", "<script>alert(1)</script>", "s3://nowhere/x",
    "file:///etc", "://", [], {}, [[]], [{}], {"": ""}, [None], [1, "a", None], ["x"] * 50, {"a": {"b": {"c": 1}}},
    list(range(2000)),
)  # fmt: skip
"""Values that hardly any setting or field allows."""

YAML = (
    "!!python/object/apply:os.mkdir ['{canary}']\n",
    "!!python/name:os.system ''\n",
    "a: &a [x, x, x]\nb: &b [*a, *a, *a]\n",
    "a: &a [*a]\n",
    "name: &n {{again: *n}}\n",
    "<<: [1, 2]\n",
    "? [complex, key]\n: 1\n",
    "---\nname: one\n---\nname: two\n",
    "name: !!binary aGVsbG8=\n",
    "seed: !!set {{a, b}}\n",
    "seed: 2001-01-01\n",
    "seed: 2001-99-99\n",
    "seed: 190:20:30\n",
    "1: 2\nnull: 3\ntrue: 4\n",
    "%YAML 9.9\n---\nname: x\n",
    "name: *unknown\n",
    "\tname: tab\n",
    "name: 'open\n",
    'name: "\\ud800"\n',
    "@`%\n",
)
"""Corner cases of YAML. `{canary}` is a path that must never come to exist."""

_WORDS = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\n",
    b"\r\n",
    b"{",
    b"]",
    b'"',
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"\x85",
)


def paths_of(tree: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, value in items for path in ((*prefix, key), *paths_of(value, (*prefix, key)))]


def change_tree(rng: random.Random, tree: Any) -> Any:
    """Return a copy of a tree with one value dropped, renamed, replaced, wrapped, doubled or moved."""
    tree = copy.deepcopy(tree)
    paths = paths_of(tree)
    if not paths or rng.random() < 0.03:
        return rng.choice(ODD)
    *parents, last = rng.choice(paths)
    node = tree
    for key in parents:
        node = node[key]
    old = node[last]
    match rng.randrange(9):
        case 0:
            del node[last]
        case 1 if isinstance(node, dict):
            name = rng.choice([f"{last}x", str(last).upper(), "", 7, None, f"{last}.{last}", "../x", "format"])
            node[name] = node.pop(last)
        case 2:
            node[last] = [old] if rng.random() < 0.5 else {"value": old}
        case 3:
            node[last] = str(old)
        case 4 if isinstance(old, int | float) and not isinstance(old, bool):
            near = [] if abs(old) > 1e300 else [old + 0.5, 1 / (abs(old) + 1)]  # an integer may be beyond floats
            node[last] = rng.choice([-old, old * 10**6, old * 10**30, str(old), *near])
        case 5:
            for _ in range(rng.choice([3, 60])):
                node[last] = [node[last]]
        case 6:
            other = tree
            for key in rng.choice(paths):
                other = other[key]
            node[last] = copy.deepcopy(other)
        case 7 if isinstance(node, dict):
            node[rng.choice(["more", "size", "label", "format", "grid"])] = copy.deepcopy(rng.choice(ODD))
        case _:
            node[last] = copy.deepcopy(rng.choice(ODD))
    return tree


def bomb(depth: int = 9, width: int = 9) -> str:
    """Return a few lines of YAML that expand to `width ** depth` values."""
    lines = ["l0: &l0 [lol, lol]"]
    for level in range(1, depth):
        lines.append(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * width)}]")
    return "\n".join(lines) + "\n"


def change_text(rng: random.Random, text: str, canary: Path) -> str:
    """Return YAML text with a corner case of YAML put before it, after it or in its place."""
    if rng.random() < 0.15:
        corner = rng.choice([bomb(), bomb(40, 2), "[" * 5000, "{a: " * 3000, "- " * 3000 + "x", "name: [" * 200])
    else:
        corner = rng.choice(YAML).replace("{canary}", str(canary)).replace("{{", "{").replace("}}", "}")
    return rng.choice([corner, text + corner, corner + text])


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return bytes cut, doubled, flipped, mixed with others or in another encoding."""
    at = rng.randrange(len(data) + 1)
    match rng.randrange(8):
        case 0:
            return data[:at]
        case 1:
            return data[at:]
        case 2:
            return data[:at] + rng.choice(_WORDS) + data[at:]
        case 3:
            changed = bytearray(data or b"x")
            for _ in range(rng.choice([1, 3, 30])):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            return bytes(changed)
        case 4:
            other = rng.randrange(len(data) + 1)
            return data[: max(at, other)] + data[min(at, other) :]
        case 5:
            return rng.choice([b"", b"\n", b"null", b"[]", b"{}", b"0", b"\x00" * 100, b"\xff" * 100, b"{" * 3000])
        case 6:
            return data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-32", "latin-1"]), "replace")
        case _:
            return data[:at] + bytes(rng.randrange(256) for _ in range(rng.choice([1, 8, 200]))) + data[at:]


def change_place(rng: random.Random, path: Path) -> None:
    """Replace a file or folder by something else: nothing, a folder, a link to elsewhere, to itself or to nowhere."""
    if not path.parent.is_dir():
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    match rng.randrange(7):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to("/nowhere/at/all")
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.symlink_to("/dev/null")
        case 4:
            path.symlink_to(os.pardir)
        case 5:
            path.write_bytes(b"")


def damage_yaml(rng: random.Random, file: Path, canary: Path) -> None:
    """Damage a file of YAML: its tree, its text, its bytes or its place."""
    kind, text = rng.random(), file.read_text()
    if kind < 0.6:
        tree = yaml.safe_load(text)
        for _ in range(rng.randrange(1, 4)):
            tree = change_tree(rng, tree)
        file.write_bytes(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass"))
    elif kind < 0.75:
        file.write_bytes(change_text(rng, text, canary).encode())
    elif kind < 0.95:
        file.write_bytes(change_bytes(rng, text.encode()))
    else:
        change_place(rng, file)


def damage_json(rng: random.Random, file: Path) -> None:
    """Damage a file of JSON, of JSON lines, or of anything else."""
    kind = rng.random()
    if file.is_symlink() or file.is_dir():
        return  # damaged in place before
    data = file.read_bytes() if file.is_file() else b""
    if kind < 0.6 and file.suffix in (".json", ".jsonl"):
        lines = (
            data.decode("utf-8", "replace").splitlines()
            if file.suffix == ".jsonl"
            else [data.decode("utf-8", "replace")]
        )
        index = rng.randrange(len(lines)) if lines else 0
        try:
            tree = json.loads(lines[index])
            for _ in range(rng.randrange(1, 4)):
                tree = change_tree(rng, tree)
            lines[index] = json.dumps(tree)
        except (ValueError, IndexError, RecursionError):
            lines = ["{}"]
        file.write_bytes("\n".join([*lines, ""]).encode("utf-8", "surrogatepass"))
    elif kind < 0.95:
        file.write_bytes(change_bytes(rng, data))
    else:
        change_place(rng, file)
