"""Tuned cells: optima by interpolation over seeds' means, their errors, edges, the rule, and one setting for all."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from amscale.errors import InputError
from amscale.fit import fit
from amscale.scaling.points import Point, PointTable
from amscale.scaling.reading import read_sweep
from amscale.scaling.table import read_table
from amscale.scaling.tuning import at_settings, tune_cells
from amscale.scaling.tuning_policies import tables_of_policies
from amscale.scaling.tuning_surface import Surface
from amscale.trials.archive import unpacked

RATES, BATCHES = np.geomspace(5e-4, 8e-3, 5), np.geomspace(2e4, 1.28e6, 4)


def best(N: float, D: float) -> tuple[float, float]:
    """The best learning rate and batch of the made grid."""
    return 2e-3 * (N / 1e7) ** -0.25, 1.6e5 * (D / 1e9) ** 0.4


def made(noise: float = 0.0, seeds: int = 1) -> pd.DataFrame:
    """Runs of L = 1.7 + 300/N^.33 + 900/D^.33, k = 1, with valleys in learning rate and batch about `best`."""
    random = np.random.default_rng(5)
    rows = []
    for N in np.geomspace(1e6, 1e8, 4):
        for D in np.geomspace(1e8, 1e10, 4):
            rate, batch = best(N, D)
            for lr in RATES:
                for size in BATCHES:
                    u, v = math.log(lr / rate), math.log(size / batch)
                    loss = (1.7 + 300 * N**-0.33 + 900 * D**-0.33) * math.exp(0.004 * u * u + 0.003 * v * v)
                    rows += [(N, D, lr, size, loss * math.exp(noise * random.normal()), s) for s in range(seeds)]
    return pd.DataFrame(rows, columns=["N", "D", "learning_rate", "batch", "loss", "seed"])


@pytest.mark.slow
def test_tuned_cells_give_the_true_exponent_and_rule_where_one_batch_for_all_gives_another(tmp_path, capsys):
    path = tmp_path / "runs.csv"
    made(noise=1e-3).to_csv(path, index=False)
    fit(str(path), resamples=100, tune="learning_rate,batch", output=str(tmp_path))
    written = json.loads((tmp_path / "fit.json").read_text())
    estimates = {item["id"]: item for item in written["estimates"]}
    low, high = estimates["k_chinchilla"]["interval"]
    assert low < 1 < high
    assert high - low < 0.1
    tuning = written["tuning"]
    rules = {rule["axis"]: rule for rule in tuning["rules"]}
    for axis, exponents in {"learning_rate": (-0.25, 0), "batch": (0, 0.4)}.items():
        for name, true in zip("ab", exponents, strict=True):
            interval = rules[axis][f"{name}_interval"]
            assert interval[0] < true < interval[1]
            assert interval[1] - interval[0] < 0.2
    one = [item for item in tuning["sensitivity"] if item["what"] == "one batch for all"]
    assert len(one) == len(BATCHES)
    assert any(not item["interval"][0] < 1 < item["interval"][1] for item in one)
    assert abs(one[0]["k"] - 1) > 0.05
    assert len(written["points"]) == 16
    assert 0 < written["points"][0]["learning_rate"] < 8e-3
    out = " ".join(capsys.readouterr().out.split())
    assert "as configuration for larger cells: train: {learning_rate: " in out
    assert "sensitivity: k by" in out


def cell(losses: dict[float, list[float]], hopeless: tuple[float, ...] = ()) -> PointTable:
    """One cell of N = D = 1e6 with the losses of each learning rate's seeds, and rates that diverged."""
    points = [
        Point(f"{rate:g}/{seed}", 1e6, 1e6, loss, seed=seed, settings={"lr": rate})
        for rate, each in losses.items()
        for seed, loss in enumerate(each)
    ]
    tried = [Point(f"{rate:g}", 1e6, 1e6, math.inf, settings={"lr": rate}) for rate in hopeless]
    return PointTable("made", "N", points, hopeless=tried)


