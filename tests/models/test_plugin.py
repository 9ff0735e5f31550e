"""The family of docs/models.md, in a package outside the tree: planned and trained without an edit in amscale."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").partition("## A family in your own package")[2]
SMALL = ["model={family: parallel}", "grid={model.size: [12k], data.size: [8k]}", "data.documents=2k"]
SMALL += ["data.validation=200", "train.steps=20", "train.batch_tokens=700", "probes.every=10", "probes.sequences=16"]


def install(folder: Path, code: str, entry_point: str) -> Path:
    """Write a module and its metadata, as an installer leaves them in a folder of packages."""
    module = entry_point.partition("=")[2].partition(":")[0].strip()
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[amscale.families]\n{entry_point}\n")
    return folder


def run(packages: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python with a folder of packages on its path."""
    environment = {**os.environ, "PYTHONPATH": f"{packages}:{ROOT}", "COLUMNS": "160", "NO_COLOR": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    ((name, target),) = re.findall(r'^(\w+) = "(\w+:\w+)"$', PAGE, re.MULTILINE)
    return install(tmp_path_factory.mktemp("packages"), code, f"{name} = {target}")


@pytest.mark.slow
def test_a_family_of_another_package_is_planned_and_trained(packages, tmp_path):
    planned = run(packages, "-m", "amscale.plan", "grammar.yaml", *SMALL, f"storage={tmp_path}")
    assert planned.returncode == 0, planned.stderr
    assert "plan: 1 trial" in planned.stdout
    ran = run(packages, "-m", "amscale.sweep", "grammar.yaml", *SMALL, f"storage={tmp_path}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (path,) = tmp_path.glob("*/trials/parallel-*/result.json")
    result = json.loads(path.read_text())
    assert result["state"] == "finished"
    assert result["losses"]["validation_least"] < 4.2  # from ln 68
    shape, counts = result["shape"], result["parameters"]
    d, layers, hidden = shape["width"], shape["layers"], 4 * shape["width"]
    assert shape["options"] == {"dropout": 0.0}
    assert counts["embedding"] == (shape["vocabulary"] + shape["context"]) * d
    assert counts["output_head"] == shape["vocabulary"] * d
    assert counts["attention"] == layers * (4 * d * d + 4 * d)
    assert counts["feed_forward"] == layers * (2 * d * hidden + hidden + d)
    assert counts["norms_and_rest"] == (layers + 1) * 2 * d
    assert abs((counts["attention"] + counts["feed_forward"]) / 12_000 - 1) <= 0.03
    probes = [json.loads(line) for line in path.with_name("metrics.jsonl").read_text().splitlines()]
    names = {name for record in probes if record["kind"] == "probe" for name in record["values"]}
    assert any(name.startswith("energy/layer_") for name in names)


def test_messages_and_reference_know_the_family(packages):
    code = (
        "from amscale.config import load; from amscale.errors import InputError\n"
        "try: load('grammar.yaml', ['model={family: lstm}'])\n"
        "except InputError as error: print(error)\n"
        "from amscale.config.reference import reference; print('## model, parallel' in reference())\n"
    )
    done = run(packages, "-c", code)
    assert done.stdout.splitlines() == [
        "model.family='lstm'; allowed are 'vanilla', 'gpt2', 'openelm', 'hub', 'custom', 'script', 'parallel'",
        "True",
    ], done.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("Broken = 3", "give a subclass of amscale.models.Family"),
        ("from amscale.models import Family\nclass Broken(Family): pass", "abstract method"),
        (
            "from amscale.models import Family, FamilySettings\n"
            "class Broken(Family):\n    settings = FamilySettings\n    def build(self, shape): pass",
            'declare `family: Literal["broken"] = "broken"`',
        ),
    ],
)
def test_a_package_that_is_no_family_is_one_line(tmp_path, code, words):
    """It is noticed by who uses it, and by nobody else."""
    packages = install(tmp_path, code, "broken = broken_family:Broken")
    assert run(packages, "-m", "amscale.plan", "grammar.yaml", f"storage={tmp_path}").returncode == 0
    done = run(packages, "-m", "amscale.plan", "grammar.yaml", f"storage={tmp_path}", "model.family=broken")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "entry point 'broken' of amscale.families" in done.stderr
