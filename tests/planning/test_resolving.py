"""Rules and policies become numbers in the plan: in its columns, in identities, and by one line where they cannot."""

import math

import pytest

from amscale import config
from amscale.cluster.resources import this_machine
from amscale.errors import InputError
from amscale.planning.plan import plan_sweep
from amscale.planning.staging import around, fit_rules, neighbours
from amscale.planning.stopped import stopped_result
from amscale.reporting.plan_table import plan_document
from amscale.scaling.reading import read_sweep
from amscale.scaling.tuning import tune_cells
from amscale.trials.records import TrialResult
from amscale.trials.sweep_store import SweepStore


def plan(tmp_path, *overrides):
    few = ["data.documents=1k", "data.validation=100", f"storage={tmp_path}", "grid.data.size=[8k,16k]"]
    experiment = config.load("grammar.yaml", [*few, *overrides])
    return plan_sweep(experiment, tmp_path, this_machine("cpu"), build=False)


def test_identities_of_constants_are_those_of_earlier_versions_and_of_rules_with_the_same_value(tmp_path):
    """The twelve digits were recorded before there were rules."""
    constant = plan(tmp_path, "model.size=25k", "data.size=8k").trials[0]
    assert constant.identity == IDENTITY
    ruled = plan(
        tmp_path, "model.size=25k", "data.size=8k", "train.learning_rate=5e-3 * (N / N) ** 2", "train.policy=null"
    )
    assert [trial.identity for trial in ruled.trials] == [IDENTITY]
    assert ruled.trials[0].cell.train.rules == ()


IDENTITY = "8c57c15fbe67"


def test_values_follow_n_and_d_in_columns_and_identities(tmp_path):
    found = plan(
        tmp_path,
        "train.learning_rate=1e-3 * (N / 25k) ** -0.5 * D / 8k",
        "train.batch_tokens=max(1k, B_)".replace("B_", "D/8"),
    )
    frame = found.to_frame()
    assert set(frame) >= {"train.learning_rate", "train.batch_tokens"}
    for trial in found.trials:
        N = trial.shape.parameters.under("non_embedding")
        assert trial.cell.train.learning_rate == pytest.approx(1e-3 * (N / 25e3) ** -0.5 * trial.D / 8e3, rel=1e-5)
        assert trial.cell.train.batch_tokens == max(1000, trial.D // 8)
    assert len({trial.identity for trial in found.trials}) == 6


def test_a_policy_sets_what_is_not_set_by_hand_and_says_both(tmp_path):
    found = plan(tmp_path, "train={policy: step_law, epochs: 3, learning_rate: policy * 2}", "model.size=25k")
    trial = found.trials[0]
    N, T = trial.shape.parameters.under("non_embedding"), 3 * trial.D
    assert trial.cell.train.learning_rate == pytest.approx(2 * 1.79 * N**-0.713 * T**0.307, rel=1e-5)
    assert trial.cell.train.batch_tokens == round(0.58 * T**0.571)
    assert trial.cell.train.policy is None
    (line,) = plan_document(found)["policies"]
    assert "sets batch_tokens, schedule, final_learning_rate" in line
    assert "set by hand, which wins: learning_rate" in line
    assert found.common_settings == {"train.schedule": "cosine"}


def test_multiples_are_of_the_constant_the_rule_or_the_policy(tmp_path):
    multiples = "tune.train.learning_rate=[x0.5,x1,x2]"
    one = ["model.size=25k", "data.size=8k"]
    for base, middle in (("train.batch_tokens=1500", 5e-3), ("train.learning_rate=2e-3 * (N / N)", 2e-3)):
        rates = [trial.cell.train.learning_rate for trial in plan(tmp_path, *one, base, multiples).trials]
        assert rates == pytest.approx([middle / 2, middle, 2 * middle])
    trials = plan(tmp_path, *one, "train={policy: marin, epochs: 2}", multiples).trials
    assert [t.cell.train.learning_rate / trials[1].cell.train.learning_rate for t in trials] == pytest.approx(
        [0.5, 1, 2],
        rel=1e-5,  # values have six digits
    )
    assert plan(tmp_path, *one, multiples).trials[1].identity == IDENTITY


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["train.batch_tokens=T / 100"],
            r"batch_tokens → T → batch_tokens\); give one of these as a number, or .*epochs",
        ),
        (["train={policy: step_law, steps: 100}"], r"its value needs itself .*T → batch_tokens"),
        (["train.learning_rate=log(0) * N"], r"has no value: math domain error at N = "),
        (["train.learning_rate=-N"], r"greater than 0; the rule is '-N' at N = "),
        (["train.learning_rate=9**9**9"], r"too large a number"),
        (["train.batch_tokens=16", "data.context=64", "data.packing=stream"], r"at least one sequence, of 64 tokens"),
        (["train.batch_tokens=D / 4k", "data.packing=document"], r"=2: .* of in the mean .* tokens; give at least"),
    ],
)
def test_what_has_no_value_is_refused_in_one_line(tmp_path, overrides, words):
    with pytest.raises(InputError, match=words):
        plan(tmp_path, *overrides)


def test_neighbours_are_of_the_list_which_goes_on_beyond_its_ends():
    listed = [1.0, 2.0, 4.0, 8.0]
    assert neighbours(listed, 2.7) == pytest.approx([1, 2, 4])
    assert neighbours(listed, 3) == pytest.approx([2, 4, 8])
    assert neighbours(listed, 1) == pytest.approx([0.5, 1, 2])
    assert neighbours(listed, 30) == pytest.approx([16, 32, 64])
    assert neighbours(listed, 0.26) == pytest.approx([0.125, 0.25, 0.5])


