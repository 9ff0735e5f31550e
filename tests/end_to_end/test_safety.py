"""A real sweep with secrets in its environment: none is written anywhere, and what listens does so on loopback."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest
from helpers.commands import command, environment, is_loopback

SECRETS = {
    "HF_TOKEN": "hf_RECOGNISABLEsecretRECOGNISABLE0001",
    "RAY_AUTH_TOKEN": "recognisable-secret-0002",
    "AWS_SECRET_ACCESS_KEY": "recognisableSecret/0003",
    "AWS_SESSION_TOKEN": "recognisableSecret0004",
    "WANDB_API_KEY": "recognisable5ecret0005",
    "SOME_PASSWORD": "recognisable-secret-0006",
}


def listeners(processes: Iterable[psutil.Process]) -> set[tuple[str, str]]:
    """Address and command of each of the processes that listens for TCP."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it ended while it was being looked at
            words = " ".join(process.cmdline())
            sockets = process.net_connections("tcp")
            found |= {(entry.laddr.ip, words) for entry in sockets if entry.status == psutil.CONN_LISTEN}
    return found


@pytest.fixture(scope="module")
def watched(tiny, tmp_path_factory):
    """A sweep of one trial: its folder, what listened meanwhile, and what is left in its folder for temporary files."""
    storage = tmp_path_factory.mktemp("watched")
    # Not below the test's own folder: paths of Ray's sockets must be short.
    temporary = Path(tempfile.mkdtemp(prefix="watched"))
    arguments = [str(tiny), f"storage={storage}", "model.size=1.7k", "data.size=4k"]
    with (storage / "console.txt").open("w") as console:
        process = subprocess.Popen(
            [sys.executable, "-m", "amscale.sweep", *arguments],
            stdout=console,
            stderr=subprocess.STDOUT,
            env=environment() | SECRETS | {"TMPDIR": str(temporary)},
        )
        seen = set()
        while process.poll() is None:
            seen |= listeners([psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)])
            time.sleep(0.3)
    assert process.returncode == 0, (storage / "console.txt").read_text()
    yield storage, seen, sorted(path.name for path in temporary.iterdir())
    shutil.rmtree(temporary)


def test_no_secret_is_written(watched):
    storage, *_ = watched
    files = [path for path in storage.rglob("*") if path.is_file()]
    assert {"spec.yaml", "log.txt", "metrics.jsonl", "result.json", "report.html", "console.txt"} <= {
        path.name for path in files
    }
    told = [
        f"{name} in {path}"
        for path in files
        for name, secret in SECRETS.items()
        if secret.encode() in path.read_bytes()
    ]
    assert not told
    shown = command("status", str(storage / "tiny"))
    assert not [name for name, secret in SECRETS.items() if secret in shown.stdout + shown.stderr]


def test_what_listens_does_so_on_loopback(watched):
    _, seen, _ = watched
    for part in ("raylet", "accelerate.commands.launch"):
        assert any(part in words for _, words in seen)
    assert not [found for found in seen if not is_loopback(found[0])]


def test_no_start_of_a_trial_leaves_a_temporary_file(watched):
    """What remains are folders of fixed names, which do not grow in number: port locks, Ray's own, torch's cache."""
    *_, left = watched
    assert not [name for name in left if not name.startswith(("amscale-ports-", "torchinductor_")) and name != "ray"]
