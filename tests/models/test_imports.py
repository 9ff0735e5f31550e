"""The modules of the package import each other in one direction, those within functions included."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from amscale import models

ROOT = Path(models.__file__).parent


def imported(path: Path, names: set[str]) -> set[str]:
    """The modules of `names` that a file imports anywhere but for its type annotations."""
    tree = ast.parse(path.read_text())
    checking = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    annotations = {id(inner) for outer in checking for inner in ast.walk(outer)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in annotations:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found & names


def test_no_module_imports_itself_over_others():
    """The registry finds families by entry points, so no import leads back from it."""
    paths = {
        f"amscale.models.{'.'.join(p.relative_to(ROOT).with_suffix('').parts)}": p
        for p in ROOT.rglob("*.py")
        if p.name != "__init__.py"
    }
    graph = {name: imported(path, set(paths)) for name, path in paths.items()}
    assert "amscale.models.networks.openelm" in graph["amscale.models.families.openelm"]
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle
