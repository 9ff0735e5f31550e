"""What the page of a sweep says, and that it loads nothing."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.made_fit import CAPACITY, EXPONENT, FLOOR, UNDETERMINED, fit_of, page_of, surfaces

from amscale.cli import run
from amscale.errors import InputError
from amscale.report import report
from amscale.reporting.interactive import html_formula
from amscale.reporting.page import write_report
from amscale.reporting.report_data import read_report_data
from amscale.scaling.reading import read_sweep


def test_page_begins_with_the_verdict_and_folds_what_is_not_determined(sweep, read_page):
    page = page_of(sweep, EXPONENT, UNDETERMINED, FLOOR, CAPACITY)
    text = read_page(page).text
    assert (
        "12 runs of the vanilla family finished: 3 sizes of 6k to 96k parameters by 4 data sets of 8k to 400k" in text
    )
    assert "lies for N = 6k between 8k and 20k; N = 24k at most 8k; N = 96k above 400k." in text
    assert "N parameters do not over-fit: k = 2.5 (95 % interval above 1.4): 1 is rejected; 2 is not." in text
    assert "k = 1 is rejected; 2 is not." in text
    assert "k by N<sub>opt</sub>(D): an interior minimum at 1 of 4 D &lt;b&gt;." in page
    assert "1 not determined, with the reason of each" in text
    assert "efused" not in text
    assert "The known entropy of the corpus is 0.9965 nats per token" in text
    below = [point.result.losses.train_least < 1 for point in read_sweep(sweep).points]
    assert 0 < sum(below) < 12
    assert f"The training loss passed below 1 in {sum(below)} of 12 runs" in text
    assert "1 nat per token is no bound on the training loss of these runs" in text
    assert re.search(r"a new group.*memorised bits per parameter.*3\.61 ?3\.5 to 3\.7", text)


@pytest.mark.parametrize("estimates", [(), (CAPACITY,), (EXPONENT,), (UNDETERMINED, FLOOR)])
def test_a_page_is_written_for_any_estimates(sweep, estimates):
    page = page_of(sweep, *estimates)
    rows = re.findall(r'<tr(?: class="not-determined")?><td>(.*?)<small>.*?<td class="number">(.*?)</td>', page)
    estimates = sorted(estimates, key=lambda item: item.value is None)
    values = ["not determined" if item.value is None else f"{item.value:g}" for item in estimates]
    assert rows == [(str(html_formula(item.estimand)), value) for item, value in zip(estimates, values, strict=True)]
    assert ('<figure id="figure-frontier"' in page) == (EXPONENT in estimates)


def test_scores_of_forecasts_are_on_the_page(sweep, read_page):
    cells = [
        {
            "N": 1e6,
            "D": 2e6,
            "loss": 1.1,
            "interval": [1.0, 1.2],
            "measured": 1.3,
            "runs": 2,
            "error": -0.15,
            "inside": 0,
        },
        {"N": 4e6, "D": 2e6, "loss": 1.0, "interval": [0.9, 1.1]},
    ]
    score = {"name": "one.json", "made": "2026-01-02", "law": "coupled", "cells": cells}
    score |= {"measured": 1, "inside": 0, "rms_error": 0.15}
    text = read_page(page_of(sweep, EXPONENT, forecasts=[score])).text
    assert "forecast one.json of 2026-01-02, law coupled: 1 of 2 cells measured, error 15.00%" in text
    assert "measured 1.3000 (mean of 2 runs): -15.00%, OUTSIDE" in text
    assert "not measured yet" in text
    assert "Forecasts" not in read_page(page_of(sweep, EXPONENT)).text


def test_page_loads_nothing_and_forbids_it(sweep, read_page):
    page = page_of(sweep, EXPONENT)
    assert read_page(page).loads == ["data:,"]
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(", page.partition("</style>")[0])


def test_text_of_a_trial_stays_text(made, tmp_path, read_page):
    folder = made.write_sweep(tmp_path / "s", tokens=(8000, 20000))
    evil = "</script><script>alert(1)</script>"
    made.write_trial(folder, "evil<script>alert(2)<", 24000, 50000, state="diverged", reason=f"nan {evil}")
    page = read_page(page_of(folder, EXPONENT))
    assert len(page.scripts) == 3
    assert not any(script.startswith("alert") for script in page.scripts)
    assert f"nan {evil}" in page.text
    assert "evil<script>alert(2)<" in page.text
    assert "Not finished: 1 diverged." in page.text
    assert evil not in json.dumps(page.charts)


@pytest.mark.slow
def test_every_figure_of_a_report_is_on_the_page_and_a_file(sweep):
    page = write_report(sweep, fit_of(sweep, EXPONENT, *surfaces(), FLOOR)).read_text()
    names = ["loss", "frontier", "iso_flop", "iso_loss", "collapse", "exponent", "floor", "curves", "energy", "radius"]
    assert re.findall(r'<figure id="figure-(\w+)"', page) == names
    files = [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert sorted(path.name for path in (sweep / "figures").iterdir()) == sorted(files)
    for name in names:
        assert (sweep / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (sweep / "figures" / f"{name}.svg").read_text()


@pytest.mark.slow
def test_estimates_are_read_and_fitted_again_when_the_trials_change(made, tmp_path, read_page):
    folder = made.write_sweep(tmp_path / "s", sizes=(24000,), tokens=(8000, 20000), layers=0)
    fit_of(folder, CAPACITY).write(folder / "fit.json")
    assert "memorised bits per parameter" in read_page(write_report(folder).read_text()).text
    made.write_trial(folder, "late", 24000, 50000)
    text = read_page(write_report(folder).read_text()).text
    assert len(json.loads((folder / "fit.json").read_text())["points"]) == 3
    assert "3 runs of the vanilla family finished" in text
    assert "memorised bits per parameter" not in text


def test_powers_and_subscripts():
    assert str(html_formula("N/D^1.35, N^-α, N_opt <")) == "N/D<sup>1.35</sup>, N<sup>-α</sup>, N<sub>opt</sub> &lt;"
    assert str(html_formula("(N_c/N)^(α_N/α_D)")) == "(N<sub>c</sub>/N)<sup>(α<sub>N</sub>/α<sub>D</sub>)</sup>"


def test_trials_of_an_earlier_grid_are_named(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(24000,), tokens=(8000, 20000), layers=0)
    for tokens in (8000, 20000):
        file = folder / "trials" / f"vanilla-N24000-D{tokens}-seed0" / "result.json"
        settings = {"seed": 0, "model": {"family": "vanilla"}, "data": {"size": tokens}}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"settings": settings}))
    tree = {
        "model": {"family": "vanilla", "size": "24k", "layers": 1},
        "data": {"corpus": "question_formation", "size": "20k"},
        "train": {"steps": 1000, "batch_tokens": 1500},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"format": 1, "name": "made"} | tree))
    page = page_of(folder, CAPACITY)
    assert re.findall(r"<summary>(\d) of the trials were run by an earlier configuration", page) == ["1"]
    assert '<p class="trial">vanilla-N24000-D8000-seed0</p>\n</details>' in page


def test_bad_input_is_one_line(tmp_path, capsys, made):
    with pytest.raises(InputError, match="not a sweep folder"):
        write_report(tmp_path)
    folder = made.write_sweep(tmp_path / "s", sizes=(), tokens=())
    with pytest.raises(InputError, match="no trial has finished yet \\(it has no trials\\)"):
        write_report(folder)
    made.write_trial(folder, "bad", 24000, 50000, state="diverged", reason="loss is nan")
    with pytest.raises(InputError, match="no trial has finished yet \\(1 diverged\\)"):
        write_report(folder)
    with pytest.raises(SystemExit) as stopped:
        run(report, [str(tmp_path / "absent")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("section", "key"), [("left_out", None), ("estimates", "refusal"), ("laws", "flags")])
def test_a_damaged_fit_is_made_anew(sweep, tmp_path, section, key):
    folder = Path(shutil.copytree(sweep, tmp_path / "made"))
    read_report_data(folder)
    file = folder / "fit.json"
    whole = json.loads(file.read_text())
    damaged = json.loads(file.read_text())
    if key is None:
        del damaged[section]
    else:
        del damaged[section][0][key]
    file.write_text(json.dumps(damaged))
    read_report_data(folder)
    assert json.loads(file.read_text()) == whole
