"""The configurations of experiments: each is whole, has models of its sizes, and has a version for a laptop."""

from pathlib import Path

import pytest

from amscale.config import expand, load
from amscale.models import solve

FOLDER = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("radius_"))
VOCABULARY = {"random_tokens": 33, "question_formation": 68, "kjv": 512}
PUBLISHED = {
    "gpt2_small_openwebtext": {85.0},
    "openelm_spgc": {39.95, 60.48, 80.20},  # 60.26 is printed; see the configuration
    "vanilla_question_formation": {18.9, 31.5},
}


def test_every_experiment_has_a_version_for_a_laptop():
    large = {name for name in NAMES if not name.endswith("_cpu")} - {"quick", "grammar"}
    assert len(large) >= 6
    assert {f"{name}_cpu" for name in large} == {name for name in NAMES if name.endswith("_cpu")}
    assert PUBLISHED.keys() <= large


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_has_a_model(name):
    experiment = load(str(FOLDER / f"{name}.yaml"))
    assert experiment.name == name
    cells = expand(experiment)
    assert len(cells) >= 3
    sizes = set()
    for cell in cells:
        shape = solve(cell.model, VOCABULARY.get(cell.data.corpus, 50257), cell.data.context or 64)
        sizes.add(shape.parameters.under(experiment.fit.count))
        assert cell.data.size is None or cell.data.size > 0
    expected = PUBLISHED.get(name)
    if expected:
        assert len(sizes) == len(expected)
        for size, millions in zip(sorted(sizes), sorted(expected), strict=True):
            assert size / 1e6 == pytest.approx(millions, rel=0.003)
    if name.endswith("_cpu"):
        assert max(sizes) <= 200_000
