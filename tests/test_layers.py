"""Imports go one way: docs/design.md draws the packages in the order that is held here against the source."""

import ast
import importlib
import importlib.util
from pathlib import Path

import pytest

import amscale

ROOT = Path(amscale.__file__).parent
LAYERS = (
    ("errors", "locks", "streams", "usage"),
    ("registry", "settings", "files", "folders", "huggingface"),
    ("hopfield", "models", "data"),
    ("probes", "policies", "trackers"),
    ("config",),
    ("trials",),
    ("cluster", "scaling", "cli"),
    ("planning", "diagnosis"),
    ("training", "reporting"),
    ("radius", "driver", "fitted", "subcommand"),
    ("api",),
    ("plan", "train", "status", "fit", "report", "probe", "doctor", "compare", "export", "reproduce", "clean", "card"),
    ("sweep",),
    ("__main__",),
)
"""Packages and modules, lowest first; a layer imports from lower ones only."""
LAYER = {name: index for index, names in enumerate(LAYERS) for name in names}


def imported(path: Path) -> set[str]:
    """The packages and top modules of amscale that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "amscale":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found & set(LAYER)


def test_every_import_goes_down():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        assert own in LAYER, f"{own} has no layer in {Path(__file__).name}"
        for name in imported(path) - {own}:
            if LAYER[name] >= LAYER[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_cluster_knows_nothing_of_training():
    for path in (ROOT / "cluster").rglob("*.py"):
        assert "training" not in imported(path), path


def _is_module(package, name):
    return hasattr(package, "__path__") and importlib.util.find_spec(f"{package.__name__}.{name}") is not None


BESIDE = sorted(path for name in ("benchmarks", "findings", "tests") for path in (ROOT.parent / name).glob("*.py"))


@pytest.mark.parametrize("path", BESIDE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_a_script_imports_is_there(path):
    """Of scripts that no test runs, so that one which lags behind a change is named at once."""
    missing = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "amscale":
            module = importlib.import_module(str(node.module))
            missing += [
                f"{path.name}:{node.lineno}: {node.module} has no {alias.name}"
                for alias in node.names
                if not hasattr(module, alias.name) and not _is_module(module, alias.name)
            ]
    assert not missing
