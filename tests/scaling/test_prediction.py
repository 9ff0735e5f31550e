"""Fits by a column, predictions of rows by others, and forecasts that are written down and scored."""

import json

import numpy as np
import pandas as pd
import pytest

from amscale.errors import InputError
from amscale.fit import fit as fit_command
from amscale.scaling.by import fit_table_by
from amscale.scaling.fit import fit_sweep, fit_table
from amscale.scaling.forecast import forecast, parse_cells, read_forecast, save_forecast, score_forecast
from amscale.scaling.kinds import unlike_rows
from amscale.scaling.prediction import predict_rows
from amscale.scaling.table import read_table
from amscale.scaling.table_rows import Condition

N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(2e7, 2e10, 6)))
RANDOM = np.random.default_rng(3)


def losses(N, D, floor=1.7):
    return floor + 300 * N**-0.33 + 900 * D**-0.33


def frame(noise=0.003, **columns):
    loss = losses(N, D) * np.exp(noise * RANDOM.normal(size=len(N)))
    return pd.DataFrame({"N": N, "D": D, "loss": loss} | columns)


def corpora():
    web, code = frame(), frame()
    code["loss"] -= 0.8
    return pd.concat([web.assign(corpus="web"), code.assign(corpus="code")])


@pytest.mark.slow
def test_rows_of_two_corpora_have_no_common_law_and_each_has_its_own():
    fit = fit_table(corpora(), resamples=100)
    assert fit.ids == ["k_all_kinds"]
    assert "--by corpus" in fit["k_all_kinds"].reason
    found = fit_table_by(corpora(), "Corpus", lambda cells: fit_table(cells, resamples=100))
    rows = {row["kind"]: row for row in found.rows()}
    for kind, floor in (("web", 1.7), ("code", 0.9)):
        low, high = rows[kind]["floor_interval"]
        assert low < floor < high
        assert rows[kind]["k_interval"][0] < 1 < rows[kind]["k_interval"][1]


def test_the_command_says_why_rows_of_two_corpora_have_no_law_and_names_no_cells(tmp_path, capsys):
    path = tmp_path / "two.csv"
    corpora().to_csv(path, index=False)
    fit_command(str(path), resamples=100, json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"]["next_step"]["reason"]
    assert [estimate["value"] for estimate in document["estimates"]] == [None]
    for given in ({"next": 3}, {"forecast": "N=1B,D=1T"}):
        with pytest.raises(InputError, match="--by corpus"):
            fit_command(str(path), **given)


def test_labels_without_an_effect_do_not_keep_rows_apart():
    table = pd.concat([frame().assign(host="a"), frame().assign(host="b")])
    assert not unlike_rows(read_table(table))
    apart = frame().assign(family=np.where(np.arange(len(N)) % 2, "x", "y"))  # no cell holds both
    assert not unlike_rows(read_table(apart))
    apart.loc[apart.family == "x", "loss"] += 0.5
    assert "family" in unlike_rows(read_table(apart))


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("params<1B", 9e8, True),
        ("params<1B", "1e9", False),
        ("params >= 1B", "1e9", True),
        ("corpus!=web", "code", True),
        ("corpus=Web", "web", True),
        ("batch=2M", 2e6, True),
        ("params<1B", None, False),
        ("name=a<b", "a<b", True),
    ],
)
def test_a_condition(text, value, holds):
    condition = Condition.parse(text)
    assert condition is not None
    assert condition.holds(value) is holds


@pytest.mark.parametrize("text", ["params", "<3", "params<many", ""])
def test_a_condition_that_is_none(text):
    assert Condition.parse(text) is None


def test_the_largest_sizes_are_predicted_with_an_interval_that_holds_them():
    inside = total = 0
    for seed in range(6):
        loss = losses(N, D) * np.exp(0.004 * np.random.default_rng(seed).normal(size=len(N)))
        table, wanted = (read_table(pd.DataFrame({"N": N, "D": D, "loss": loss})[part]) for part in (N < 5e8, N > 2e8))
        found = predict_rows(table, _rows(wanted), resamples=100)
        inside, total = inside + int(found.inside.sum()), total + len(wanted.points)
        assert found.factor > 3
        assert found.reach is not None
        assert np.all(found.low < found.loss)
    assert 0.85 < inside / total <= 1


def _rows(table):
    from amscale.scaling.laws.law import rows_of

    return rows_of(table)


def test_a_forecast_is_written_down_and_scored_when_the_cell_comes(tmp_path):
    table = read_table(frame())
    document = forecast(table, parse_cells("N=10B,D=200B; N=2B,D=1T"), resamples=100)
    path = save_forecast(document, tmp_path / "one")
    assert path.name == "one.json"
    with pytest.raises(InputError, match="is not changed"):
        save_forecast(document, path)
    truth = float(losses(np.array(1.01e10), np.array(2e11)))  # the family has no shape of exactly 10B
    came = read_table(
        pd.DataFrame({"N": [1.01e10] * 2, "D": [2e11] * 2, "loss": [truth * 1.01, truth * 0.99]}), least_sizes=1
    )
    score = score_forecast(read_forecast(path), came)
    assert (score["measured"], score["inside"]) == (1, 1)
    assert score["cells"][0]["runs"] == 2
    assert abs(score["rms_error"]) < 0.01
    assert "measured" not in score["cells"][1]
    wrong = read_table(pd.DataFrame({"N": [1e10], "D": [2e11], "loss": [truth * 1.2]}), least_sizes=1)
    assert score_forecast(document, wrong)["inside"] == 0
    floors = [each["floor"] for each in document["cells"][0]["by_floor"]]
    by_floor = [each["loss"] for each in document["cells"][0]["by_floor"]]
    assert floors == sorted(floors)
    assert by_floor == sorted(by_floor)
    assert by_floor[0] < document["cells"][0]["loss"] < by_floor[-1]


@pytest.mark.parametrize("text", ["N=1B", "N=1B,D=x", "N=1B;D=2B", "M=1,D=2,N=3", ";", "N=1B,N=2B,D=1"])
def test_cells_that_are_none(text):
    with pytest.raises(InputError):
        parse_cells(text)


def test_a_measured_cell_is_no_forecast():
    with pytest.raises(InputError, match="among the points"):
        forecast(read_table(frame()), parse_cells("N=1M,D=20M"), resamples=100)


@pytest.mark.slow
def test_the_command_writes_a_forecast_into_the_sweep_and_every_fit_scores_it(tmp_path, write_sweep, capsys):
    write_sweep(tmp_path, sizes=5, amounts=6, noise=0.0)
    fit_command(str(tmp_path), forecast="N=100M,D=100M", save="first.json", resamples=100, json=True)
    assert json.loads(capsys.readouterr().out)["written"].endswith("forecasts/first.json")
    (score,) = fit_sweep(tmp_path, resamples=100).forecasts
    assert (score["name"], score["measured"]) == ("first.json", 0)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"by": "corpus", "score": "x.json"}, "one at a time"),
        ({"fit_where": "N<1"}, "goes with --predict_where"),
        ({"save": "x"}, "goes with --forecast"),
        ({"score": "absent.json"}, "is not a file"),
        ({"by": "absent"}, "no column"),
        ({"forecast": "N=1B,D=1B", "law": "absent"}, "is not a law"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path, given, what):
    path = tmp_path / "points.csv"
    frame().to_csv(path, index=False)
    with pytest.raises(InputError, match=what):
        fit_command(str(path), **given)
