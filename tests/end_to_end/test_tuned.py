"""A sweep that tunes its learning rate: small cells first, then the larger one at the rule of these."""

import json

import pytest
from helpers.commands import command

pytestmark = [pytest.mark.slow]

SETTINGS = (
    "model.size=null",
    "model.layers=1",
    "grid.model.width=[8,16,32,64]",
    "data.size=8k",
    "train.steps=20",
    "train.learning_rate=1e-2 * (N / 1k) ** -0.1",
    "tune={train.learning_rate: [x0.01, x1, x100], small: 15k}",
)


def test_small_cells_are_tuned_first_and_the_larger_one_at_their_rule(tiny, tmp_path):
    arguments = (str(tiny), f"storage={tmp_path}", *SETTINGS)
    first = json.loads(command("plan", *arguments, "--json").stdout)
    assert (len(first["trials"]), first["trials_of_stage_2"]) == (9, 3)
    done = command("sweep", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stage 1 of 2: cells with N up to 15k run all 3 values." in done.stdout
    assert "Stage 2 of 2: larger cells run the value nearest to the rule" in done.stdout
    results = [json.loads(path.read_text()) for path in (tmp_path / "tiny" / "trials").glob("*/result.json")]
    assert len(results) == 12
    sizes = {result["parameters"]["attention"] for result in results}
    rates = {size: [] for size in sizes}
    for result in results:
        rates[result["parameters"]["attention"]].append(result["settings"]["train"]["learning_rate"])
    for each in rates.values():
        each.sort()
        assert [each[1] / each[0], each[2] / each[1]] == pytest.approx([100, 100], rel=1e-4)
    fitted = json.loads((tmp_path / "tiny" / "fit.json").read_text())
    assert len(fitted["points"]) == 4
    assert {cell["runs"] for cell in fitted["tuning"]["cells"]} == {3}
    assert fitted["tuning"]["axes"] == ["train.learning_rate"]
    assert all(point["train.learning_rate"] > 0 for point in fitted["points"])
    again = command("sweep", *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "every trial has its result already; nothing to run" in again.stdout
