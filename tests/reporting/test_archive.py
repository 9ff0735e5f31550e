"""An archive of a sweep: what fit and report find in it is what they find in the sweep's folder."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers.commands import ended
from helpers.made_sweep import write_trial

from amscale import Sweep
from amscale.errors import InputError
from amscale.export import export
from amscale.files import packaged
from amscale.fit import fit
from amscale.reporting.chart import palette_of
from amscale.reporting.figures import report_charts
from amscale.reporting.page import render_page
from amscale.reporting.report_data import read_report_data
from amscale.scaling.curves import Curves, sum_up
from amscale.scaling.reading import read_sweep
from amscale.trials.archive import is_archive, unpacked
from amscale.trials.sweep_store import open_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tuned sweep with seeds, a trial that diverged, one without a result, a branch, a forecast and a resumed run."""
    folder = tmp_path_factory.mktemp("results") / "made"
    sizes, tokens, rates = (6000, 24000, 96000), (8000, 20000, 50000, 400000), (0.5e-3, 1e-3, 2e-3)
    for N in sizes:
        for D in tokens:
            for rate in rates:
                for seed in (0, 1) if rate == 1e-3 else (0,):
                    label = f"vanilla-N{N}-D{D}-seed{seed}-{rate:g}"
                    write_trial(folder, label, N, D, seed, steps=480 + D // 10000, layers=1)
                    _change(folder, label, rate)
    write_trial(folder, "diverged", 6000, 8000, seed=5, steps=100, layers=0, state="diverged", reason="loss is nan")
    write_trial(folder, "running", 6000, 8000, seed=6, steps=100, layers=0)
    _change(folder, "diverged", 2e-3)
    (folder / "trials" / "running" / "result.json").unlink()
    with (folder / "trials" / label / "metrics.jsonl").open("a") as file:  # resumed: the later record counts
        file.write('{"kind": "train", "step": 470, "loss": 0.9}\n')
    tree = yaml.safe_load((packaged("configs") / "grammar.yaml").read_text(encoding="utf-8"))
    tree |= {"format": 1, "name": "made", "storage": str(folder.parent), "tune": {"train.learning_rate": list(rates)}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(tree))
    return folder


def _change(folder, label, rate):
    """Give a trial a learning rate, which its losses have a valley in, and a trunk that it branched off."""
    file = folder / "trials" / label / "result.json"
    result = json.loads(file.read_text())
    result["losses"]["validation_least"] *= 1 + 0.01 * np.log2(rate / 1.2e-3) ** 2
    result["settings"] = {"train": {"learning_rate": rate}, "data": {"corpus": "question_formation"}}
    result["branch"] = {"trial": "t", "label": "trunk", "step": 100, "tokens": 150000, "device_seconds": 1.0}
    file.write_text(json.dumps(result))


def _same(one, other, where=""):
    """Compare documents; numbers agree but for rounding."""
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in set(one) - {"source"}:
            _same(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            _same(a, b, f"{where}/{index}")
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-9, abs=1e-12), where
    else:
        assert one == other, where


@pytest.mark.slow
def test_fit_and_report_of_an_archive_are_those_of_the_folder(folder, tmp_path, read_page):
    copy = shutil.copytree(folder, tmp_path / "made")
    first = Sweep(copy).fit(resamples=100)
    Sweep(copy).export(tmp_path, format="archive")
    file = tmp_path / "made.parquet"
    assert file.stat().st_size < 0.1 * sum(path.stat().st_size for path in copy.rglob("*.jsonl"))
    found = Sweep(file).fit(resamples=100)
    assert first["k_dstar"].details
    assert first.health
    assert first.tuning
    assert first.criteria
    assert first["floor_train_settled"].value
    assert first["floor_chinchilla"].used
    assert found.table.source == str(file)
    _same(first.to_dict(), found.to_dict())
    numbers = []
    for sweep, estimates, address in ((copy, first, None), (None, found, str(file))):
        with open_sweep(str(sweep or file)) as path:
            report = read_report_data(path, estimates, address=address)
        assert str(report.folder) == str(sweep or file)
        charts = report_charts(report)
        text = read_page(render_page(report, charts, palette_of(charts))).text.split("The configuration, as")[0]
        # All that differs is what a point of a train curve is the mean of.
        text = re.sub(r"Each point of a train curve is the mean of[^.]*", "", text.replace(str(sweep or file), "SWEEP"))
        numbers.append(re.findall(r"\d[\d,.]*", text))
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) > 300


def test_an_archive_has_no_path_of_its_machine_and_is_a_table_too(folder, tmp_path, capsys):
    spec = folder / "trials" / "running" / "spec.yaml"
    spec.write_text(yaml.safe_dump({"format": 1, "label": "running", "store": f"{folder.parent}/tokens/0123"}))
    assert ended(export, str(folder), "--format=archive", f"--output={tmp_path}", "--probes=none") == 0
    file = tmp_path / "made.parquet"
    assert capsys.readouterr().out.split() == [str(file)]
    table = pd.read_parquet(file)
    assert set(table["state"].dropna()) == {"finished", "diverged"}
    assert dict(zip(table["trial"], table["seed"], strict=True))["vanilla-N6000-D8000-seed1-0.001"] == 1
    text = table.to_csv()
    assert str(folder.parent) not in text
    assert '"probe"' not in text
    assert is_archive(file)
    with unpacked(file) as unpacked_folder:
        points = {point.name: point.loss for point in read_sweep(unpacked_folder, "total").points}
    assert points == {point.name: point.loss for point in read_sweep(folder, "total").points}
    assert ended(export, str(folder), "--format=archive", f"--output={tmp_path}", "--probes=some") == 2
    assert capsys.readouterr().err == "export: probes='some'; allowed are all, last, none\n"
    pd.DataFrame({"N": [1.0], "D": [2.0], "loss": [3.0]}).to_parquet(tmp_path / "table.parquet")
    assert not is_archive(tmp_path / "table.parquet")


def test_the_forecast_from_an_archive_is_written_where_it_stays(folder, tmp_path, monkeypatch, capsys):
    Sweep(folder).export(tmp_path, format="archive")
    monkeypatch.chdir(tmp_path)
    wanted = ("--forecast=N=200k,D=400k", "--law=chinchilla", "--save=later.json", "--resamples=100")
    assert ended(fit, "made.parquet", *wanted) == 0, capsys.readouterr().err
    assert "later.json" in capsys.readouterr().out
    assert json.loads((tmp_path / "later.json").read_text())["cells"][0]["D"] == 400e3


def test_a_window_that_cuts_a_block_is_refused():
    steps = np.arange(1.0, 1001)
    curves = Curves(steps, np.cos(steps), steps[99::100], steps[99::100], 1000)
    summed = sum_up(curves, [lambda steps: steps > 333])
    for choice in (lambda steps: steps > 333, lambda steps: steps > 0, lambda steps: (steps > 333) & (steps <= 400)):
        whole, part = curves.train_at(choice), summed.train_at(choice)
        assert len(part) == len(whole)
        assert part.mean == pytest.approx(whole.mean, rel=1e-12)
        assert part.squared_about(0.1) == pytest.approx(whole.squared_about(0.1), rel=1e-12)
    with pytest.raises(InputError, match="no block begins or ends where this window does"):
        summed.train_at(lambda steps: steps > 334)
    with pytest.raises(InputError, match="no block"):
        summed.train_at(lambda steps: steps > 333).split(8)
