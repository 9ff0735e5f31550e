"""The fit command: what it writes, how it prints, and which arguments are errors."""

import ctypes
import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from amscale.errors import InputError
from amscale.fit import fit
from amscale.reporting.estimates_table import print_fit
from amscale.scaling.reading import read_sweep
from amscale.trials.storage_errors import check_outputs


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A 5 by 5 grid of Chinchilla's law with noise, one loss missing, one row twice."""
    path = tmp_path_factory.mktemp("table") / "points.csv"
    random = np.random.default_rng(0)
    lines = ["N,D,loss"]
    for N in np.geomspace(1e7, 1e9, 5):
        for D in np.geomspace(1e8, 1e10, 5):
            loss = (1.7 + 400 * N**-0.35 + 900 * D**-0.35) * np.exp(0.005 * random.normal())
            lines.append(f"{N:.0f},{D:.0f},{loss:.5f}")
    path.write_text("\n".join([*lines, lines[1], "1e7,3e8,nan", ""]))
    return path


@pytest.mark.slow
def test_output_holds_everything_and_the_figures(points, tmp_path, capsys):
    fit(str(points), output=str(tmp_path / "new" / "out"), resamples=100)
    document = json.loads((tmp_path / "new" / "out" / "fit.json").read_text())
    assert document["points_used"] == len(document["points"]) == 25
    assert {item["name"]: item["reason"] for item in document["left_out"]} == {
        "row 26": "repeats row 1 exactly",
        "row 27": "loss is nan",
    }
    assert document["amscale"]
    law = next(law for law in document["laws"] if law["law"] == "Chinchilla" and law["objective"] == "huber_log")
    assert law["value"] > 0
    assert set(law["parameters"]) == {"A", "B", "E", "alpha", "beta"}
    assert set(law["intervals"]) == {*law["parameters"], "k", "floor"}
    assert "flags" in law
    pictures = {path.name for path in (tmp_path / "new" / "out" / "figures").iterdir()}
    wanted = ("loss", "iso_loss", "collapse", "exponent", "floor")
    assert pictures >= {f"{key}.{kind}" for key in wanted for kind in ("png", "svg")}
    assert f"{len(pictures)} pictures" in capsys.readouterr().out


def test_without_output_a_table_writes_nothing_and_prints_how_to(tmp_path, capsys):
    path = tmp_path / "points.csv"
    path.write_text("N,D,loss\n1e6,1e6,3\n2e6,1e6,2.9\n")
    fit(str(path), resamples=100)
    assert list(tmp_path.iterdir()) == [path]
    assert "--output FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal_and_break_no_word(fitted, width):
    out = io.StringIO()
    print_fit(fitted, Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = out.getvalue().split()
    assert words.count("(Chinchilla)") >= 2
    row = next(line for line in lines if line.startswith("Chinchilla "))
    assert len(row.split("  ")) >= 8, "a law, its numbers and its held-out errors share a line"


def test_a_setting_of_the_other_kind_of_source_is_an_error(points, tmp_path, write_trial):
    write_trial(tmp_path, "a", 1e6, 1e6, [2.0], [2.0] * 10)
    for source, setting in (
        (points, {"count": "total"}),
        (points, {"threshold": 0.1}),
        (tmp_path, {"n_column": "params"}),
        (tmp_path, {"loss_unit": "bits"}),
        (tmp_path, {"sample": 100}),
    ):
        with pytest.raises(InputError, match=next(iter(setting))):
            fit(str(source), **setting)


@pytest.mark.slow
def test_one_hypothesis_needs_no_list(points, capsys):
    """Fire reads `--hypotheses=2` as a number."""
    fit(str(points), hypotheses=2, resamples=100)
    printed = capsys.readouterr().out
    assert printed.startswith("asked     Does N grow as D^k, with k = 2?")
    assert "k = 1 (Chinchilla)" not in printed


def test_output_that_is_a_file_is_an_error(points):
    with pytest.raises(InputError, match="no folder can be made there"):
        fit(str(points), output=str(points))


def test_active_counts_the_experts_in_use(tmp_path, write_trial):
    write_trial(tmp_path, "dense", 3e6, 1e6, [2.0], [2.0] * 10)
    path = write_trial(tmp_path, "experts", 3e6, 2e6, [2.0], [2.0] * 10)
    result = json.loads((path / "result.json").read_text())
    result["parameters"]["active_feed_forward"] = 5e5
    (path / "result.json").write_text(json.dumps(result))
    assert read_sweep(tmp_path, "active").N.tolist() == [3e6, 1.5e6]


def test_a_sweep_is_fitted_as_its_configuration_says_and_arguments_come_first(tmp_path, write_trial, capsys):
    write_trial(tmp_path, "a", 1e6, 1e6, [2.0], [2.0] * 20)

    def settings(**given):
        fit(str(tmp_path), resamples=100, **given)
        return json.loads((tmp_path / "fit.json").read_text())["settings"]

    (tmp_path / "sweep.yaml").write_text("format: 1\nfit: {count: total, window: 7, hypotheses: [3]}\n")
    own = settings()
    assert (own["count"], own["window"], own["threshold"], own["hypotheses"]) == ("total", 7, 0.04, [3])
    assert settings(count="with_head", hypotheses=2)["hypotheses"] == [2]
    (tmp_path / "sweep.yaml").write_text("format: 1\nfit: {count: most}\n")
    with pytest.raises(InputError, match=r"fit\.count"):
        settings()


@pytest.mark.slow
def test_a_folder_that_takes_no_file_is_noticed_before_the_work(tmp_path, write_trial):
    """Another user's sweep: one line that names --output, and nothing is written or lost."""
    sweep = tmp_path / "sweep"
    write_trial(sweep, "a", 1e6, 1e6, [2.0], [2.0] * 10)
    (sweep / "sweep.yaml").write_text("format: 1\n")
    sweep.chmod(0o555)
    for command in ("fit", "report"):
        done = subprocess.run(
            [sys.executable, "-m", f"amscale.{command}", str(sweep)],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=_give_up_rights_of_root,
        )
        assert done.returncode == 2
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)
        assert f"storage not writable: {sweep}: Permission denied; give" in done.stderr
        assert "--output FOLDER" in done.stderr
    assert sorted(path.name for path in sweep.iterdir()) == ["sweep.yaml", "trials"]
    sweep.chmod(0o755)


def _give_up_rights_of_root():
    if os.geteuid() == 0:
        drop, write_anywhere = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
        ctypes.CDLL(None).prctl(drop, write_anywhere, 0, 0, 0)


def test_what_is_in_the_way_of_an_output_is_named_before_the_work(tmp_path):
    (tmp_path / "fit.json").mkdir()
    (tmp_path / "figures").touch()
    for files, folders in ((("fit.json",), ()), ((), ("figures",))):
        with pytest.raises(InputError, match=f"{[*files, *folders][0]} is .* in the way .*; give another"):
            check_outputs(tmp_path, files, folders, "give another")
