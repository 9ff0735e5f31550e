"""What moves k besides N and D is said: settings, units, outliers, errors that sizes share, curves out of line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from amscale.scaling.bootstrap import cells_of
from amscale.scaling.fit import fit_sweep, fit_table
from amscale.scaling.health import health
from amscale.scaling.laws.chinchilla import Chinchilla
from amscale.scaling.laws.fitting import fit_law
from amscale.scaling.laws.law import HUBER_LOG, Rows
from amscale.scaling.optima import exponent_from_optima
from amscale.scaling.outliers import near_duplicates, outliers
from amscale.scaling.points import Curves, Point, PointTable
from amscale.scaling.reading import read_sweep
from amscale.scaling.residual_trend import residual_trend
from amscale.scaling.size_effect import size_effect
from amscale.scaling.table import Columns, read_table
from amscale.trials.archive import unpacked

N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(2e7, 2e10, 7)))
SIZE = np.unique(N, return_inverse=True)[1]


def rows(loss):
    return Rows(N, D, loss, None, 6 * N * D)


def losses(noise=0.003, shared=0.0, random=0):
    draw = np.random.default_rng(random)
    error = noise * draw.normal(size=len(N)) + shared * draw.normal(size=6)[SIZE]
    return (1.7 + 300 * N**-0.33 + 900 * D**-0.33) * np.exp(error)


def effect_of(loss):
    law = Chinchilla()
    fit = fit_law(law, rows(loss), HUBER_LOG)
    jacobian = law.problem(rows(loss)).predict(fit.theta[None])[1][0]
    return size_effect(N, cells_of(N, D), np.log(loss) - np.log(fit.predict(rows(loss))), jacobian)


def test_an_error_that_sizes_share_is_seen_where_it_is_and_not_where_it_is_not():
    seen = [effect_of(losses(shared=0.01, random=seed)).probability for seed in range(10)]
    unseen = [effect_of(losses(random=seed)).probability for seed in range(10)]
    assert np.median(seen) > 0.95
    assert np.median(unseen) < 0.3


@pytest.mark.slow
def test_an_error_that_sizes_share_widens_the_interval_of_k_and_is_no_lack_of_fit():
    one, other = (fit_table(pd.DataFrame({"N": N, "D": D, "loss": losses(shared=x)}), resamples=200) for x in (0, 0.01))
    widths = [np.diff(fit["k_chinchilla"].interval)[0] for fit in (one, other)]
    assert widths[1] > 3 * widths[0]
    assert other["k_chinchilla"].interval[0] < 1 < other["k_chinchilla"].interval[1]
    assert "shared by the runs of one N" in other["k_chinchilla"].method
    assert "cannot tell the k of tuned cells" in " ".join(one.table.warnings)
    k = one["k_chinchilla"]
    assert k.details["conditions"]
    # Nothing says how these were tuned: 0.5 and 1.35 are outside the interval, and may be k of tuned runs.
    assert k.rejected == (2, 4)
    low, high = k.details["for_tuned_runs"]
    assert low < k.interval[0] / 2
    assert high > 1.5 * k.interval[1]
    assert [test.k for test in k.tests if "where k of tuned runs may be" in test.how] == [0.5, 1.35]
    assert "2 and 4 are rejected; ½, 1 and 1.35 are not" in str(one.verdict())
    assert "; of tuned runs it may be 0." in str(one.verdict())


def test_residuals_that_bend_with_size_are_told_from_errors_that_sizes_share():
    """Projected off a plane in ln N and ln D: a bend of 3 % is found, errors shared by sizes are none."""
    x = np.log(N) - np.log(N).mean()
    plane = np.stack([np.ones_like(x), x, np.log(D)], axis=1)
    cells, sizes = np.arange(len(N)), np.unique(N, return_inverse=True)[1]
    found, chance = [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        shared = 0.01 * random.normal(size=sizes.max() + 1)[sizes] + 0.003 * random.normal(size=len(N))
        chance.append(residual_trend(N, cells, shared, plane).p)
        bent = 0.03 * (x / x.max()) ** 2 + 0.003 * random.normal(size=len(N))
        found.append(residual_trend(N, cells, bent, plane))
    assert sum(p < 0.05 for p in chance) <= 6
    assert all("residuals bend with N" in trend.remark() for trend in found)
    assert residual_trend(np.repeat([1e6, 1e7], 3), np.arange(6), np.arange(6.0), np.ones((6, 1))) is None


def test_outliers_are_named_with_their_side_and_k_without_them():
    loss = losses()
    loss[5] *= 1.08
    loss[20] *= 0.95
    found = outliers(fit_law(Chinchilla(), rows(loss), HUBER_LOG), rows(loss))
    assert found.rows == (5, 20)
    assert found.residuals[5] > 0 > found.residuals[20]
    assert found.k_without == pytest.approx(1, abs=0.05)
    calm = losses()
    assert not outliers(fit_law(Chinchilla(), rows(calm), HUBER_LOG), rows(calm)).rows


def test_near_duplicates_are_named_and_seeds_are_none():
    cells = [(1e6, 1e8), (1e6, 1e8), (1.01e6, 0.99e8), (2e6, 1e8)]
    points = [Point(f"row {i}", n, d, 3.0) for i, (n, d) in enumerate(cells)]
    assert near_duplicates(points) == [("row 0", "row 2")]


@pytest.mark.parametrize(
    ("columns", "names", "says"),
    [
        ({"loss": np.exp(losses())}, Columns(), "perplexities"),
        ({"bpb": losses() / 3}, Columns(loss="bpb"), "--loss_unit"),
        ({"loss": losses(), "N": N / 1e6}, Columns(), "'N (M)'"),
        ({"loss": losses(), "flops": N * D / 1e9}, Columns(), "not in one unit"),
        ({"loss": losses(), "flops": 6 * N * D}, Columns(), None),
    ],
)
def test_numbers_that_cannot_be_what_they_are_taken_for(columns, names, says):
    warnings = " ".join(read_table(pd.DataFrame({"N": N, "D": D} | columns), names).warnings)
    assert says in warnings if says else not warnings


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({}, "nothing says which learning rate and which batch"),
        ({"lr": 1e-3, "batch size": 512}, "one learning rate (0.001) and one batch (512)"),
        ({"lr": 1 / N, "batch_tokens": D / 100, "weight_decay": 0.1}, "k holds at weight decay 0.1"),
    ],
)
def test_exponents_say_which_settings_they_hold_for(columns, says):
    from amscale.scaling.conditions import conditions_of_table
    from amscale.scaling.table_file import read_cells

    frame = pd.DataFrame({"N": N, "D": D, "loss": losses()} | columns)
    found = conditions_of_table(read_table(frame), read_cells(frame))
    assert says in " ".join(found)
    assert ("cannot tell" in " ".join(found)) == (len(columns) < 3)


def test_runs_are_no_better_tuned_where_embeddings_narrow_the_range_of_N():
    from amscale.scaling.conditions import conditions_of_sweep

    with unpacked(Path(__file__).parents[2] / "docs" / "data" / "overfitting_english.parquet") as folder:
        for count, factor in (("non_embedding", 14.7), ("total", 6.19)):
            table = read_sweep(folder, count)
            assert table.N.max() / table.N.min() == pytest.approx(factor, rel=0.02)
            assert "cannot tell" in " ".join(conditions_of_sweep(table))


def test_random_losses_have_no_optimum():
    draw = np.random.default_rng(5)
    tables = [
        PointTable("", "N", [Point("", n, d, 3 + 0.1 * draw.normal()) for n, d in zip(N, D, strict=True)])
        for _ in range(40)
    ]
    assert sum(exponent_from_optima(table, (1.0,)).value is not None for table in tables) <= 2


def curve(slope, steps=400):
    at = np.arange(1, steps + 1.0)
    none = np.array([])
    return Curves(at, 2 + 3 * (at / steps) ** -0.3 * np.exp(slope * (1 - at / steps)), none, none, steps)


def test_a_loss_curve_that_leaves_the_band_is_named():
    slopes = [0.0] * 7 + [0.9]
    points = [Point(f"t{i}", 1e6 * 2**i, 1e7, 3.0, curves=curve(s, 200 + 50 * i)) for i, s in enumerate(slopes)]
    found = health(PointTable("", "", points))
    assert list(found.leaving) == ["t7"]
    assert "1 of 8 loss curves leave the band" in found.remarks()[0]
    assert not health(PointTable("", "", points[:7])).leaving
    assert health(PointTable("", "", points[:3])) is None


@pytest.mark.slow
def test_the_curves_of_a_sweep_are_in_its_fit(tmp_path, write_sweep):
    write_sweep(tmp_path, sizes=5, amounts=6)
    fit = fit_sweep(tmp_path, resamples=100)
    assert fit.health is not None
    assert len(fit.to_dict()["health"]["curves"]) == 30