def test_seeds_are_averaged_before_the_best_setting_is_chosen_and_the_parabola_is_exact():
    true = {rate: 3 * math.exp(0.02 * math.log(rate / 1.3e-3) ** 2) for rate in (5e-4, 1e-3, 2e-3, 4e-3)}
    # The luckiest single run is at 4e-3; the means are on the parabola.
    runs = {rate: [loss * 1.001, loss / 1.001] for rate, loss in true.items()}
    runs[4e-3] = [true[4e-3] * 1.2, true[4e-3] / 1.2]
    found = tune_cells(cell(runs), ["lr"])
    (optimum,) = found.cells
    assert optimum.settings["lr"] == pytest.approx(1.3e-3, rel=1e-6)
    assert optimum.loss == pytest.approx(3, rel=1e-6)
    assert {point.name for point in optimum.nearest} == {"0.001/0", "0.001/1"}
    assert optimum.error > 0
    assert not optimum.edges
    assert not optimum.off_centre
    further = {8e-3: [3.4], 16e-3: [3.9], 32e-3: [4.5]}
    (aside,) = tune_cells(cell({rate: [loss] for rate, loss in true.items()} | further), ["lr"]).cells
    assert aside.off_centre == pytest.approx({"lr": 2.5e-4})


@pytest.mark.parametrize(
    ("hopeless", "edges", "following"),
    [((), ("lr",), {"lr": 8e-3}), ((8e-3,), (), {}), ((5e-4,), ("lr",), {"lr": 8e-3})],
)
def test_a_best_value_at_an_edge_proposes_the_next_unless_that_one_diverged(hopeless, edges, following):
    (optimum,) = tune_cells(cell({1e-3: [3.2], 2e-3: [3.1], 4e-3: [3.05]}, hopeless), ["lr"]).cells
    assert optimum.edges == edges
    assert optimum.next_values == pytest.approx(following)
    assert optimum.loss == pytest.approx(3.05)
    assert bool(optimum.reason) == (not edges)


def test_the_least_value_there_can_be_is_no_edge_and_nothing_below_it_is_proposed():
    """Batches of one, two and four sequences of 64 tokens, by rates of which the best is inside."""

    def surface(batches, least):
        points = [
            Point(
                "", 1e6, 1e6, math.exp(0.01 * math.log(lr / 2e-3) ** 2 + 0.02 * math.log(batch / best) ** 2), settings=s
            )
            for batch in batches
            for lr in (1e-3, 2e-3, 4e-3)
            for s in [{"lr": lr, "batch": batch}]
        ]
        return Surface.of(points, ("lr", "batch"), least_values=least).optimum(None, np.random.default_rng(0))

    best = 50.0
    lowest = surface((64.0, 128.0, 256.0), {"batch": 64.0})
    assert (lowest.edges, lowest.at_least, lowest.next_values) == ((), ("batch",), {})
    assert lowest.settings["lr"] == pytest.approx(2e-3)
    assert (lowest.inside, lowest.reason) == (("lr",), "")
    alone = Surface.of(cell({1e-3: [3.0], 2e-3: [3.1]}).points, ("lr",), least_values={"lr": 1e-3})
    found = alone.optimum(None, np.random.default_rng(0))
    assert (found.edges, found.reason) == ((), "the best lr is the least there can be: the best mean")
    unknown = surface((64.0, 128.0, 256.0), {})
    assert (unknown.edges, unknown.at_least, unknown.next_values) == (("batch",), (), {"batch": 32.0})
    assert surface((96.0, 192.0, 384.0), {"batch": 64.0}).next_values == {"batch": 64.0}
    best = 75.0
    assert surface((64.0, 128.0, 256.0, 1024.0), {"batch": 32.0}).next_values == {"batch": 32.0}
    best = 110.0
    assert surface((64.0, 128.0, 256.0, 1024.0), {"batch": 32.0}).off_centre == {"batch": 32.0}
    assert surface((64.0, 128.0, 256.0, 1024.0), {"batch": 64.0}).off_centre == {}


def test_the_batches_of_a_sweep_have_at_least_one_sequence(tmp_path):
    """The rectangle of English of the results page has a best batch of one sequence of 64 tokens in many cells."""
    with unpacked(Path(__file__).parents[2] / "docs" / "data" / "rectangle_english.parquet") as folder:
        table = read_sweep(folder, "non_embedding")
    cells = tune_cells(table, ("train.learning_rate", "train.batch_tokens"), resamples=0).cells
    lowest = [cell for cell in cells if cell.settings["train.batch_tokens"] == pytest.approx(64)]
    assert len(lowest) > 10
    assert {cell.at_least for cell in lowest} == {("train.batch_tokens",)}
    assert all(cell.next_values.get("train.batch_tokens", 64) >= 64 for cell in cells)


