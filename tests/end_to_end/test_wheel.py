"""The wheel works outside the checkout: its configurations and launch files travel in it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the contents of a freshly built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = Path(__file__).parents[2]
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(checkout)]
    subprocess.run(build, check=True, capture_output=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_commands_run_from_the_wheel(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )

    where = python("-c", "import amscale.files as f; print(f.packaged('configs'), f.packaged('launch'))")
    assert where.stdout.split() == [str(installed / "amscale" / name) for name in ("configs", "launch")]
    planned = python("-m", "amscale.plan", "--commands")
    assert planned.returncode == 0, planned.stderr
    assert "25 trials" in planned.stdout
    assert str(installed / "amscale" / "launch" / "zero0.json") in planned.stdout
