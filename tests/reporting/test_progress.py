"""Progress lines of a sweep, and the table of its trials."""

import io
import json
import os

import pytest
from rich.console import Console

from amscale.reporting.progress import LiveProgress
from amscale.reporting.terminal import print_results
from amscale.reporting.watch import SweepWatch, watch
from amscale.trials.sweep_store import SweepStore


def console(terminal: bool = False, height: int = 20) -> Console:
    return Console(file=io.StringIO(), width=132, height=height, force_terminal=terminal)


def text_of(console: Console) -> str:
    return console.file.getvalue()


def test_a_pipe_gets_a_line_for_each_event():
    output = console()
    with LiveProgress(output, {"a": 100, "b": 50}, done={"z": 1.0}) as progress:
        progress.started("a")
        progress.progress("a", {"state": "training", "step": 10, "loss": 2.5, "tokens": 600, "seconds": 2.0})
        progress.noted("a", "the micro-batch is [halved]")
        progress.failed("b", "exit status 1", again=True)
        progress.ended("a")
    assert text_of(output).splitlines() == [
        "a: starting",
        "a: the micro-batch is [halved]",
        "b: failed, starting again: exit status 1",
        "a: done, 2 of 3",
    ]
    assert progress.reasons == {"b": "exit status 1"}


def test_a_line_of_numbers_is_printed_when_the_last_line_is_old(monkeypatch):
    monkeypatch.setattr("amscale.reporting.progress._LINE_SECONDS", -1.0)
    output = console()
    report = {"state": "training", "loss": 2.5, "validation_loss": 3.25, "tokens": 600, "seconds": 2.0}
    with LiveProgress(output, {"a": 1000}, done={}) as progress:
        progress.progress("a", report | {"step": 10})
    assert text_of(output) == "a: step 10 of 1,000, train loss 2.500, validation loss 3.250, 300 tokens/s\n"


def label(N: str, D: str, seed: int = 0) -> str:
    return f"vanilla-N{N}-D{D}-seed{seed}-0123456789ab"


def drawn(progress: LiveProgress, width: int = 100, height: int = 24) -> list[str]:
    output = Console(file=io.StringIO(), width=width, height=height)
    progress._console = output
    output.print(progress._map())
    return [line.rstrip() for line in text_of(output).splitlines()]


def test_the_map_shows_each_cell_and_what_the_whole_will_take(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("amscale.reporting.progress.time.monotonic", lambda: now[0])
    sizes, amounts = ("6.43k", "25.2k", "101k"), ("8k", "20k")
    steps = {label(N, D): 100 for N in sizes for D in amounts}
    del steps[label("6.43k", "8k")]
    done = {label("6.43k", "8k"): 2.451}
    progress = LiveProgress(console(terminal=True), steps, done, dict.fromkeys(steps, 10.0))
    progress.started(label("25.2k", "8k"))
    progress.progress(label("25.2k", "8k"), {"state": "training", "step": 10, "loss": 2.5})
    progress.started(label("101k", "8k"))
    now[0] = 4.0
    progress.progress(label("25.2k", "8k"), {"state": "training", "step": 50, "loss": 1.5, "validation_loss": 1.75})
    progress.failed(label("6.43k", "20k"), "exit status 1", again=False)
    assert drawn(progress) == [
        "1 of 6 trials done, 2 running, 2 waiting, 1 failed; about 20 s left",
        "N \\ D              8k             20k",
        "6.43k           2.451          failed",
        "25.2k      1.750, 5 s         waiting",
        " 101k         running         waiting",
        "least validation loss so far, nats per token, and the time left of what runs",
        f"failed: {label('6.43k', '20k')}: exit status 1",
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10)])
def test_the_map_of_a_thousand_trials_fits_the_screen(width, height):
    labels = [label(f"{N}k", f"{D}M", seed) for N in range(10, 30) for D in range(1, 26) for seed in (0, 1)]
    progress = LiveProgress(console(), dict.fromkeys(labels, 10), {})
    progress.started(label("29k", "25M", 1))
    lines = drawn(progress, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if line.startswith("  29k"))
    assert row.split()[-1] == "." * 24 + ">"


def test_watching_a_folder_says_each_change_and_ends_with_the_last_trial(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(6000,), tokens=(8000, 20000), layers=0)
    late = folder / "trials" / "vanilla-N6000-D20000-seed0" / "result.json"
    whole = late.read_text()
    late.unlink()
    watched = SweepWatch(SweepStore(folder))
    now = {cell.label: cell for cell in watched.cells()}
    assert [cell.state for cell in now.values()] == ["done", "running"]
    assert now[late.parent.name].loss == pytest.approx(json.loads(whole)["losses"]["validation_least"])
    os.utime(late.parent / "metrics.jsonl", (0, 0))
    assert [cell.state for cell in watched.cells()] == ["done", "waiting"]
    late.write_text(whole)
    output = console()
    watch(SweepStore(folder), output)
    assert [line.partition(",")[0] for line in text_of(output).splitlines()] == [
        "vanilla-N6000-D8000-seed0: done",
        "vanilla-N6000-D20000-seed0: done",
    ]


def test_the_table_of_trials_has_states_and_reasons(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(6000,), tokens=(8000,), layers=0)
    made.write_trial(folder, "bad", 24000, 50000, state="diverged", reason="loss is nan")
    output = console()
    print_results(SweepStore(folder).all_trials(), output)
    lines = text_of(output).splitlines()
    assert lines[0].strip() == "2 trials"
    row = next(line for line in lines if "vanilla-N6000-D8000-seed0" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][1:3] == ["finished", "1,000"]
    assert lines[-1] == "bad: diverged: loss is nan"
