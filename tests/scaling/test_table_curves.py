"""Tables of loss curves: the last step of a run is its loss, and steps of one run are no runs."""

import numpy as np
import pandas as pd
import pytest

from amscale.errors import InputError
from amscale.scaling.fit import fit_table
from amscale.scaling.table import Columns, read_table

SIZES, AMOUNTS, STEPS = (1e6, 3e6, 1e7), (1e8, 3e8, 1e9), (100, 200, 300, 400)


def law(N, D):
    return 1.7 + (3e5 / N) ** 0.4 + (3e7 / D) ** 0.3


def curves(step="step", seeds=(0,), **more):
    """Return rows of runs, those of each run in a row; the loss at a step is above that of the run."""
    return pd.DataFrame(
        [
            {"N": N, "D": D, step: at, "loss": law(N, D) * (1 + seed / 100) * (STEPS[-1] / at) ** 0.2, "s": seed}
            | {name: value(N, D, seed, at) for name, value in more.items()}
            for N in SIZES
            for D in AMOUNTS
            for seed in seeds
            for at in STEPS
        ]
    ).drop(columns="s")


def named(N, D, seed, at):
    return f"{N:g}-{D:g}-{seed}"


def table_of(frame, **more):
    return read_table(frame, Columns(), **more)


@pytest.mark.parametrize(
    "step", ["step", "_step", "Step", "global_step", "trainer/global_step", "iteration", "train_step"]
)
def test_the_last_step_gives_the_loss_of_a_run(step):
    table = table_of(curves(step))
    assert len(table.points) == 9
    assert table.loss == pytest.approx(law(table.N, table.D))
    assert table.points[0].name == "row 4"
    (said,) = table.warnings
    assert said.startswith(
        f"'{step}' counts the steps of runs: the last one with a loss gives the loss of a run (9 of 36"
    )
    assert f"--where '{step}<=…' ends runs sooner" in said


def test_the_order_of_the_rows_is_no_matter():
    frame = curves().sample(frac=1, random_state=0)
    assert sorted(table_of(frame).loss) == pytest.approx(sorted(table_of(curves()).loss))


def test_seeds_and_text_tell_runs_apart_and_the_learning_rate_of_a_step_does_not():
    frame = curves(seeds=(0, 1), seed=lambda N, D, seed, at: seed, lr=lambda N, D, seed, at: 1e-3 * (1 - at / 500))
    table = table_of(frame)
    assert [len(table.points), len(table.cells())] == [18, 9]
    assert [point.settings for point in table.points] == [{}] * 18
    frame = curves(seeds=(0, 1), optimiser=lambda N, D, seed, at: ("adam", "muon")[seed])
    table = table_of(frame)
    assert {point.labels for point in table.points} == {(("optimiser", "adam"),), (("optimiser", "muon"),)}


def test_runs_that_nothing_tells_apart_are_kept_where_they_are_of_one_length():
    frame = curves(seeds=(0, 1))
    assert len(table_of(frame).points) == 18
    with pytest.raises(
        InputError,
        match=r"rows 1 and 5 have one N, one D and one 'step', in runs of different lengths: "
        r"add a column 'run' .*, or choose one step, --where 'step=100'$",
    ):
        table_of(frame.drop(index=7))
    assert len(table_of(frame.drop(index=7), where="step=100").points) == 18
    frame["run"] = [f"{row // 4}" for row in range(len(frame))]
    assert len(table_of(frame.drop(index=7)).points) == 18
    frame = curves(seeds=(0, 1), lr=lambda N, D, seed, at: (1e-3, 3e-3)[seed]).drop(index=7)
    assert {point.settings["lr"] for point in table_of(frame).points} == {1e-3, 3e-3}


def test_a_run_that_was_resumed_logs_steps_again():
    frame = curves(run_id=named)
    again = frame.iloc[2:4].assign(loss=[9.0, 8.0])
    table = table_of(pd.concat([frame.iloc[:4], again, frame.iloc[4:]]))
    assert len(table.points) == 9
    assert (table.points[0].name, table.points[0].loss) == ("row 6", 8.0)
    assert "In 1 of 9 runs an earlier step had less loss, by up to" in table.warnings[0]


def test_validation_is_less_frequent_than_steps_and_a_run_may_diverge():
    frame = curves(run=named).astype({"loss": object})
    frame.loc[frame["step"] == 400, "loss"] = None
    table = table_of(frame)
    assert table.loss == pytest.approx(law(table.N, table.D) * (400 / 300) ** 0.2)
    frame.loc[0:3, "loss"] = None
    frame.loc[7, "loss"] = np.inf
    table = table_of(frame)
    assert table.left_out == [("row 4", "loss missing"), ("row 8", "loss is inf")]


def test_lengths_of_runs_are_no_steps():
    """A column in the plural, one row a run, a run of its own in each row, or a step without the loss: as before."""
    for frame in (
        curves("steps"),
        curves("total_steps"),
        curves(run=lambda N, D, seed, at: f"{N}{D}{at}"),
        curves().astype({"step": object}).replace({"step": {400: "end"}}),
    ):
        table = table_of(frame)
        assert len(table.points) == 36
        assert not any("counts the steps" in said or "grows with" in said for said in table.warnings)
    frame = curves().query("step == 400")
    assert (len(table_of(frame).points), table_of(frame).warnings) == (9, [])


def test_where_d_grows_with_the_step_all_rows_stay_and_it_is_said():
    frame = pd.DataFrame(
        [{"N": N, "tokens": 1e6 * at, "step": at, "loss": law(N, 1e6 * at)} for N in SIZES for at in STEPS]
    )
    table = table_of(frame)
    assert len(table.points) == 12
    said = (
        "'tokens' grows with 'step' at one N: each row is taken as a run that ended there. Where rows are steps of one"
    )
    assert sum(warning.startswith(said) for warning in table.warnings) == 1
    assert "constant learning rate" in " ".join(table.warnings)
    # Unique tokens that a run has seen after a part of it: rows of one run by its name.
    frame["D"], frame["run"] = frame["tokens"].clip(upper=2e8), frame["N"].map("{:g}".format)
    assert len(table_of(frame).points) == 3


def test_a_fit_of_curves_is_that_of_their_ends():
    frame = curves(lr=lambda N, D, seed, at: 0.1 / at)
    found = fit_table(frame, Columns(), resamples=100)
    ends = fit_table(frame.query("step == 400"), Columns(), resamples=100)
    assert sum("counts the steps" in said for said in found.table.warnings) == 1
    assert not any("grows with" in said for said in found.table.warnings)
    values = [{item.id: item.value for item in each.estimates} for each in (found, ends)]
    assert values[0] == values[1]
    assert "one learning rate (0.00025)" in " ".join(found.table.warnings)
