"""The public surface: what notebooks and scripts call."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.commands import TINY, command, environment, processes_naming, wait_until

import amscale
from amscale.errors import InputError

SWEEP = Path(__file__).with_name("sweep_0_1")
ROOT = Path(__file__).parents[1]


def python(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python code as a user's script."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment(),
        check=False,
        cwd=cwd,
    )


@pytest.fixture
def started(tmp_path) -> Path:
    return Path(shutil.copytree(SWEEP / "first", tmp_path / "first"))


def test_importing_imports_nothing_heavy():
    heavy = ("torch", "ray", "deepspeed", "transformers", "pandas", "numpy", "pydantic")
    done = python(f"import sys, amscale; print([name for name in {heavy} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr
    done = python("import amscale; print([getattr(amscale, name) is not None for name in amscale.__all__])")
    assert "False" not in done.stdout, done.stderr


def test_every_public_name_is_there_and_documented():
    for name in amscale.__all__:
        assert name == "__version__" or getattr(amscale, name).__doc__
    with pytest.raises(AttributeError):
        amscale.no_such_name  # noqa: B018


def test_settings_come_as_keywords_mappings_and_texts(tmp_path):
    by_keyword = amscale.Sweep("grammar.yaml", seed=[0, 1], model__size=[6600], train__steps=20)
    by_text = amscale.Sweep("grammar.yaml", ["seed=[0,1]", "model.size=6600", "train.steps=20"])
    by_mapping = amscale.Sweep("grammar.yaml", {"seed": [0, 1], "model.size": [6600], "train.steps": 20})
    assert by_keyword.experiment == by_text.experiment == by_mapping.experiment
    assert amscale.Sweep(by_text.experiment, train__steps=30).experiment.train.steps == 30
    with pytest.raises(InputError, match=r"unknown key train\.stepz=20"):
        amscale.Sweep("grammar.yaml", train__stepz=20)
    with pytest.raises(InputError, match="no such configuration"):
        amscale.Sweep(tmp_path / "missing.yaml")


def test_a_plan_is_a_frame_with_a_row_a_trial():
    plan = amscale.Sweep("grammar.yaml", seed=[0, 1]).plan()
    assert isinstance(plan, pd.DataFrame)
    assert len(plan) == 24
    assert {"label", "N", "D", "seed", "steps", "flops", "memory_bytes", "seconds"} <= set(plan.columns)
    assert plan["seed"].tolist().count(1) == 12


def test_a_started_sweep_is_read_from_its_folder(started):
    sweep = amscale.Sweep(started)
    results = sweep.results()
    assert len(results) == 9
    document = json.loads((started / "trials" / results["trial"][0] / "result.json").read_text())
    assert results["train_loss"][0] == document["losses"]["train_last"]
    assert results["D"][0] == document["data"]["unique_tokens"]
    typed = sweep.trial_results()
    assert [result.losses.train_last for result in typed] == results["train_loss"].tolist()
    assert all(isinstance(result, amscale.TrialResult) for result in typed)
    assert {status.state for status in sweep.status()} == {"finished"}
    train = sweep.metrics("train")
    assert len(train) == 9 * 80
    assert {"trial", "step", "tokens", "loss", "learning_rate"} <= set(train.columns)
    assert any(name.startswith("energy/") for name in sweep.metrics("probe").columns)
    with pytest.raises(InputError, match="allowed are train, train_mean, validation, probe"):
        sweep.metrics("loss")
    assert "<table" in sweep._repr_html_()


def test_a_started_sweep_goes_on_where_its_folder_is(started, tmp_path):
    """Not where the configuration in it says: it may have been moved."""
    experiment = amscale.Sweep(started).experiment
    assert (experiment.storage, experiment.name) == (str(started.parent), started.name)
    moved = amscale.Sweep(started.rename(tmp_path / "elsewhere")).experiment
    assert (moved.storage, moved.name) == (str(tmp_path), "elsewhere")


def test_the_address_of_a_sweep_on_an_object_store_keeps_its_query():
    sweep = amscale.Sweep("grammar.yaml", storage="s3://bucket/prefix?endpoint_override=host:9000")
    assert sweep.address == "s3://bucket/prefix/grammar?endpoint_override=host:9000"


def test_what_needs_a_started_sweep_names_what_to_do(tmp_path):
    sweep = amscale.Sweep("grammar.yaml", storage=str(tmp_path))
    with pytest.raises(InputError, match=r"no sweep has been started there; call run\(\)"):
        sweep.results()
    assert "<table" in sweep._repr_html_()  # the plan
    with pytest.raises(InputError, match="File name too long"):
        amscale.Sweep("x" * 300)


def test_a_fit_answers_by_ids(started):
    fit = amscale.Sweep(started).fit(resamples=100)
    assert isinstance(fit, amscale.Fit)
    assert fit["floor_validation"].value == pytest.approx(
        amscale.Sweep(started).results()["validation_loss_least"].min()
    )
    assert all((estimate.value is None) == bool(estimate.reason) for estimate in fit.estimates)
    assert any(estimate.value is None for estimate in fit.estimates)
    frame = fit.to_frame()
    assert frame["id"].is_unique
    assert len(frame) == len(fit.estimates)
    with pytest.raises(InputError, match="k_dstar"):
        fit["k_no_such_law"]
    assert fit.plot("loss").axes
    with pytest.raises(InputError, match="loss"):
        fit.plot("no_such_figure")


@pytest.mark.slow
def test_a_table_is_fitted_from_a_file_and_from_a_frame(tmp_path):
    rows = pd.DataFrame(
        [(N, D, 1.5 + 400 / N**0.35 + 900 / D**0.4) for N in (1e5, 3e5, 1e6, 3e6) for D in (1e6, 4e6, 1.6e7, 6.4e7)],
        columns=["params", "tokens_unique", "val"],
    )
    rows.to_csv(tmp_path / "runs.csv", index=False)
    columns = {"n": "params", "d": "tokens_unique", "loss": "val", "resamples": 100}
    from_file = amscale.fit_table(tmp_path / "runs.csv", **columns)
    from_frame = amscale.fit_table(rows, **columns)
    assert from_file["k_chinchilla"].value == pytest.approx(0.4 / 0.35, rel=1e-3)
    assert from_frame["k_chinchilla"].value == from_file["k_chinchilla"].value


@pytest.mark.slow
def test_a_run_leaves_the_process_as_it_was(tmp_path):
    """Environment, signal handlers and a Ray that was imported before stay; results come back as a frame."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    code = """
