"""What the page of a sweep says, and that it says nothing else."""

import json
import math
import re
import time
from html.parser import HTMLParser

import pytest
from helpers.made_fit import CAPACITY, EXPONENT, FLOOR, REFUSED, fit_of, page_of, surfaces

from amscale.cli import run
from amscale.errors import InputError
from amscale.report import report
from amscale.reporting.axes import every_other, log_axis, mean_of_neighbours, references
from amscale.reporting.interactive import formula
from amscale.reporting.report import write_report
from amscale.scaling.read_sweep import read_sweep


class Reader(HTMLParser):
    """Visible text, and what the page would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.loads, self.scripts, self.styles, self._inside = "", [], [], 0, ""
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.loads += [found[name] for name in ("src", "href", "action", "srcset", "poster") if name in found]
        self._inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data


def charts_of(page: str) -> list:
    return json.loads(Reader(page).scripts[1])["charts"]


def test_conclusion_names_numbers_rejections_and_refusals(sweep):
    page = page_of(sweep, EXPONENT, REFUSED, FLOOR, CAPACITY)
    text = Reader(page).text
    assert (
        "12 runs of the vanilla family finished: 3 sizes of 6k to 96k parameters by 4 data sets of 8k to 400k" in text
    )
    assert "lies for N = 6k between 8k and 20k; N = 24k at most 8k; N = 96k above 400k." in text
    assert "at D*(N): 2.5, 95 % interval above 1.4, 3 points. Rejected at 5 %: k = 1. Not rejected: k = 2." in text
    assert (
        "Rejected by these estimates of k: k = 1 (Chinchilla) by 1 of 1; k = 2 (associative memory) by 0 of 1." in text
    )
    assert "N<sub>opt</sub>(D): an interior minimum at 1 of 4 D &lt;b&gt;." in page
    assert "The known entropy of the corpus is 0.9965 nats per token" in text
    below = [point.result.losses.train_least < 1 for point in read_sweep(sweep).points]
    assert 0 < sum(below) < 12
    assert f"The training loss passed below 1 in {sum(below)} of 12 runs" in text
    assert "1 nat per token is no bound on the training loss of these runs" in text
    assert "A new group Memorised bits per parameter: 3.61, 95 % interval 3.5 to 3.7" in text


@pytest.mark.parametrize("estimates", [(), (CAPACITY,), (EXPONENT,), (REFUSED, FLOOR)])
def test_no_estimand_is_needed(sweep, estimates):
    page = page_of(sweep, *estimates)
    text = Reader(page).text
    assert all(estimate.estimand.partition("^")[0].partition("_")[0] in text for estimate in estimates)
    assert ("figure-frontier" in page) == (EXPONENT in estimates)


def test_page_loads_nothing_and_forbids_it(sweep):
    page = page_of(sweep, EXPONENT)
    reader = Reader(page)
    assert reader.loads == ["data:,"]
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(", page.partition("</style>")[0])


def test_text_of_a_trial_stays_text(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", tokens=(8000, 20000))
    evil = "</script><script>alert(1)</script>"
    made.write_trial(folder, "evil<script>alert(2)<", 24000, 50000, state="diverged", reason=f"nan {evil}")
    reader = Reader(page_of(folder, EXPONENT))
    assert len(reader.scripts) == 3
    assert not any(script.startswith("alert") for script in reader.scripts)
    assert f"nan {evil}" in reader.text
    assert "evil<script>alert(2)<" in reader.text
    assert "Not finished: 1 diverged." in reader.text
    assert evil not in json.dumps(json.loads(reader.scripts[1])["charts"])


def test_files_of_twelve_trials_of_a_thousand_steps_take_seconds(sweep):
    found = surfaces()
    start = time.process_time()
    page = write_report(sweep, fit_of(sweep, EXPONENT, *found, FLOOR)).read_text()
    assert time.process_time() - start < 8
    keys = re.findall(r'<figure id="figure-(\w+)"', page)
    assert keys == [
        "loss",
        "frontier",
        "iso_flop",
        "iso_loss",
        "collapse",
        "exponent",
        "floor",
        "curves",
        "energy",
        "radius",
    ]
    for key in keys:
        assert (sweep / "figures" / f"{key}.png").read_bytes().startswith(b"\x89PNG")
        assert "</svg>" in (sweep / "figures" / f"{key}.svg").read_text()


def test_estimates_are_read_and_fitted_anew_when_the_trials_change(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(24000,), tokens=(8000, 20000), layers=0)
    fit_of(folder, CAPACITY).write(folder / "fit.json")
    assert "Memorised bits per parameter: 3.61" in Reader(write_report(folder).read_text()).text
    made.write_trial(folder, "late", 24000, 50000)
    text = Reader(write_report(folder).read_text()).text
    assert len(json.loads((folder / "fit.json").read_text())["points"]) == 3
    assert "3 runs of the vanilla family finished" in text
    assert "Memorised bits per parameter: 3.61" not in text


def test_surfaces_draw_the_optimum_and_the_score(sweep):
    charts = {chart["key"]: chart["options"][0]["panels"] for chart in charts_of(page_of(sweep, *surfaces()))}
    curve, mark = charts["iso_flop"][0]["traces"][:2]
    assert min(curve["y"]) == pytest.approx(mark["y"][0], abs=1e-3)
    assert mark["x"][0] == pytest.approx((400 / 900) ** (1 / 0.7) * (1e18 / 6) ** 0.5, rel=0.02)
    line = next(trace for trace in charts["iso_loss"][2]["traces"] if trace["name"].startswith("estimate"))
    x, y = ([math.log(value) for value in line[axis]] for axis in ("x", "y"))
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(0.5, abs=1e-3)
    titles = [panel["title"] for panel in charts["collapse"]]
    assert titles[1].startswith("k = 2: unexplained")
    assert float(titles[1].split()[-1]) < 0.05 < 0.2 < float(titles[0].split()[-1])


def test_several_seeds_are_drawn_as_median_and_range(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(6000,), tokens=(8000,), seeds=(0, 1, 2), layers=1)
    for seed, shift in enumerate((0.0, 1.0, 5.0)):
        file = folder / "trials" / f"vanilla-N6000-D8000-seed{seed}" / "metrics.jsonl"
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for record in (record for record in records if record["kind"] == "probe"):
            record["values"]["energy/layer_00/E_mean"] = 10 + shift
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    chart = next(chart for chart in charts_of(page_of(folder)) if chart["key"] == "energy")
    (panel,) = chart["options"][0]["panels"]
    band, line = panel["traces"][:2]
    assert panel["title"] == "N = 6k, 3 runs"
    assert set(line["y"]) == {11.0}
    assert (min(band["y"]), max(band["y"])) == (10.0, 15.0)


def test_several_corpora_are_drawn_against_their_entropies_and_not_as_one(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(6000,), tokens=(8000, 50000))
    entropies = {"vanilla-N6000-D8000-seed0": 0.5, "vanilla-N6000-D50000-seed0": 1.5}
    for label, entropy in entropies.items():
        file = folder / "trials" / label / "result.json"
        result = json.loads(file.read_text())
        result["data"]["entropy_per_token"] = entropy
        file.write_text(json.dumps(result | {"settings": {"data": {"corpus": "text", "copies": round(2 * entropy)}}}))
    write_report(folder)
    page = (folder / "report.html").read_text()
    charts = {chart["key"]: chart for chart in charts_of(page)}
    assert "loss" not in charts
    assert "floor" not in charts
    (panel,) = charts["entropy"]["options"][0]["panels"]
    drawn = {trace["name"]: trace for trace in panel["traces"]}
    assert drawn["least validation loss"]["x"] == [0.5, 1.5]
    text = Reader(page).text
    assert "The runs read 2 corpora" in text
    assert "the points are of 2 corpora" in text
    assert "not known" not in text


def test_powers_and_subscripts():
    assert str(formula("N/D^1.35, N^-α, N_opt <")) == ("N/D<sup>1.35</sup>, N<sup>-α</sup>, N<sub>opt</sub> &lt;")
    assert str(formula("(N_c/N)^(α_N/α_D)")) == ("(N<sub>c</sub>/N)<sup>(α<sub>N</sub>/α<sub>D</sub>)</sup>")


def test_radius_experiment_on_a_trial_is_shown(made, tmp_path):
    folder = made.write_sweep(tmp_path / "s", sizes=(24000,), tokens=(8000,))
    samples = [{"size": size, "radius_median": 2 / size} for size in (100, 200)]
    spread = {"place": "layer_01", "vectors": "trained", "r_star": 1.5, "samples": samples}
    for name, model in (("ours", "vanilla-N24000-D8000-seed0"), ("other", "gpt2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps({"model": model, "spreads": [spread]}))
    assert [chart["key"] for chart in charts_of(page_of(folder))].count("controls") == 1
    (tmp_path / "ours" / "summary.json").unlink()
    assert "controls" not in [chart["key"] for chart in charts_of(page_of(folder))]


def test_thinned_curve_keeps_the_level_and_says_so(sweep):
    curve = [(float(step), 2.0 if step % 2 else 1.0) for step in range(1, 2001)]
    thin = mean_of_neighbours(curve)
    assert len(thin) == 500
    assert all(loss == pytest.approx(1.5) for _, loss in thin)
    dip = [(float(step), 0.1 if step == 777 else 1.0) for step in range(1, 2001)]
    assert min(every_other(dip), key=lambda pair: pair[1]) == (777.0, 0.1)
    assert "mean of up to 2 consecutive steps" in page_of(sweep)


def test_labels_of_touching_lines_are_joined():
    axis = log_axis("loss", [0.3, 3.0])
    lines = references([("1", 1.0), ("entropy", 0.9965), ("memorised", 0.98), ("far", 0.4), ("off", 9.0)], axis)
    assert [line.label for line in lines] == ["1, entropy, memorised", "", "", "far"]


def test_bad_input_is_one_line(tmp_path, capsys, made):
    with pytest.raises(InputError, match="not a sweep folder"):
        write_report(tmp_path)
    folder = made.write_sweep(tmp_path / "s", sizes=(), tokens=())
    made.write_trial(folder, "bad", 24000, 50000, state="diverged", reason="loss is nan")
    with pytest.raises(InputError, match="none of its trials has finished \\(1 diverged"):
        write_report(folder)
    with pytest.raises(SystemExit) as stopped:
        run(report, [str(tmp_path / "absent")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
