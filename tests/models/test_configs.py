"""The configurations of experiments: each is whole, its models can be built, and each has its twin for a laptop."""

from pathlib import Path

import pytest

from amscale.config import expand, load
from amscale.models import solve

FOLDER = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = (
    "capacity_random_tokens",
    "entropy_ladder",
    "gpt2_small_openwebtext",
    "llama_1b",
    "openelm_spgc",
    "vanilla_question_formation",
)
VOCABULARY = {"random_tokens": 33, "question_formation": 68, "kjv": 512}
PUBLISHED = {
    "gpt2_small_openwebtext": {85.0},
    "openelm_spgc": {39.95, 60.48, 80.20},  # 60.26 is printed; see the configuration
    "vanilla_question_formation": {18.9, 31.5},
}


@pytest.mark.parametrize("name", [*EXPERIMENTS, *(f"{name}_cpu" for name in EXPERIMENTS)])
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