import os, signal, sys
import ray
import amscale
def state():
    return dict(os.environ), [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
before = state()
sweep = amscale.Sweep("tiny.yaml", model__size=["1.7k"], data__size=["4k"], storage=sys.argv[1])
results = sweep.run(progress=False)
fit = sweep.fit(resamples=100)
page = sweep.report(fit)
assert state() == before and not ray.is_initialized()
assert len(results) == 1 and page.is_file() and sweep.run(progress=False).equals(results)
print("as it was")
"""
    done = python(code, str(tmp_path / "results"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "as it was\n"


@pytest.mark.slow
def test_what_goes_wrong_in_a_run_is_an_exception(tmp_path):
    sweep = amscale.Sweep(
        {**__import__("yaml").safe_load(TINY), "storage": str(tmp_path / "results")},
        model__size=["1.7k"],
        data__size=["4k"],
        launch__address="127.0.0.1:1",
    )
    with pytest.raises(amscale.InputError, match="no Ray cluster answers there"):
        sweep.run(progress=False)


@pytest.mark.slow
def test_an_interrupt_in_a_notebook_ends_the_run_in_order(tmp_path):
    """The caller gets KeyboardInterrupt; nothing goes on in the background."""
    (tmp_path / "tiny.yaml").write_text(TINY.replace("steps: 30", "steps: 3000"))
    script = (
        "import amscale\n"
        f"amscale.Sweep('tiny.yaml', storage={str(tmp_path / 'results')!r}, model__size=['1.7k'], data__size=['4k'])"
        ".run(progress=False)\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE)
    wait_until(lambda: list(tmp_path.glob("results/tiny/trials/*/metrics.jsonl")), 600, "a trial trains")
    os.kill(caller.pid, signal.SIGINT)
    _, errors = caller.communicate(timeout=600)
    assert caller.returncode != 0
    assert b"KeyboardInterrupt" in errors
    assert not processes_naming(tmp_path)


@pytest.mark.parametrize(
    ("name", "arguments", "keys"),
    [
        ("status", [], {"sweep", "trials"}),
        pytest.param("fit", [], {"estimates", "laws", "points", "written"}, marks=pytest.mark.slow),
        ("fit", ["--next", "2"], {"configuration"}),
        pytest.param("report", [], {"report", "figures"}, marks=pytest.mark.slow),
    ],
)
def test_json_is_the_only_thing_on_standard_output(name, arguments, keys, started):
    done = command(name, str(started), *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert keys <= set(json.loads(done.stdout))


@pytest.mark.parametrize("flag", ["--json=1", "--json=yes", "-j", "-json"])
def test_json_has_one_spelling(flag, tmp_path):
    done = command("status", str(tmp_path), flag)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_plan_in_json_has_a_row_and_a_command_a_trial(tmp_path):
    done = command("plan", "grammar.yaml", f"storage={tmp_path}", "--json", "--commands")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["trials"]) == 12
    assert all("accelerate.commands.launch" in row["command"] for row in document["trials"])
    assert document["flops"] == pytest.approx(sum(row["flops"] for row in document["trials"]))


def test_bad_input_in_json_is_a_document_too(tmp_path):
    done = command("status", str(tmp_path), "--json")
    assert done.returncode == 2
    assert "not a sweep folder" in json.loads(done.stdout)["error"]
    assert done.stderr.startswith("status: ")
