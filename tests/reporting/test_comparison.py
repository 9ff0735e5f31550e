"""Two sweeps side by side."""

import json

import pytest
import yaml
from helpers.commands import ended
from helpers.made_sweep import write_sweep

from amscale import Sweep
from amscale.compare import compare
from amscale.files import packaged


@pytest.fixture
def sweeps(tmp_path):
    """Two made sweeps of which the second has another learning rate, other D, and one loss changed."""
    folders = []
    for name, tokens in (("first", (8000, 20000)), ("second", (20000, 50000))):
        folder = write_sweep(tmp_path / name, (6000, 24000), tokens, steps=20, name=name)
        tree = yaml.safe_load((packaged("configs") / "grammar.yaml").read_text(encoding="utf-8"))
        tree["train"]["learning_rate"] = 1e-3 if name == "first" else 2e-3
        (folder / "sweep.yaml").write_text(yaml.safe_dump({"format": 1, **tree}))
        folders.append(folder)
    file = folders[1] / "trials" / "vanilla-N6000-D20000-seed0" / "result.json"
    result = json.loads(file.read_text())
    result["losses"]["validation_least"] = 0.5
    file.write_text(json.dumps(result))
    return folders


def estimate(name: str, value: float | None, interval: list[float] | None, rejected: tuple[float, ...] = ()) -> dict:
    tests = [{"value": k, "rejected": k in rejected} for k in (1.0, 2.0)]
    return {"id": name, "estimand": name, "value": value, "interval": interval, "hypotheses": tests}


def test_settings_common_cells_and_changed_estimates(sweeps, capsys):
    first, second = sweeps
    found = Sweep(first).compare(Sweep(second))
    assert [(d.key, d.first, d.second) for d in found.settings] == [("train.learning_rate", 1e-3, 2e-3)]
    assert [(pair.N, pair.D) for pair in found.cells] == [(6000, 20000), (24000, 20000)]
    changed, equal = found.cells
    assert changed.validation[1] == 0.5 != changed.validation[0]
    assert equal.validation[0] == equal.validation[1]
    assert equal.same_trial
    assert len(found.only_first) == len(found.only_second) == 2
    assert "fit.json is not there" in found.no_estimates

    same = [("equal", 2.0, None)]
    gone = [("gone", 1.0, [0.9, 1.1])], [("gone", None, None)]
    fits = (
        [*same, ("moved", 1.0, [0.9, 1.1]), ("near", 1.0, [0.5, None]), ("rejected", 1.0, [0.5, 1.5]), *gone[0]],
        [*same, ("moved", 2.0, [1.9, 2.1]), ("near", 1.2, [1.1, 1.3]), ("rejected", 1.1, [0.5, 1.5], (2.0,)), *gone[1]],
    )
    for folder, entries in zip(sweeps, fits, strict=True):
        estimates = [estimate(*entry) for entry in entries]
        answers = [{"question": "k?", "headline": f"k of {folder.name}"}, {"question": "floor?", "headline": "none"}]
        (folder / "fit.json").write_text(json.dumps({"estimates": estimates, "verdict": {"answers": answers}}))
    again = Sweep(first).compare(Sweep(second))
    assert [entry.id for entry in again.estimates if entry.changed] == ["moved", "rejected", "gone"]
    assert [(v.question, v.first, v.second) for v in again.verdicts] == [("k?", "k of first", "k of second")]

    assert ended(compare, str(first), str(second)) == 0
    printed = capsys.readouterr().out
    assert "train.learning_rate" in printed
    assert "1 (0.5 to inf)" not in printed  # did not change
    assert "2 of 5 estimates did not change" in printed
    assert ended(compare, str(first), str(second), "--json") == 0
    (second / "fit.json").write_text('{"estimates": [{"id": "moved", "value": "much"}], "verdict": {"answers": []}}')
    assert "not what this version writes" in Sweep(first).compare(Sweep(second)).no_estimates


def test_a_place_without_a_sweep_is_one_line(sweeps, capsys):
    assert ended(compare, str(sweeps[0]), "nowhere") == 2
    assert capsys.readouterr().err.startswith("compare: nowhere: not a sweep folder; give <storage>/<name>")
