"""What the charts of a report draw."""

import json
import math
from pathlib import Path

import pytest
from helpers.made_fit import page_of, surfaces

from amscale.reporting.axes import log_axis, references
from amscale.reporting.figures.loss import MAX_CURVE_POINTS, downsample_keeping_least, downsample_means, loss
from amscale.reporting.report_data import read_report_data
from amscale.scaling.fit import fit_sweep
from amscale.settings import format_size
from amscale.trials.sweep_store import open_sweep


@pytest.mark.slow
def test_surfaces_draw_the_optimum_and_the_score(sweep, read_page):
    charts = {c["name"]: c["options"][0]["panels"] for c in read_page(page_of(sweep, *surfaces())).charts}
    curve, mark = charts["iso_flop"][0]["traces"][:2]
    assert min(curve["y"]) == pytest.approx(mark["y"][0], abs=1e-3)
    assert mark["x"][0] == pytest.approx((400 / 900) ** (1 / 0.7) * (1e18 / 6) ** 0.5, rel=0.02)
    line = next(trace for trace in charts["iso_loss"][2]["traces"] if trace["name"].startswith("estimate"))
    x, y = ([math.log(value) for value in line[axis]] for axis in ("x", "y"))
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(0.5, abs=1e-3)
    titles = [panel["title"] for panel in charts["collapse"]]
    assert titles[1].startswith("k = 2: unexplained")
    assert float(titles[1].split()[-1]) < 0.05 < 0.2 < float(titles[0].split()[-1])


def test_several_seeds_are_drawn_as_median_and_range(made, tmp_path, read_page):
    folder = made.write_sweep(tmp_path / "s", sizes=(6000,), tokens=(8000,), seeds=(0, 1, 2), layers=1)
    for seed, shift in enumerate((0.0, 1.0, 5.0)):
        file = folder / "trials" / f"vanilla-N6000-D8000-seed{seed}" / "metrics.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for record in (record for record in records if record["kind"] == "probe"):
            record["values"]["energy/layer_00/E_mean"] = 10 + shift
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    chart = next(chart for chart in read_page(page_of(folder)).charts if chart["name"] == "energy")
    (panel,) = chart["options"][0]["panels"]
    band, line = panel["traces"][:2]
    assert panel["title"] == "1 x 16, N = 6k, 3 runs"
    assert set(line["y"]) == {11.0}
    assert (min(band["y"]), max(band["y"])) == (10.0, 15.0)


def test_several_corpora_are_drawn_against_their_entropies_and_not_as_one(made, tmp_path, read_page):
    folder = made.write_sweep(tmp_path / "s", sizes=(6000,), tokens=(8000, 50000))
    entropies = {"vanilla-N6000-D8000-seed0": 0.5, "vanilla-N6000-D50000-seed0": 1.5}
    for label, entropy in entropies.items():
        file = folder / "trials" / label / "result.json"
        result = json.loads(file.read_text())
        result["data"]["entropy_per_token"] = entropy
        file.write_text(json.dumps(result | {"settings": {"data": {"corpus": "text", "copies": round(2 * entropy)}}}))
    page = read_page(page_of(folder, *fit_sweep(folder, resamples=100)))
    charts = {chart["name"]: chart for chart in page.charts}
    assert "loss" not in charts
    assert "floor" not in charts
    (panel,) = charts["entropy"]["options"][0]["panels"]
    traces = {trace["name"]: trace for trace in panel["traces"]}
    assert traces["least validation loss"]["x"] == [0.5, 1.5]
    assert "The runs read 2 corpora" in page.text
    assert "the points are of 2 corpora" in page.text
    assert "not known" not in page.text


def test_radius_experiment_on_a_trial_is_shown(made, tmp_path, read_page):
    folder = made.write_sweep(tmp_path / "s", sizes=(24000,), tokens=(8000,))
    samples = [{"size": size, "radius_median": 2 / size} for size in (100, 200)]
    spread = {"place": "layer_01", "vectors": "trained", "r_star": 1.5, "samples": samples}
    for name, model in (("ours", "vanilla-N24000-D8000-seed0"), ("other", "gpt2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps({"model": model, "spreads": [spread]}))
    (chart,) = (chart for chart in read_page(page_of(folder)).charts if chart["name"] == "controls")
    assert [option["label"] for option in chart["options"]] == ["vanilla-N24000-D8000-seed0"]
    assert chart["options"][0]["panels"][0]["traces"][0]["y"] == [0.02, 0.01]
    (tmp_path / "ours" / "summary.json").unlink()
    assert "controls" not in [chart["name"] for chart in read_page(page_of(folder)).charts]


def test_downsampled_curve_keeps_the_level_or_the_least():
    curve = [(float(step), 2.0 if step % 2 else 1.0) for step in range(1, 2001)]
    means = downsample_means(curve)
    assert len(means) == MAX_CURVE_POINTS
    assert all(loss == pytest.approx(1.5) for _, loss in means)
    dip = [(float(step), 0.1 if step == 777 else 1.0) for step in range(1, 2001)]
    records = downsample_keeping_least(dip)
    assert len(records) <= MAX_CURVE_POINTS + 2
    assert set(records) <= set(dip)
    assert (777.0, 0.1) in records
    assert records[-1] == dip[-1]
    assert downsample_means(curve[:500]) == downsample_keeping_least(curve[:500]) == curve[:500]


def test_a_page_draws_few_points_of_long_curves_and_says_so(sweep, read_page):
    page = read_page(page_of(sweep))
    curves = next(chart for chart in page.charts if chart["name"] == "curves")
    traces = [trace for panel in curves["options"][0]["panels"] for trace in panel["traces"]]
    train = [trace for trace in traces if trace["name"].endswith("train")]
    assert len(train) == 12
    assert {len(trace["x"]) for trace in train} == {MAX_CURVE_POINTS}
    assert "mean of up to 2 consecutive steps" in page.text


def test_labels_of_touching_lines_are_joined():
    axis = log_axis("loss", [0.3, 3.0])
    lines = references([("1", 1.0), ("entropy", 0.9965), ("memorised", 0.98), ("far", 0.4), ("off", 9.0)], axis)
    assert [line.label for line in lines] == ["1, entropy, memorised", "", "", "far"]


def test_lines_of_a_tuned_sweep_go_through_its_tuned_cells():
    archive = Path(__file__).parents[2] / "docs" / "data" / "rates_questions.parquet"
    with open_sweep(str(archive)) as folder:
        fit = fit_sweep(folder, resamples=100)
        chart = loss(read_report_data(folder, fit))
    assert chart is not None
    validation, train = chart.panels[:2]
    lines = [series for series in validation.series if series.dash != "none"]
    drawn = {(line.name, D): value for line in lines for D, value in zip(line.x, line.y, strict=True)}
    assert drawn == {(f"N = {format_size(point.N)}", point.D): point.loss for point in fit.table.points}
    assert len(fit.table.points) < len(validation.series[-1].x) * len(lines)  # a cell has several runs
    assert all(series.dash == "none" for series in train.series)
