"""Plans: each corpus is looked at once, nothing heavy is imported, and a table holds what is printed."""

import collections
import subprocess
import sys

import pytest

from amscale import config
from amscale.cluster.resources import this_machine
from amscale.planning import corpora as planning
from amscale.planning.plan import plan_sweep


def load(tmp_path, *overrides):
    few = ["data.documents=1k", "data.validation=100", f"storage={tmp_path}"]
    return config.load("grammar.yaml", [*few, *overrides])


def test_a_part_and_the_whole_of_a_corpus_in_one_grid(tmp_path):
    """A D that is given needs no tokens, all that there are does: the plan makes them for that cell alone."""
    experiment = load(tmp_path, "model.size=25k", "grid.data.size=[8k, null]")
    part, whole = plan_sweep(experiment, tmp_path, this_machine(), build=False).trials
    assert (part.D, part.store) == (8000, None)
    assert whole.store is not None
    assert whole.D == whole.store.training_tokens > 8000


@pytest.fixture
def calls(monkeypatch):
    """How often the plan has asked for what takes milliseconds or more, by the function's name."""
    found = collections.Counter()

    def count(name, function):
        def counted(*arguments):
            found[name] += 1
            return function(*arguments)

        monkeypatch.setattr(planning, name, counted)

    for name in ("corpus_content", "predict_statistics", "store_name", "prepare"):
        count(name, getattr(planning, name))
    return found


def test_a_plan_looks_at_each_corpus_once_and_builds_nothing(tmp_path, calls):
    """What is asked of a corpus does not grow with the cells of the grid."""
    grid = [f"grid.model.size={[round(1e5 * 1.08**i) for i in range(10)]}", "model.layers=null"]
    grid += [f"grid.data.size={[round(2e3 * 1.07**i) for i in range(10)]}"]
    trials = plan_sweep(load(tmp_path, *grid), tmp_path, this_machine(), build=False).trials
    assert len(trials) == 100
    assert calls == {"corpus_content": 1, "predict_statistics": 2, "store_name": 1}
    calls.clear()
    two = load(tmp_path, *grid, "grid.data.split_seed=[0, 1]")
    assert len(plan_sweep(two, tmp_path, this_machine(), build=False).trials) == 200
    assert calls == {"corpus_content": 2, "predict_statistics": 4, "store_name": 2}


def test_a_plan_imports_nothing_heavy(tmp_path):
    script = (
        "import sys\nfrom amscale.plan import plan\n"
        f"plan('grammar.yaml', 'data.documents=1k', 'data.validation=100', 'storage={tmp_path}')\n"
        "heavy = {'torch', 'ray', 'deepspeed', 'accelerate', 'transformers', 'datasets', 'pandas', 'matplotlib'}\n"
        "print('heavy:', sorted(heavy & sys.modules.keys()))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("heavy: []\n")


def test_a_plan_is_a_table_with_one_row_a_trial(tmp_path):
    experiment = load(
        tmp_path, "grid.model.size=[25k, 100k]", "grid.data.size=[4k]", "grid.train.weight_decay=[0, 0.1]"
    )
    plan = plan_sweep(experiment, tmp_path, this_machine(), build=False)
    frame = plan.to_frame()
    assert list(frame.columns) == [
        *("label", "shape", "family", "N", "D", "seed", "steps", "flops", "memory_bytes", "zero_stage"),
        *("machines", "processes", "device", "precision", "seconds", "gpu_fraction", "cards", "trunk", "branch_step"),
        "train.weight_decay",
    ]
    assert list(frame["label"]) == [trial.label for trial in plan.trials]
    assert list(frame["train.weight_decay"]) == [0.0, 0.1, 0.0, 0.1]
    assert set(frame["D"]) == {4000}
    first, row = plan.trials[0], frame.iloc[0]
    assert (row["N"], row["steps"], row["device"]) == (first.N, first.steps, first.placement.device)
    assert row["flops"] == pytest.approx(first.flops)
    assert plan.trials[0].setting("train.weight_decay") == 0
