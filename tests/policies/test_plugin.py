"""The policy of docs/tuning.md, installed as a package outside the tree: a plan has its values without an edit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_policy_of_the_page_sets_what_it_says(tmp_path):
    page = (ROOT / "docs" / "tuning.md").read_text()
    (tmp_path / "widths.py").write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    metadata = tmp_path / "widths-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: widths\nVersion: 1.0\n")
    group, entry = re.search(r'\[project\.entry-points\."(.*?)"\]\n\s*(.*)', page).groups()
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry.replace(chr(34), '')}\n")
    settings = ["train={policy: widths, epochs: 100}", "data.size=8k", "data.documents=1k", "data.validation=100"]
    command = [sys.executable, "-m", "amscale.plan", "grammar.yaml", *settings, f"storage={tmp_path}", "--json"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert [row["train.learning_rate"] for row in plan["trials"]] == [1 / 16, 1 / 32, 1 / 64]
    assert plan["policies"] == ["policy widths (this page; no N; batch in tokens) sets learning_rate, batch_tokens."]
