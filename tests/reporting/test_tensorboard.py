"""A sweep in TensorBoard: names that sort, a run of the sweep that is written anew, and the server."""

import json
import shlex
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from helpers.commands import wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from amscale.reporting.tensorboard import SweepBoard, first_view, run_names, served
from amscale.scaling.fit import fit_so_far
from amscale.status import status
from amscale.trials.sweep_store import ObjectSweepStore, SweepStore

FIT = {"count": "non_embedding", "window": 0.2, "threshold": 0.04, "hypotheses": (0.5, 1.0, 2.0)}


def test_names_sort_by_size_tokens_and_seed_and_are_unique():
    labels = [
        f"vanilla-N{N}-D{D}-seed{seed}-{index:012x}"
        for index, (N, D, seed) in enumerate(
            [("1.2M", "8k", 0), ("99k", "20k", 10), ("99k", "8k", 2), ("99k", "20k", 10)]
        )
    ]
    names = run_names(dict.fromkeys(labels, ""))
    assert sorted(names.values()) == [
        "N1=99k,D1=8k,seed2",
        "N1=99k,D2=20k,seed10",
        "N1=99k,D2=20k,seed10,000000000003",
        "N2=1.2M,D1=8k,seed0",
    ]
    many = run_names({f"v-N{N}M-D{D}M-seed0-{N:06x}{D:06x}": "lr=0.01" for N in range(1, 26) for D in range(1, 41)})
    assert sorted(many.values(), key=str) == list(many.values())
    assert many["v-N3M-D7M-seed0-000003000007"] == "N03=3M,D07=7M,seed0,lr=0.01"


def sweep_run(folder):
    board = EventAccumulator(str(folder))
    board.Reload()
    return board


def test_the_run_of_the_sweep_is_written_anew_as_trials_finish(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(6000, 24000), tokens=(20000, 50000), layers=0)
    labels = dict.fromkeys((path.name for path in (folder / "trials").iterdir()), "")
    labels["vanilla-N6000-D8000-seed0"] = ""
    board = SweepBoard(SweepStore(folder), labels, FIT)
    board.link()
    board.write(fit_so_far(folder, **FIT))
    made.write_trial(folder, "vanilla-N6000-D8000-seed0", 6000, 8000, layers=0)
    for _ in range(3):
        board.write(fit_so_far(folder, **FIT))
    run = folder / "tensorboard" / "All"
    losses = sweep_run(run / "N1=6k").Scalars("Sweep/least validation loss against D")
    known = {
        result["data"]["unique_tokens"]: result["losses"]["validation_least"]
        for file in folder.glob("trials/*N6000-*/result.json")
        for result in [json.loads(file.read_text())]
    }
    assert [(event.step, pytest.approx(event.value)) for event in losses] == sorted(known.items())
    whole = sweep_run(run)
    assert whole.Scalars("Sweep/D star against N")[0].step == 6000
    text = whole.Tensors("Sweep/verdict")[-1]
    assert text.step == 5
    assert r"### Does N grow as D\^k" in text.tensor_proto.string_val[0].decode()
    assert len(list(run.glob("events*"))) == 1
    link = folder / "tensorboard" / "N1=6000,D2=20000,seed0"
    assert link.resolve() == folder / "trials" / "vanilla-N6000-D20000-seed0" / "tb"


def test_the_line_of_a_size_keeps_its_name_while_smaller_ones_are_trained(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(24000,), tokens=(20000, 50000), layers=0)
    lines = folder / "tensorboard" / "All"
    SweepBoard(SweepStore(folder), {}, FIT, (6000, 24000)).write(fit_so_far(folder, **FIT))
    assert [path.name for path in lines.glob("N*")] == ["N2=24k"]
    made.write_trial(folder, "vanilla-N3000-D8000-seed0", 3000, 8000, layers=0)
    SweepBoard(SweepStore(folder), {}, FIT, (3000, 6000, 24000)).write(fit_so_far(folder, **FIT))
    assert sorted(path.name for path in lines.glob("N*")) == ["N1=3k", "N3=24k"]


def test_the_page_to_open_first_has_the_sweep_alone_where_no_run_is_ticked():
    assert first_view("http://127.0.0.1:6006/", 40) == "http://127.0.0.1:6006/?smoothing=0#timeseries"
    assert first_view("http://h/", 41).startswith(
        "http://h/?smoothing=0&runFilter=^All#timeseries   (no run of so many"
    )


def test_curves_under_a_uri_are_fetched_as_trials_upload_them(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    far = made.write_sweep(tmp_path / "far" / "s", sizes=(6000,), tokens=(8000, 20000), layers=0)
    labels = {path.name: "" for path in (far / "trials").iterdir()}
    running = max(labels)  # the D of 8000
    result = (far / "trials" / running / "result.json").rename(tmp_path / "later.json")
    sweep = ObjectSweepStore(far.parent.as_uri(), None, "s")
    with sweep.owned():
        board = SweepBoard(sweep, labels, FIT)
        board.link()
        curve = far / "trials" / running / "tb" / "events.out.tfevents.1"
        curve.parent.mkdir()
        curve.write_bytes(b"curve")
        board.trial_reported()
        seen = board.folder / "N1=6000,D1=8000,seed0" / curve.name
        wait_until(seen.is_file, 300, "the curve of a running trial")
        result.rename(far / "trials" / running / "result.json")
        sweep.pull()
        board.finish(fit_so_far(sweep.path, **FIT))
        assert len(sweep_run(board.folder / "All" / "N1=6k").Scalars("Sweep/least validation loss against D")) == 2
    assert not (far / "tensorboard").exists(), "each reader makes its own"
    assert status(far.as_uri()) == 0
    folder = Path(shlex.split(capsys.readouterr().out)[-1])
    assert (folder / "N1=6000,D1=8000,seed0" / curve.name).read_bytes() == b"curve"


@pytest.mark.slow
def test_the_server_shows_the_runs_on_loopback_and_ends(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(6000,), tokens=(8000, 20000), layers=0)
    board = SweepBoard(SweepStore(folder), {}, FIT)
    board.link()
    board.write(fit_so_far(folder, **FIT))
    with served(board.folder) as address:
        runs: list[str] = []

        def shown() -> bool:
            with suppress(URLError, ConnectionError):  # it has not started yet
                runs[:] = json.load(urlopen(f"{address}data/runs"))
            return bool(runs)

        wait_until(shown, 300, "runs on the server")
    assert sorted(runs) == ["All", "All/N1=6k"]
    with pytest.raises(URLError):
        urlopen(f"{address}data/runs")
