"""Collect the commands that pages, help texts and files show to a reader."""

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HELP = sorted((ROOT / "amscale").glob("*.py"))
HEADED = sorted(
    path for name in ("configs", "container", "launch", "slurm") for path in (ROOT / name).rglob("*") if path.is_file()
)
"""Files whose first comment shows how they are used."""

_OURS = r"python|amscale|make|sbatch|launch/trial\.sh|tensorboard"
_OTHERS = "accelerate|docker|export|git|pip|ray|sky|source|srun"
_SET = r"\s*(?:\$ )?(?:[A-Z_]+=(?:\"[^\"]*\"|\S+) )*"
_START = re.compile(rf"{_SET}(?:{_OURS}|{_OTHERS}) ")
_IN_PROSE = re.compile(rf"{_SET}(?:{_OURS}) (?!.*(?:<name>|\bCOMMAND\b|\bMACHINES\b))")
_PLACEHOLDER = re.compile(r"<[a-z ]+>|\bLABEL\b")


@dataclass(frozen=True)
class Shown:
    """A command, and where it is shown."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"

    def words(self, label: str) -> list[str]:
        """Return its words as a shell would split them, with the label of a trial for a placeholder.

        An ellipsis stands for what a reader adds, and is left out.
        """
        text = re.sub(r"(?<=trials/)(…|\.\.\.)", label, _PLACEHOLDER.sub(label, self.text))
        words = shlex.split(re.sub(r"\[[^\]=,]*(key=value|CONFIG)[^\]]*\]", "", text))
        return [word for word in words if word not in ("…", "...")]


def shown_commands() -> list[Shown]:
    """Return every command once, in the order of the files.

    On a page it is in an indented block, a fenced one of the shell, or in backquotes; in a help text it is indented; in
    a file it is in the comment at the top.
    """
    found: dict[str, Shown] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for line, command in [*_of_blocks(text), *_of_prose(text)]:
            found.setdefault(command, Shown(f"{page.name}:{line}", command))
    for module in HELP:
        for command in _of_help(ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""):
            found.setdefault(command, Shown(f"{module.name} --help", command))
    for file in HEADED:
        for command in _of_header(file.read_text(encoding="utf-8")):
            found.setdefault(command, Shown(file.name, command))
    return list(found.values())


def block(page: Path, language: str, containing: str) -> str:
    """Return the fenced block of a language that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    (found,) = [each for each in blocks if containing in each]
    return str(found)


def _of_blocks(text: str) -> Iterator[tuple[int, str]]:
    fence: str | None = None
    pending = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fence = None if fence is not None else line[3:]
            continue
        inside = fence in ("", "sh", "bash", "console") or (fence is None and line.startswith("    "))
        if not inside or not (pending or _START.match(line + " ")):
            continue
        pending += _without_comment(line)
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        yield number, pending.removeprefix("$ ")
        pending = ""


def _of_prose(text: str) -> Iterator[tuple[int, str]]:
    fenced = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^    .*$", "", fenced, flags=re.MULTILINE)
    for match in re.finditer(r"`([^`\n]+)`", prose):
        if _IN_PROSE.match(match[1]):
            yield prose.count("\n", 0, match.start()) + 1, match[1]


def _of_help(docstring: str) -> Iterator[str]:
    for line in docstring.splitlines():
        if line.startswith("  ") and _START.match(line):
            yield re.split(r"\s{2,}", line.strip())[0]


def _of_header(text: str) -> Iterator[str]:
    lines = text.splitlines()
    end = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    body = "\n".join(line[1:] for line in lines[:end])
    yield from (command for _, command in _of_blocks(body))


def _without_comment(line: str) -> str:
    return " ".join(re.sub(r"\s+# .*$", "", line).split())
