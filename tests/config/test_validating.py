"""When a run validates: what is given counts, and what is left open follows from the run."""

import pytest

from amscale import config
from amscale.trials.identity import trial_id


def cell(train):
    return config.parse(
        {
            "name": "a",
            "model": {"family": "vanilla", "size": "10k"},
            "data": {"corpus": "question_formation"},
            "train": {"steps": 1000, "batch_tokens": 2048, **train},
        }
    )


@pytest.mark.parametrize("steps", [500, 1000, 20_000, 10**6])
@pytest.mark.parametrize("batch_tokens", [2048, 16384, 2**19])
def test_validations_take_a_hundredth_of_the_arithmetic_by_default(steps, batch_tokens):
    found = config.validating(cell({"batch_tokens": batch_tokens}), steps)
    measured = found.tokens * (steps // found.every)
    assert measured / 3 <= 0.01 * steps * batch_tokens
    # As many validations as 1 % pays for with the least sample, but no fewer than 20 where it pays for them.
    assert steps // found.every >= min(20, 0.01 * steps * batch_tokens * 3 // 4096) - 1
    assert found.last_tokens == pytest.approx(max(65536, 0.03 * steps * batch_tokens), abs=1)


def test_what_is_given_counts():
    found = config.validating(cell({"validate_every": 7, "validation_tokens": 123}), 1000)
    assert (found.every, found.tokens, found.last_tokens) == (7, 123, 123)


def test_a_run_that_stops_at_a_plateau_validates_as_in_earlier_versions():
    found = config.validating(cell({"patience": 3}), 1000)
    assert (found.every, found.tokens, found.last_tokens) == (100, 65536, 65536)


def test_the_identity_is_that_of_earlier_versions():
    """Where the default was a number; what was given otherwise is part of it still."""
    earlier = {"validate_every": 100, "validation_tokens": 65536}
    assert trial_id(cell({}), {}) == trial_id(cell(earlier), {})
    assert trial_id(cell({}), {}) != trial_id(cell({"validate_every": 99}), {})
