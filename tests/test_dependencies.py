"""What the package imports is declared, and what is declared is imported."""

import ast
import functools
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OTHER_NAMES = {"mlflow": "mlflow-skinny"}
"""Packages by their module, where an extra is not installed and the names differ."""
BOUNDED = ("torch", "ray", "deepspeed", "accelerate", "transformers")
"""Packages whose private interfaces are used (docs/private_apis.md)."""


@functools.cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@functools.cache
def requirements() -> dict[str, Requirement]:
    """Requirements of an installation without extras, by name."""
    parsed = map(Requirement, project()["dependencies"])
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


@functools.cache
def extras() -> set[str]:
    """Names of the packages that a user's extras add."""
    named = [line for extra, lines in project()["optional-dependencies"].items() if extra != "dev" for line in lines]
    return {canonicalize_name(Requirement(line).name) for line in named}


@functools.cache
def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


@functools.cache
def imported() -> dict[str, set[str]]:
    """Top-level modules that the package imports from elsewhere, with the files that do."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "amscale").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                names = [word.value for word in node.args[:1] if isinstance(word, ast.Constant)]
            else:
                continue
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(str(path.relative_to(ROOT)))
    return {name: files for name, files in found.items() if name not in {*sys.stdlib_module_names, "amscale"}}


def distributions(module: str) -> set[str]:
    """Names of the installed packages that hold a top-level module."""
    return {canonicalize_name(name) for name in installed_modules().get(module, [OTHER_NAMES.get(module, module)])}


@functools.cache
def installed_modules() -> Mapping[str, list[str]]:
    return packages_distributions()


def test_every_import_is_declared():
    assert len(imported()) > 15
    allowed = requirements().keys() | extras()
    undeclared = {name: files for name, files in imported().items() if not distributions(name) & allowed}
    assert not undeclared


def test_every_dependency_is_imported():
    used = {distribution for module in imported() for distribution in distributions(module)}
    assert requirements().keys() <= used


@pytest.mark.parametrize("name", BOUNDED)
def test_ranges_have_upper_bounds(name):
    assert any(bound.operator in ("<", "<=", "==", "~=") for bound in requirements()[name].specifier)


def test_pinned_versions_are_in_the_ranges():
    """torch is not among them: its builds differ, so that it is installed by itself."""
    ranges = requirements()
    assert ranges.keys() - pins().keys() == {"torch"}
    assert not [name for name in ranges.keys() - {"torch"} if not ranges[name].specifier.contains(pins()[name])]
    installed = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("TORCH ?= "))
    assert ranges["torch"].specifier.contains(installed.partition("torch==")[2])


def test_the_python_that_is_named_is_the_python_that_is_required():
    wanted = SpecifierSet(project()["requires-python"])
    (least,) = (bound.version for bound in wanted)
    assert f"Python ≥ {least}" in (ROOT / "README.md").read_text()
    assert f"Python {least} or newer" in (ROOT / "Makefile").read_text()
    assert f"({least.replace('.', ', ')})" in (ROOT / "Makefile").read_text()
