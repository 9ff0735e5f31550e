"""Packages of a user's own, as the documentation shows them, in a folder of PYTHONPATH."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from helpers.commands import environment

ROOT = Path(__file__).parents[2]


def code_block(page: str, language: str, heading: str = "") -> str:
    """Return the first code block of a language on a page of docs/, below a heading."""
    return re.search(rf"^```{language}\n(.*?)^```", _below(page, heading), re.MULTILINE | re.DOTALL)[1]


def entry_point(page: str, heading: str = "") -> str:
    """Return the first entry point that a page of docs/ declares below a heading, as in pyproject.toml."""
    found = re.search(r'(\[project\.entry-points\."[\w.]+"\])\n\s*(\w+ = ".*")', _below(page, heading))
    return "\n".join(found.groups())


def _below(page: str, heading: str) -> str:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return text[text.index(heading) :]


def install(site: Path, entry_points: str, modules: dict[str, str]) -> Path:
    """Write modules and the metadata of their package as an installer leaves them in a folder; return the folder.

    Args:
        site: the folder.
        entry_points: of the package, as its pyproject.toml declares them.
        modules: source by dotted name.
    """
    for name, source in modules.items():
        path = site.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    package = next(iter(modules)).partition(".")[0]
    metadata = site / f"{package}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    groups = tomllib.loads(entry_points)["project"]["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items()]
    (metadata / "entry_points.txt").write_text("".join(lines))
    return site


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with a folder of packages on its path."""
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment() | {"PYTHONPATH": path},
        check=False,
    )
