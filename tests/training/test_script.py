"""A training script of the user's own: the example of docs/own_script.md as a sweep, killed and resumed; mistakes."""

import json
import modulefinder
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import amscale
from amscale import config
from amscale.errors import InputError
from amscale.models import user_code
from amscale.models.user_code import script_hash

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "own_script.md").read_text(encoding="utf-8")
SCRIPT, YAML = (re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL).group(1) for kind in ("python", "yaml"))
KILLED = """\
    if trial.options["killed"] and step == 30 and not (trial.folder / "killed").exists():
        (trial.folder / "killed").touch()
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""


def sweep(folder, script, *settings):
    """Run a sweep of a script in a folder; return the process and the trials' results with their training losses."""
    folder.mkdir(exist_ok=True)
    (folder / "my_train.py").write_text(script, encoding="utf-8")
    (folder / "script.yaml").write_text(YAML, encoding="utf-8")
    command = [sys.executable, "-m", "amscale.sweep", "script.yaml", *settings]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, timeout=600, check=False
    )
    found = []
    for path in sorted(folder.glob("results/script/trials/*/result.json")):
        records = [json.loads(line) for line in path.with_name("metrics.jsonl").read_text().splitlines()]
        found.append((json.loads(path.read_text()), [(r["step"], r["loss"]) for r in records if r["kind"] == "train"]))
    return done, found


def test_five_lines_are_added():
    assert len(re.findall(r"# amscale$", SCRIPT, re.MULTILINE)) == 5


@pytest.mark.slow
def test_a_script_is_a_sweep_and_a_killed_one_goes_on(tmp_path, monkeypatch):
    """Half of the trials are killed at step 30, after a checkpoint at 20: the same losses, each step once."""
    script = SCRIPT.replace("    loss = loss_on", KILLED + "    loss = loss_on")
    settings = ["grid.model.size=[1k,4k]", "grid.data.size=[4k]", "grid.train.options.killed=[false,true]"]
    done, found = sweep(tmp_path, script, *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    calm, killed = {}, {}
    for result, losses in found:
        ways = killed if result["settings"]["train"]["options"]["killed"] else calm
        ways[result["parameters"]["total"]] = losses
    for path in tmp_path.glob("results/script/trials/*/metrics.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        times = [record["time"] for record in records if record["kind"] == "train"]
        assert times == sorted(times), "seconds go on where the attempt before was killed"
    assert list(calm) == [2 * 64 * (1000 // 128), 2 * 64 * (4000 // 128)]
    assert killed == calm
    assert len(list(tmp_path.glob("results/script/trials/*/killed"))) == 2
    assert all(result["script"]["reported"] == ["parameters"] for result, _ in found)
    assert all([step for step, _ in losses] == list(range(1, 61)) for _, losses in found)
    assert all(result["losses"]["validation_least"] < 3 for result, _ in found)  # from ln 64 = 4.16
    # Other code, other trials.
    monkeypatch.chdir(tmp_path)
    Path("my_train.py").write_text(script + "\n")
    planned = amscale.Sweep("script.yaml", settings).plan()["label"]
    assert len(planned) == 4
    assert not {*planned} & {result["label"] for result, _ in found}


@pytest.mark.slow
def test_a_script_without_a_result_is_refused_once(tmp_path):
    script = "import amscale\ntrial = amscale.current_trial()\nif trial.N > 1000:\n    trial.finish()\n"
    done, found = sweep(tmp_path, script, "grid.data.size=[500]")
    assert (done.returncode, found) == (1, [])
    for words in ("ended without a result; call trial.finish", "nothing was logged; call trial.log"):
        assert words in " ".join(done.stdout.split())
    failures = list(tmp_path.glob("results/script/trials/*/failures.jsonl"))
    assert [len(path.read_text().splitlines()) for path in failures] == [1, 1]


def test_an_edit_of_a_script_or_of_what_it_imports_is_noticed_in_one_process(tmp_path):
    script, other = tmp_path / "my_train.py", tmp_path / "batches.py"
    deep = tmp_path / "helpers" / "more" / "util.py"  # in packages without __init__.py
    deep.parent.mkdir(parents=True)
    deep.write_text("x = 1\n")
    script.write_text("import batches\nimport amscale\nfrom helpers.more.util import x\nimport helpers.more.util\n")
    other.write_text("SIZE = 1\n")
    before = script_hash(script)
    assert script_hash(script) == before
    for path, text in ((other, "SIZE = 22\n"), (deep, "x = 22\n"), (script, "import batches as b\n")):
        path.write_text(text)
        assert script_hash(script) != before
        before = script_hash(script)


def test_packages_are_read_whatever_number_modulefinder_has_for_them(tmp_path, monkeypatch):
    """The number is its own affair, and may be another in the next Python."""
    script, deep, whole = tmp_path / "my_train.py", tmp_path / "more" / "util.py", tmp_path / "whole" / "__init__.py"
    script.write_text("import whole\nimport more.util\n")
    for path in (deep, whole):
        path.parent.mkdir()
        path.write_text("x = 1\n")
    before = script_hash(script)
    monkeypatch.setattr(modulefinder, "_PKG_DIRECTORY", 99, raising=False)
    monkeypatch.setattr(user_code, "_read", {})
    assert script_hash(script) == before
    deep.write_text("x = 22\n")
    assert script_hash(script) != before


def test_a_script_beside_amscale_is_its_own_code_alone(tmp_path):
    """As in a clone, whose folder holds the package: an edit of amscale makes no other trial."""
    (tmp_path / "amscale" / "cluster").mkdir(parents=True)
    (tmp_path / "amscale" / "__init__.py").write_text("from amscale.cluster import a\n")
    part = tmp_path / "amscale" / "cluster" / "a.py"
    part.write_text("x = 1\n")
    script = tmp_path / "my_train.py"
    script.write_text("import amscale\n")
    before = script_hash(script)
    part.write_text("x = 22\n")
    assert script_hash(script) == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["train.script=null", "train.options={}"], "give train.script, or another"),
        (["storage=s3://bucket/x"], "train.script keeps its checkpoints in a folder"),
        (
            ["train.script=null", "train.options={x: 1}", "model={family: vanilla, size: 1k}", "data.corpus=kjv"],
            "train.options",
        ),
    ],
)
def test_configurations_that_will_not_do(settings, words, tmp_path):
    path = tmp_path / "script.yaml"
    path.write_text(YAML, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(words)):
        config.load(str(path), settings)