def test_error_of_the_optimum_is_what_repeated_experiments_show():
    random = np.random.default_rng(0)
    rates = np.geomspace(2.5e-4, 4e-3, 5)
    truth = 3 * np.exp(0.02 * np.log(rates / 1.1e-3) ** 2)
    found, errors = [], []
    for _ in range(200):
        noisy = {
            rate: list(loss * np.exp(0.002 * random.normal(size=3))) for rate, loss in zip(rates, truth, strict=True)
        }
        (optimum,) = tune_cells(cell(noisy), ["lr"], resamples=200).cells
        found.append(math.log(optimum.loss / 3))
        errors.append(optimum.error)
    assert np.mean(errors) == pytest.approx(np.std(found), rel=0.15)
    assert abs(np.mean(found)) < 0.1 * np.std(found) + 2 * np.std(found) / math.sqrt(200)


def test_settings_between_runs_are_interpolated_and_those_beyond_are_not():
    tuning = tune_cells(cell({1e-3: [3.0], 4e-3: [3.2], 16e-3: [4.0]}), ["lr"])
    halfway = at_settings(tuning, {(1e6, 1e6): {"lr": 2e-3}})
    assert halfway.points[0].loss == pytest.approx(math.sqrt(3.0 * 3.2))
    assert at_settings(tuning, {(1e6, 1e6): {"lr": 5e-4}}) is None


def test_columns_of_learning_rate_and_batch_are_tuned_by_name_and_others_must_exist():
    rows = made()
    table = read_table(rows)
    assert set(table.points[0].settings) == {"learning_rate", "batch"}
    assert len(tune_cells(table, ("learning_rate", "batch")).cells) == 16
    assert any("tuned by cell" in warning for warning in table.warnings)
    assert not read_table(rows, tune=()).points[0].settings
    with pytest.raises(InputError, match="no such column"):
        read_table(rows, tune=["rate"])


def test_variants_of_a_cell_are_told_apart_by_their_mean_over_seeds(tmp_path, write_trial):
    for name, decay, losses in (("steady", 0.1, (2.0, 2.1)), ("lucky", 0.0, (1.9, 2.6))):
        for seed, loss in enumerate(losses):
            path = write_trial(tmp_path, f"{name}{seed}", 1e6, 1e6, [loss], [loss] * 10, seed=seed)
            result = json.loads((path / "result.json").read_text())
            result["settings"] = {"train": {"weight_decay": decay, "learning_rate": 1e-3}, "seed": seed}
            (path / "result.json").write_text(json.dumps(result))
    table = read_sweep(tmp_path)
    assert [point.name for point in table.points] == ["steady0", "steady1"]
    assert "train.weight_decay=0.1, which has the lower mean" in table.left_out[0][1]
    assert len(read_sweep(tmp_path, axes=["train.weight_decay"]).points) == 4
    (tmp_path / "sweep.yaml").write_text("tune:\n  train.weight_decay: [0, 0.1]\n")
    assert [sorted(point.settings) for point in read_sweep(tmp_path).points] == [["train.weight_decay"]] * 4


def test_a_policy_is_compared_where_the_runs_surround_its_settings():
    """Step Law's learning rate of a table's N and D; where the batch, or a width, is needed and unknown, nothing is."""
    points = []
    for N in (1e7, 4e7):
        for D in (1e9, 4e9):
            rate = 1.79 * N**-0.713 * D**0.307
            for lr in (rate / 2, rate * 2, rate * 8):
                loss = 2 + N**-0.1 + abs(math.log(lr / rate))
                points.append(Point(f"{N:g}/{D:g}/{lr:g}", N, D, loss, settings={"lr": lr}))
    tuning = tune_cells(PointTable("made", "N", points), ["lr"])
    tables = tables_of_policies(tuning)
    assert list(tables) == ["step_law"]
    for point in tables["step_law"].points:
        assert point.settings["lr"] == pytest.approx(1.79 * point.N**-0.713 * point.D**0.307)
        assert point.loss == pytest.approx(2 + point.N**-0.1 + math.log(2))
    higher = [replace(point, settings={"lr": 10 * point.settings["lr"]}) for point in points]
    assert not tables_of_policies(tune_cells(PointTable("made", "N", higher), ["lr"]))
    renamed = [replace(point, settings={"batch": point.settings["lr"]}) for point in points]
    assert not tables_of_policies(tune_cells(PointTable("made", "N", renamed), ["batch"]))
