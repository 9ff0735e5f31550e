"""The command that a user types: plan, train, fit; again, extended, and seen by `status`.

The sweep has secrets in its environment: none is written anywhere, and what listens does so on loopback.
"""

import contextlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from helpers.commands import Finished, check_results, command, environment, is_loopback
from safetensors.torch import load_file

from amscale import models
from amscale.config import expand, load, parse
from amscale.data import open_store
from amscale.settings import format_size
from amscale.trials.metrics import ProbeRecord, TrainRecord, ValidationRecord
from amscale.trials.trial_store import TrialStore

pytestmark = pytest.mark.slow

SECRETS = {
    "HF_TOKEN": "hf_RECOGNISABLEsecretRECOGNISABLE0001",
    "RAY_AUTH_TOKEN": "recognisable-secret-0002",
    "AWS_SECRET_ACCESS_KEY": "recognisableSecret/0003",
    "AWS_SESSION_TOKEN": "recognisableSecret0004",
    "WANDB_API_KEY": "recognisable5ecret0005",
    "SOME_PASSWORD": "recognisable-secret-0006",
}


def listeners(processes: Iterable[psutil.Process]) -> set[tuple[str, str]]:
    """Return address and command line of each of the processes that listens for TCP."""
    found = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it ended while it was being looked at
            words = " ".join(process.cmdline())
            sockets = process.net_connections("tcp")
            found |= {(entry.laddr.ip, words) for entry in sockets if entry.status == psutil.CONN_LISTEN}
    return found


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory) -> Iterator[Finished]:
    """The tiny sweep, run once for all tests that look at what it left."""
    storage = tmp_path_factory.mktemp("results")
    # Not below the test's own folder: paths of Ray's sockets must be short.
    temporary = Path(tempfile.mkdtemp(prefix="watched"))
    with (storage / "output.txt").open("w") as output, (storage / "error.txt").open("w") as error:
        process = subprocess.Popen(
            [sys.executable, "-m", "amscale.sweep", str(tiny), f"storage={storage}"],
            stdout=output,
            stderr=error,
            env=environment() | SECRETS | {"TMPDIR": str(temporary)},
        )
        seen = set()
        while process.poll() is None:
            seen |= listeners([psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)])
            time.sleep(0.3)
    said = (storage / "output.txt").read_text()
    assert process.returncode == 0, said + (storage / "error.txt").read_text()
    assert (storage / "error.txt").read_text() == ""
    left = tuple(sorted(path.name for path in temporary.iterdir()))
    yield Finished(storage / "tiny", said, storage, frozenset(seen), left)
    shutil.rmtree(temporary)


def test_every_trial_ran_under_deepspeed(finished):
    check_results(finished.results(), 4, "cpu", "fp32")


def test_planned_size_is_the_size_of_the_model(tiny, finished):
    """The plan's N, the counts by component and the saved weights are one number."""
    cells = {cell.model.size: cell for cell in expand(load(str(tiny)))}
    for result in finished.results():
        settings = cells[result["settings"]["model"]["size"]]
        shape = models.solve(settings.model, result["shape"]["vocabulary"], result["shape"]["context"])
        assert shape.parameters.as_dict() == result["parameters"]
        assert sum(p.numel() for p in models.build(shape).parameters()) == result["parameters"]["total"]
        weights = load_file(finished.folder / "trials" / result["label"] / "model.safetensors")
        assert sum(tensor.numel() for tensor in weights.values()) == result["parameters"]["total"]
        counted = result["parameters"]["attention"] + result["parameters"]["feed_forward"]
        assert f"-N{format_size(counted)}-" in result["label"]