def results_of(found, optimum):
    """Results of planned trials whose loss is a parabola in the logarithm of the learning rate about `optimum`."""
    results = {}
    for trial in found.trials:
        counts = trial.shape.parameters.as_dict()
        loss = 2.0 * math.exp(0.05 * math.log(trial.cell.train.learning_rate / optimum(trial.N, trial.D)) ** 2)
        results[trial.identity] = TrialResult.model_validate(
            {
                "format": 1,
                "trial": trial.identity,
                "state": "finished",
                "steps": 1,
                "shape": {},
                "parameters": counts,
                "flops": {"total": 1.0},
                "data": {"unique_tokens": trial.D},
                "losses": {"validation_least": loss},
            }
        )
    return results


def test_larger_cells_run_what_the_rule_of_small_ones_gives_and_one_step_to_each_side(tmp_path):
    """The made optimum falls as N^-0.5: at the largest N it is far below what the small cells were tuned over."""

    def optimum(N: float, D: float) -> float:
        return 5e-3 * (N / 1e4) ** -0.5 * (D / 1e4) ** 0.1

    given = ["grid.model.size=[6.6k,25k,100k,400k]", "tune={train.learning_rate: [x0.25, x0.5, x1, x2], small: 120k}"]
    first = plan(tmp_path, *given)
    assert len(first.trials) == 3 * 2 * 4
    assert len(first.later) == 2 * 3
    assert {trial.N > 120e3 for trial in first.later} == {True}
    assert "Stage 1 of 2" in first.stages[0]
    sweep = SweepStore(tmp_path / "grammar")
    for result in results_of(first, optimum).values():
        (label,) = [trial.label for trial in first.trials if trial.identity == result.trial]
        folder = sweep.trial(label).path
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text("{}")
        (folder / "result.json").write_text(result.to_json())
    second = plan(tmp_path, *given)
    assert not second.later
    assert {trial.identity for trial in first.trials} < {trial.identity for trial in second.trials}
    large = [trial for trial in second.trials if trial.N > 120e3]
    assert len(large) == 6
    for trial in large[:3], large[3:]:
        rates = [each.cell.train.learning_rate for each in trial]
        assert rates[1] / rates[0] == pytest.approx(2, rel=1e-5)
        assert rates[2] / rates[1] == pytest.approx(2, rel=1e-5)
        assert abs(math.log(rates[1] / optimum(trial[0].N, trial[0].D))) < math.log(2) / 2 + 1e-3
    assert [trial.identity for trial in plan(tmp_path, *given).trials] == [trial.identity for trial in second.trials]
    with pytest.raises(InputError, match=r"no cell of the grid is that small; the least N is 6.*k"):
        plan(tmp_path, *given, "tune.small=1k")


def test_a_batch_around_the_rule_has_at_least_one_sequence(tmp_path):
    given = ["grid.model.size=[6.6k,400k]", "data.size=8k", "data.context=64", "data.packing=stream"]
    tuned = plan(tmp_path, *given, "tune={train.batch_tokens: [64, 128, 256], small: 120k}")
    base = config.load("grammar.yaml", [])
    listed = {"train.batch_tokens": [64.0, 128.0, 256.0]}
    for wanted, batches in ((64.0, [64, 128]), (10.0, [64]), (128.0, [64, 128, 256])):
        cells = around(base, tuned.later[0], listed, {"train.batch_tokens": wanted})
        assert [cell.train.batch_tokens for cell in cells] == batches


def test_small_cells_without_a_rule_are_named(tmp_path):
    given = ["grid.model.size=[6.6k,25k,400k]", "tune={train.learning_rate: [x0.5, x1, x2], small: 30k}"]
    first = plan(tmp_path, *given)
    results = results_of(first, lambda N, D: 1.0)  # the best value is the largest everywhere
    with pytest.raises(InputError, match=r"tune.train.learning_rate: the small cells give no rule .* in 0 cells"):
        fit_rules(first.trials, results, ("train.learning_rate",))


def test_a_value_that_was_stopped_early_has_a_result_and_bounds_the_optimum(tmp_path):
    """It is left out of the fit by name, and the best value beside it is no edge."""
    found = plan(tmp_path, "model.size=25k", "data.size=8k", "tune={train.learning_rate: [x0.5, x1, x2], stop: asha}")
    assert {found.cell_of(trial) for trial in found.trials} == {'{"model.size": 25000, "data.size": 8000, "seed": 0}'}
    sweep = SweepStore(tmp_path / "grammar")
    (tmp_path / "grammar").mkdir()
    (tmp_path / "grammar" / "sweep.yaml").write_text("format: 1\ntune: {train.learning_rate: [1, 2, 3]}\n")
    for trial, loss in zip(found.trials, (2.0, 1.5, None), strict=True):
        sweep.trial(trial.label).path.mkdir(parents=True)
        report = {"step": 500, "loss": 4.0, "validation_loss": 3.0}
        result = stopped_result(trial, "ASHA: worse than the others", report)
        if loss is not None:
            losses = result.losses.model_copy(update={"validation_least": loss})
            result = result.model_copy(update={"state": "finished", "losses": losses, "settings": result.settings})
        sweep.publish_result(trial.label, result)
        assert sweep.trial(trial.label).read_result().steps == 500
    table = read_sweep(tmp_path / "grammar")
    assert [reason for _, reason in table.left_out] == ["stopped_early: ASHA: worse than the others"]
    (cell,) = tune_cells(table, ["train.learning_rate"]).cells
    assert cell.settings["train.learning_rate"] == pytest.approx(5e-3)
    assert not cell.edges
