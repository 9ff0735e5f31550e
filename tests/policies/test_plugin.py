"""The policy of docs/tuning.md, installed as a package outside the tree: a plan has its values without an edit."""

import json

import pytest
from helpers.packages import code_block, entry_point, install, run


@pytest.mark.slow
def test_policy_of_the_page_sets_what_it_says(tmp_path):
    site = install(tmp_path, entry_point("tuning.md"), {"widths": code_block("tuning.md", "python")})
    settings = ["train={policy: widths, epochs: 100}", "data.size=8k", "data.documents=1k", "data.validation=100"]
    done = run(site, "-m", "amscale.plan", "grammar.yaml", *settings, f"storage={tmp_path}", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [row["train.learning_rate"] for row in plan["trials"]] == [1 / 16, 1 / 32, 1 / 64]
    assert plan["policies"] == ["policy widths (this page; no N; batch in tokens) sets learning_rate, batch_tokens."]
