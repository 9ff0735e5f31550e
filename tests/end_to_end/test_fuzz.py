"""A few hundred damaged inputs; `python tests/fuzz.py` runs ten thousand."""

import random

import pytest
from helpers.fuzzing.targets import Targets
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return Targets(tmp_path_factory.mktemp("targets"))


def test_what_is_whole_passes(targets):
    targets.check_undamaged()


@pytest.mark.parametrize(
    "target",
    [
        "configuration",
        pytest.param("spec", marks=pytest.mark.slow),
        pytest.param("metrics", marks=pytest.mark.slow),
        "checkpoint",
        "table",
        pytest.param("text", marks=pytest.mark.slow),
        "environment",
        pytest.param("program", marks=pytest.mark.slow),
    ],
)
def test_no_input_brings_a_traceback_or_changes_a_result(targets, target):
    # An example is its seed: smaller seeds are not simpler, so nothing is gained by shrinking.
    @settings(
        max_examples=80,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32 - 1))
    def example(seed: int) -> None:
        targets.run(target, random.Random(seed))

    example()
