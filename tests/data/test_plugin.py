"""The corpus that docs/data.md adds, in a package outside the tree: what is said of one that will not do."""

import re

import pytest
from helpers.packages import code_block, entry_point, install, run

HEADING = "## Adding a corpus"
CODE = code_block("data.md", "python", HEADING)


@pytest.fixture
def site(tmp_path):
    (tmp_path / "coins.yaml").write_text(code_block("data.md", "yaml", HEADING))
    return install(tmp_path / "site", entry_point("data.md", HEADING), {"my_corpora.coins": CODE})


@pytest.mark.slow
def test_faults_of_an_added_corpus_are_one_line(site, tmp_path):
    def failure(*overrides):
        ran = run(site, "-m", "amscale.plan", str(tmp_path / "coins.yaml"), f"storage={tmp_path}/results", *overrides)
        assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
        return ran.stderr

    assert "data.heads=2 must be less than 1" in failure("data.heads=2")
    assert "unknown key data.tails=1" in failure("data.tails=1")
    assert re.search(r"data\.corpus='coin'; allowed are 'question_formation', .*'coins'", failure("data.corpus=coin"))
    module = site / "my_corpora" / "coins.py"
    module.write_text(CODE.replace('corpus: Literal["coins"] = "coins"', 'corpus: str = "coin"'))
    assert "entry point 'coins' of amscale.corpora: in Coins declare" in failure()
    module.write_text(CODE.replace("def texts", "def text"))
    assert "Coins lacks texts; add it" in failure()
    module.write_text("Coins = 3")
    assert "is 3; give a subclass of amscale.data.Corpus" in failure()
    module.write_text("import a_package_that_is_absent")
    assert "No module named 'a_package_that_is_absent'" in failure()
    other = run(site, "-m", "amscale.plan", str(tmp_path / "coins.yaml"), "data={corpus: question_formation}")
    assert other.returncode == 0, other.stderr  # a broken package does not stop those who do not use it
