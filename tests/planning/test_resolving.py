"""Rules and policies become numbers in the plan: in its columns, in identities, and by one line where they cannot."""

import pytest

from amscale import config
from amscale.cluster.resources import this_machine
from amscale.errors import InputError
from amscale.planning.plan import plan_sweep
from amscale.reporting.plan_table import plan_document


def plan(tmp_path, *overrides):
    few = ["data.documents=1k", "data.validation=100", f"storage={tmp_path}", "grid.data.size=[8k,16k]"]
    experiment = config.load("quick.yaml", [*few, *overrides])
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
    ],
)
def test_what_has_no_value_is_refused_in_one_line(tmp_path, overrides, words):
    with pytest.raises(InputError, match=words):
        plan(tmp_path, *overrides)