def test_saved_weights_give_the_recorded_loss(finished):
    """The last validation loss, computed anew from the weights on disk by a plain loop."""
    result = finished.results()[0]
    folder = TrialStore(finished.folder / "trials" / result["label"])
    spec = folder.read_spec()
    cell = parse(spec.settings)
    store = open_store(spec.store)
    model = models.build(models.solve(cell.model, store.vocabulary_size, result["shape"]["context"])).eval()
    model.load_state_dict(load_file(folder.weights))
    documents = store.validation()
    measured = math.ceil(cell.train.validation_tokens / (documents.unique_tokens / documents.documents))
    total, count = 0.0, 0
    for index in range(measured):
        tokens = torch.from_numpy(documents.document(index).astype("int64"))
        inputs = torch.cat([torch.tensor([store.end_token]), tokens[:-1]])
        with torch.no_grad():
            losses = torch.nn.functional.cross_entropy(model(inputs[None])[0], tokens, reduction="sum")
        total, count = total + float(losses), count + len(tokens)
    assert total / count == pytest.approx(result["losses"]["validation_last"], abs=1e-5)


def test_output_has_no_chatter_of_libraries(finished):
    """The plan, progress, results and estimates are printed; the libraries' chatter is not."""
    for wanted in ("plan: 4 trials", "steps", "ZeRO", ": done, 4 of 4", "validation loss", "D*(N)"):
        assert wanted in finished.output
    for chatter in ("deepspeed", "WARNING", "INFO", "ray::", "Traceback", "FutureWarning"):
        assert chatter not in finished.output
    assert (finished.folder / "fit.json").is_file()


def test_metrics_and_probes_are_on_record(finished):
    folder = TrialStore(finished.folder / "trials" / finished.results()[0]["label"])
    steps = [record.step for record in folder.read_metrics(TrainRecord)]
    assert steps == list(range(1, 31))
    assert [record.step for record in folder.read_metrics(ValidationRecord)] == [10, 20, 30]
    probes = list(folder.read_metrics(ProbeRecord))
    assert [record.step for record in probes] == [20, 30]
    values = probes[-1].values
    for layer in ("layer_00", "layer_01"):
        g, energy = values[f"energy/{layer}/g_mean"], values[f"energy/{layer}/E_mean"]
        assert energy <= g
    assert list(folder.tensorboard.glob("events.out.tfevents.*"))


def test_a_new_column_runs_only_its_cells(tiny, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.glob("trials/*/result.json")}
    more = command("sweep", str(tiny), f"storage={finished.storage}", "data.size=[4k,8k,12k]", "model.size=1.7k")
    assert more.returncode == 0, more.stdout + more.stderr
    assert more.stdout.count(": starting") == 1
    after = {path: path.stat().st_mtime_ns for path in finished.folder.glob("trials/*/result.json")}
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 1
    (added,) = set(after) - set(before)
    assert json.loads(added.read_text())["data"]["unique_tokens"] >= 12_000
    added.unlink()


def test_status_reads_the_files_alone(finished):
    seen = command("status", str(finished.folder))
    assert seen.returncode == 0
    for result in finished.results():
        assert result["label"] in seen.stdout
    assert seen.stdout.count("finished") >= 4


def test_no_secret_is_written(finished):
    files = [path for path in finished.storage.rglob("*") if path.is_file()]
    wanted = {"spec.yaml", "log.txt", "metrics.jsonl", "result.json", "report.html", "output.txt", "error.txt"}
    assert wanted <= {path.name for path in files}
    written = [
        f"{name} in {path}"
        for path in files
        for name, secret in SECRETS.items()
        if secret.encode() in path.read_bytes()
    ]
    assert not written
    shown = command("status", str(finished.folder))
    assert not [name for name, secret in SECRETS.items() if secret in shown.stdout + shown.stderr]


def test_what_listens_does_so_on_loopback(finished):
    for part in ("raylet", "accelerate.commands.launch"):
        assert any(part in words for _, words in finished.listeners)
    assert not [found for found in finished.listeners if not is_loopback(found[0])]


def test_no_attempt_of_a_trial_leaves_a_temporary_file(finished):
    """What remains is a folder of a fixed name, torch's cache."""
    assert not [name for name in finished.temporary if not name.startswith("torchinductor_")]
