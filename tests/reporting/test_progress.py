"""Progress lines of a sweep, and the table of its trials."""

import io

import pytest
from rich.console import Console

from amscale.reporting.progress import LiveProgress
from amscale.reporting.terminal import print_results
from amscale.trials.sweep_store import SweepStore


def console(terminal: bool = False, height: int = 20) -> Console:
    return Console(file=io.StringIO(), width=132, height=height, force_terminal=terminal)


def text_of(console: Console) -> str:
    return console.file.getvalue()


def test_a_pipe_gets_a_line_for_each_event():
    output = console()
    with LiveProgress(output, {"a": 100, "b": 50}, done=1) as progress:
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
    with LiveProgress(output, {"a": 1000}, done=0) as progress:
        progress.progress("a", report | {"step": 10})
    assert text_of(output) == "a: step 10 of 1,000, train loss 2.500, validation loss 3.250, 300 tokens/s\n"


@pytest.mark.parametrize(("height", "shown"), [(40, 30), (20, 14)])
def test_a_small_screen_shows_active_and_failed_trials_first(height, shown):
    output = console(terminal=True, height=height)
    progress = LiveProgress(output, {f"t{index}": 100 for index in range(30)}, done=0)
    progress.started("t28")
    progress.failed("t29", "exit status 1", again=False)
    labels = [label for label, _ in progress._visible_rows()]
    assert len(labels) == shown
    assert ("t28" in labels[:2]) == (shown < 30)
    assert {"t28", "t29"} <= set(labels)


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
