"""Bad input through the real commands: one line, exit status 2, nothing started."""

import subprocess
import sys

import pytest
from helpers.commands import command


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.sise=3", "unknown key model.sise=3"),
        ("model.size=7", "model.size = 7"),
        ("data.size=1B", "data.size: 1000000000 tokens (1B) wanted"),
        ("train.learning_rate=-1", "train.learning_rate=-1"),
        ("launch.processes_per_machine=999", "launch.processes_per_machine=999"),
        ("launch.machines=2", "launch.machines=2"),
        ("model.family=bert", "model.family='bert'"),
        ("storage=/proc/nowhere", "storage='/proc/nowhere'"),
        ("launch.address=127.0.0.1:1", "launch.address='127.0.0.1:1'"),
    ],
)
def test_sweep_names_the_setting_in_one_line_and_starts_nothing(override, words, tiny, tmp_path):
    arguments = [f"storage={tmp_path}", override]
    ran = command("sweep", str(tiny), *arguments)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert not list(tmp_path.glob("*/trials/*"))


def test_a_data_file_that_is_no_text(tiny, tmp_path):
    (tmp_path / "data.txt").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "text.yaml").write_text(
        tiny.read_text().replace("{corpus: question_formation, documents: 2k, validation: 200}", "{corpus: text}")
    )
    arguments = [f"storage={tmp_path}/results", f"data.files={tmp_path}/data.txt"]
    ran = command("sweep", str(tmp_path / "text.yaml"), *arguments)
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert "data.txt" in ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr


@pytest.mark.parametrize("name", ["sweep", "plan", "status", "fit"])
def test_an_unknown_flag_and_help(name):
    ran = command(name, "--wings=2")
    assert ran.returncode == 2
    assert "unknown flag --wings=2" in ran.stderr
    helped = command(name, "--help")
    assert helped.returncode == 0
    assert "DESCRIPTION" in helped.stdout + helped.stderr


@pytest.mark.parametrize("switch", ["--dry_run", "--dry-run"])
def test_a_setting_after_a_switch_counts(switch, tiny, tmp_path):
    ran = command("sweep", str(tiny), switch, "model.size=1.7k", f"storage={tmp_path}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "plan: 2 trials" in ran.stdout
    assert not list(tmp_path.glob("*/trials/*"))


def test_train_names_the_command_that_starts_it(tiny):
    ran = command("train", str(tiny))
    assert ran.returncode == 2
    assert "plan --commands" in ran.stderr


def test_other_systems_are_told():
    code = "import sys; sys.platform = 'darwin'; from amscale import cli; cli.run(print, [])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "amscale runs on Linux only, and this is darwin\n"
