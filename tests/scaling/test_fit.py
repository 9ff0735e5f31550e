"""The class BaseFit: access by id, the ids that docs/estimates.md lists, DataFrames, JSON and the verdict."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from amscale.errors import InputError
from amscale.scaling.base_fit import BaseFit
from amscale.scaling.estimate import Estimate, HypothesisTest
from amscale.scaling.fit import fit_sweep, fit_table
from amscale.scaling.laws import all_laws, predict
from amscale.scaling.points import PointTable
from amscale.scaling.table import Columns

PAGE = Path(__file__).parents[2] / "docs" / "estimates.md"
SHARED = {"convention": "N counts something", "objective": "an objective", "method": "a method", "used": 3}


def estimate(id, value=None, interval=None, rejected=(), kept=(), **more):
    tests = [
        HypothesisTest(name=f"k = {k:g}", value=k, rejected=k in rejected, how="t interval") for k in (*rejected, *kept)
    ]
    return Estimate(id=id, estimand=id, value=value, interval=interval, tests=tuple(tests), **SHARED | more)


def fit_of(*estimates):
    return BaseFit(PointTable("made", "N", []), list(estimates), [], {})


def test_page_lists_every_id_and_no_other(fitted, tmp_path, write_trial):
    table = PAGE.read_text().partition("## Ids")[2].partition("An installed law")[0]
    page = [id for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for id in re.findall(r"`(\w+)`", row)]
    assert len(page) == len(set(page))
    laws = all_laws()
    of_laws = {f"k_{id}" for id, law in laws.items() if law.optimum}
    of_laws |= {f"floor_{id}" for id, law in laws.items() if law.floor(np.ones(len(law.parameters))) is not None}
    of_laws |= {f"{parameter}_{id}" for id, law in laws.items() for parameter in law.tested}
    for variant in ("whole", "half"):
        result = write_trial(tmp_path, variant, 1e6, 1e6, [2.0], [2.0] * 200) / "result.json"
        corpus = {"data": {"corpus": "question_formation", "variant": variant}}
        result.write_text(json.dumps(json.loads(result.read_text()) | {"settings": corpus}))
    mixed = fit_sweep(tmp_path).ids
    assert mixed[0] == "k_all_corpora"
    names, variants = ("train_settled", "validation"), ("half", "whole")
    assert sorted(mixed[1:]) == [f"floor_{name}_variant_{variant}" for name in names for variant in variants]
    of_compute = {"a_isoflop", "b_isoflop"}  # where there are budgets
    kinds = pd.DataFrame(
        {"N": [1e6, 2e6] * 6, "D": [1e7] * 6 + [2e7] * 6, "loss": [3.0] * 12, "corpus": list("aab") * 4}
    )
    kinds["loss"] += kinds.corpus.eq("b") + 0.001 * np.arange(12)
    of_kinds = fit_table(kinds, resamples=100).ids
    assert of_kinds == ["k_all_kinds"]
    assert set(page) == of_laws | set(fitted.ids) | {"k_all_corpora", *of_kinds} | of_compute


def test_corpora_whose_settings_read_alike_have_different_ids(tmp_path, write_trial):
    for name, path in (("a", "x/y"), ("b", "x_y")):
        result = write_trial(tmp_path, name, 1e6, 1e6, [2.0], [2.0] * 200) / "result.json"
        result.write_text(json.dumps(json.loads(result.read_text()) | {"settings": {"data": {"path": path}}}))
    ids = fit_sweep(tmp_path).ids
    assert len(set(ids)) == len(ids) == 5
    assert all(re.fullmatch(r"floor_(train_settled|validation)_path_x_y_[0-9a-f]{8}", id) for id in ids[1:])


def test_corpora_of_two_kinds_are_told_apart_by_their_kind_alone(tmp_path, write_trial):
    kinds = [{"corpus": "kjv", "tokenizer": "byte", "context": 64}, {"corpus": "question_formation", "documents": 9}]
    for number, data in enumerate(kinds):
        result = write_trial(tmp_path, str(number), 1e6, 1e6, [2.0], [2.0] * 200) / "result.json"
        result.write_text(json.dumps(json.loads(result.read_text()) | {"settings": {"data": data}}))
    ids = fit_sweep(tmp_path).ids
    assert {id.partition("_corpus_")[2] for id in ids[1:]} == {"kjv", "question_formation"}


def test_estimates_are_found_by_id_and_an_unknown_one_names_those_there_are():
    fit = fit_of(estimate("k_dstar", 2.0), estimate("k_nopt", reason="too few"))
    assert fit["k_dstar"].value == 2
    assert [item.id for item in fit] == fit.ids == ["k_dstar", "k_nopt"]
    assert "k_nopt" in fit
    assert "k" not in fit
    for kind in (KeyError, InputError):
        with pytest.raises(kind, match="'k_star' is not an estimate of this fit; its estimates are k_dstar, k_nopt"):
            fit["k_star"]
    with pytest.raises(InputError, match="two estimates have the id k_dstar"):
        fit_of(estimate("k_dstar"), estimate("k_dstar"))


def test_frames_have_a_row_each(fitted):
    frame = fitted.to_frame().set_index("id")
    assert list(frame.index) == fitted.ids
    assert frame.name.is_unique
    row = frame.loc["k_dstar"]
    assert row.low < row.value < row.high
    assert (row.value, row.rejected) == (fitted["k_dstar"].value, fitted["k_dstar"].rejected)
    assert frame.value.isna().equals(frame.reason.notna())
    laws = fitted.laws_frame()
    assert len(laws) == 3 * len(all_laws())
    law = laws[(laws.id == "chinchilla") & (laws.objective == "huber_log")].iloc[0]
    assert law.k_low <= law.k <= law.k_high
    assert law.beta / law.alpha == pytest.approx(law.k)
    points = fitted.points_frame()
    assert points.loss.tolist() == fitted.table.loss.tolist()


def test_names_tell_the_objectives_of_one_law_apart():
    one = estimate("k_x", details={"objective": "huber_log"}, reason="none")
    other = one.model_copy(update={"id": "k_x_squared", "details": {"objective": "squared"}})
    assert (one.name, other.name) == ("k_x", "k_x, by an objective")


def test_json_has_what_a_figure_needs(fitted):
    document = json.loads(fitted.to_json())
    assert document["points_used"] == len(document["points"]) == 60
    laws = {(law["id"], law["objective"]): law for law in document["laws"]}
    law = laws["chinchilla", "huber_log"]
    point = document["points"][5]
    for name in (law["id"], law["law"]):
        found = predict(name, law["parameters"], point["N"], point["D"])
        assert found == pytest.approx(point["loss"], rel=1e-3)
    assert set(law["intervals"]) == {"A", "B", "E", "alpha", "beta", "k", "floor"}
    assert law["value"] is not None
    assert set(law["held_out"]) == {"N", "D", "C"}
    keys = {"id", "estimand", "value", "interval", "refusal", "hypotheses", "group", "details", "left_out", "remarks"}
    assert all(keys <= set(item) for item in document["estimates"])
    assert document["estimates"][0]["hypotheses"][0].keys() == {"name", "value", "rejected", "how", "p_value"}


def test_infinite_ends_are_null_in_json_and_unbounded_in_words():
    fit = fit_of(estimate("k_dstar", 2.0, (0.5, math.inf)))
    assert fit.to_dict()["estimates"][0]["interval"] == [0.5, None]
    assert "above 0.5" in str(fit.verdict())


def test_notebook_shows_the_verdict_and_escapes_what_files_bring():
    fit = fit_of(estimate("k_nopt", reason="<b>1</b> of 4"), estimate("k_dstar", 2.0, (1.0, 3.0), rejected=(4.0,)))
    text = fit._repr_html_()
    assert "<b>" not in text
    assert "&lt;b&gt;1&lt;/b&gt; of 4" in text
    assert "<td>k_dstar</td>" in text


def test_data_frame_is_fitted_as_its_file_is(tmp_path):
    N, D = (axis.ravel() for axis in np.meshgrid([1e6, 4e6], [1e6, 4e6]))
    frame = pd.DataFrame({"params": N, "tokens": D, "val": 3 - 1e-7 * D, "note": "x"})
    frame.to_csv(tmp_path / "points.csv", index=False)
    reading = {"columns": Columns(n="params", d="tokens", loss="val"), "resamples": 100}
    fits = fit_table(tmp_path / "points.csv", **reading), fit_table(frame.set_index("note"), **reading)
    documents = [fit.to_dict() for fit in fits]
    assert documents[1].pop("source") == "DataFrame"
    documents[0].pop("source")
    assert documents[0] == documents[1]
    with pytest.raises(InputError, match="DataFrame has no column 'N'"):
        fit_table(frame)
    with pytest.raises(InputError, match="no rows"):
        fit_table(frame[:0])
