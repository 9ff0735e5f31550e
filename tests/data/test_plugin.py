"""The corpus that docs/data.md adds, in a package outside the tree, by the real commands."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.commands import environment

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text().partition("## Adding a corpus")[2]


def block(language: str) -> str:
    """Return the code block of that language from the docs."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def install(site: Path, entry: str, **modules: str) -> None:
    """Write a package as pip installs one: its modules, and its entry points in a dist-info folder."""
    (site / "my_corpora").mkdir(parents=True)
    for name, source in {"__init__": "", **modules}.items():
        (site / "my_corpora" / f"{name}.py").write_text(source)
    info = site / "my_corpora-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-corpora\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[amscale.corpora]\n{entry}\n")


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**environment(), "PYTHONPATH": path},
        check=False,
    )


@pytest.fixture
def site(tmp_path):
    heading, entry = block("toml").strip().splitlines()
    assert heading == '[project.entry-points."amscale.corpora"]'
    install(tmp_path / "site", entry.replace('"', ""), coins=block("python"))
    (tmp_path / "coins.yaml").write_text(block("yaml"))
    return tmp_path / "site"


@pytest.mark.slow
def test_the_corpus_of_the_docs_is_planned_and_trained(site, tmp_path):
    configuration, storage = str(tmp_path / "coins.yaml"), f"storage={tmp_path}/results"
    planned = run(site, "amscale.plan", configuration, storage)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "2 trials" in planned.stdout
    assert not (tmp_path / "results" / "tokens").exists()  # word types and lengths are known: no token is made
    swept = run(site, "amscale.sweep", configuration, storage)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("results/coins/trials/*/result.json")]
    assert sorted(result["data"]["unique_tokens"] for result in results) == [4000, 12000]
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) * 15 / 16
    for result in results:
        assert result["settings"]["data"]["heads"] == 0.9
        assert result["data"]["entropy_per_token"] == pytest.approx(entropy, rel=1e-12)


@pytest.mark.slow
def test_faults_of_an_added_corpus_are_one_line(site, tmp_path):
    def failure(*overrides):
        ran = run(site, "amscale.plan", str(tmp_path / "coins.yaml"), f"storage={tmp_path}/results", *overrides)
        assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
        return ran.stderr

    assert "data.heads=2: Input should be less than 1" in failure("data.heads=2")
    assert "unknown key data.tails=1" in failure("data.tails=1")
    assert re.search(r"data\.corpus='coin'; allowed are 'question_formation', .*'coins'", failure("data.corpus=coin"))
    module = site / "my_corpora" / "coins.py"
    module.write_text(block("python").replace('corpus: Literal["coins"] = "coins"', 'corpus: str = "coin"'))
    assert "entry point 'coins' of amscale.corpora: in Coins declare" in failure()
    module.write_text(block("python").replace("def texts", "def text"))
    assert "Coins lacks texts; add it" in failure()
    module.write_text("Coins = 3")
    assert "is 3; give a subclass of amscale.data.Corpus" in failure()
    module.write_text("import a_package_that_is_absent")
    assert "No module named 'a_package_that_is_absent'" in failure()
    other = run(site, "amscale.plan", str(tmp_path / "coins.yaml"), "data={corpus: question_formation}")
    assert other.returncode == 0, other.stderr  # a broken package does not stop those who do not use it
