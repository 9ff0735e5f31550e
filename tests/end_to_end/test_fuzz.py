"""A few hundred damaged inputs; `python tests/fuzz.py` runs ten thousand."""

import random

import pytest
from helpers.fuzzing.targets import Rooms
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    return Rooms(tmp_path_factory.mktemp("rooms"))


def test_what_is_whole_passes(rooms):
    rooms.check_undamaged()


@pytest.mark.parametrize("room", ["configuration", "spec", "metrics", "checkpoint"])
def test_no_input_brings_a_traceback_or_changes_the_ledger(rooms, room):
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
        rooms.run(room, random.Random(seed))

    example()
