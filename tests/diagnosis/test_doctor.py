"""The command, on this machine and on a list of hosts of which one does not answer."""

import json

import pytest
from helpers.commands import command

pytestmark = pytest.mark.slow


def test_the_doctor_examines_this_machine_and_leaves_nothing(tmp_path):
    ran = command("doctor", f"storage={tmp_path / 'storage'}", "--json")
    found = {finding["check"]: finding for finding in json.loads(ran.stdout)["findings"]}
    assert ran.returncode == int(any(not finding["ok"] for finding in found.values()))
    assert found["storage"]["says"].endswith("ms for a small file")
    assert found["first update"]["says"] == "as plain AdamW makes it (cpu, fp32, ZeRO stage 0)"
    assert found["all-reduce within"]["ok"], ran.stderr
    assert found["all-reduce within"]["says"].endswith("GB/s by gloo")
    assert list((tmp_path / "storage").iterdir()) == []


def test_a_host_that_does_not_answer(tmp_path, monkeypatch):
    shell = tmp_path / "shell"
    shell.write_text("#!/bin/sh\n[ $1 = gone ] && { echo 'ssh: no route to host' >&2; exit 255; }\nexec sh -c \"$2\"\n")
    shell.chmod(0o755)
    monkeypatch.setenv("REMOTE_SHELL", str(shell))
    ran = command("doctor", "127.0.0.1,gone", f"storage={tmp_path / 'storage'}", "launch.visible_after=1")
    assert ran.returncode == 1
    lines = " ".join(ran.stdout.split())
    assert "✗ reached gone ssh: no route to host" in lines
    assert "✗ storage 127.0.0.1" not in lines  # of the machines that answer, all write
    for words, said in (
        (["a,b", "launch.address=auto"], "each names the machines"),
        (["--slurm"], "no allocation here"),
    ):
        refused = command("doctor", *words)
        assert (refused.returncode, said in refused.stderr) == (2, True)
