"""`train --json` and `probe --json`, as scripts start them: one JSON document on standard output, and nothing else."""

import json
import shlex
import subprocess

import pytest
from helpers.commands import command, environment


@pytest.mark.slow
def test_train_and_probe_print_one_document(tiny, tmp_path):
    cell = [str(tiny), "model.size=1.7k", "data.size=4k", "train.steps=4", "probes.every=4", f"storage={tmp_path}"]
    plan = json.loads(command("plan", *cell, "--commands", "--json").stdout)
    line = shlex.split(plan["trials"][0]["command"])
    trained = subprocess.run(
        [*line, "--json"], capture_output=True, text=True, encoding="utf-8", env=environment(), timeout=600, check=False
    )
    assert trained.returncode == 0, trained.stderr
    document = json.loads(trained.stdout)
    assert (document["state"], document["steps"]) == ("finished", 4)

    sample = "sample={chunks: 20, tokens: 8, layers: [-1], device: cpu}"
    probed = command(
        "probe", "radius_cpu.yaml", f"model.path={tmp_path / 'tiny'}", sample, f"storage={tmp_path}", "--json"
    )
    assert probed.returncode == 0, probed.stderr
    summary = json.loads(probed.stdout)
    assert summary["model"] == document["label"]
    assert summary["folder"].startswith(str(tmp_path))
