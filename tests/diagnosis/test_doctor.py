"""The command, on this machine and on a list of hosts of which one does not answer."""

import json

import pytest
from helpers.commands import command

pytestmark = pytest.mark.slow


def test_the_doctor_examines_this_machine_and_leaves_nothing(tmp_path):
    ran = command("doctor", f"storage={tmp_path / 'storage'}", "--json")
    found = {finding["check"]: finding for finding in json.loads(ran.stdout)["findings"]}
    assert ran.returncode == int(any(not finding["ok"] for finding in found.values()))
    assert found["storage"]["says"].endswith("1 of 1 machines seen")
    assert found["all-reduce within machines"]["ok"], ran.stderr
    assert found["all-reduce within machines"]["says"].endswith("GB/s by gloo")
    assert list((tmp_path / "storage").iterdir()) == []


def test_a_host_that_does_not_answer_and_a_storage_that_is_not_seen(tmp_path, monkeypatch):
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\n[ $1 = gone ] && { echo 'ssh: no route to host' >&2; exit 255; }\nexec sh -c \"$2\"\n")
    shell.chmod(0o755)
    monkeypatch.setenv("REMOTE_SHELL", str(shell))
    ran = command("doctor", "127.0.0.1,gone", f"storage={tmp_path / 'storage'}", "launch.visible_after=1")
    assert ran.returncode == 1
    lines = " ".join(ran.stdout.split())
    assert "✗ reached gone ssh: no route to host" in lines
    assert "1 of 2 machines seen → give storage a folder that all machines share" in lines
    for words, said in (
        (["a,b", "launch.address=auto"], "each names the machines"),
        (["--slurm"], "no allocation here"),
    ):
        refused = command("doctor", *words)
        assert (refused.returncode, said in refused.stderr) == (2, True)
