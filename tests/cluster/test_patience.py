"""How long a silence is allowed: what was seen of a run's own intervals decides."""

import pytest

from amscale.cluster.patience import Patience, Schedule

SCHEDULE = Schedule(steps=1000, validate_every=50, probe_every=0, checkpoint_every=100, stops_early=False)
SETTING = 1800.0


def seen(intervals: dict[int, float], last: int, schedule: Schedule | None = SCHEDULE, step: float = 60.0) -> Patience:
    """Return what a run has taught until step `last`: each took `step` seconds, the next after some others."""
    patience = Patience(SETTING, schedule)
    for number in range(1, last + 1):
        patience.recorded(number, intervals.get(number - 1, step))
    return patience


@pytest.mark.parametrize(
    ("last", "intervals", "limit"),
    [
        (10, {}, SETTING),  # too few
        (20, {}, 600),
        (20, {2: 170}, 600),  # the first ones do not count
        (20, {12: 120}, 1200),
        (20, {12: 400}, SETTING),  # never above the setting
        (49, {}, 600),
        (50, {}, SETTING),  # a validation, of which nothing is known
        (150, {50: 90}, SETTING),  # … of which one is known: step 100 had a checkpoint too
        (250, {50: 90, 150: 100}, 1000),
        (220, {100: 500, 200: 400}, 1000),  # a checkpoint may come after any step, when ranks are asked to end
        (1000, {}, SETTING),  # the last evaluation and the weights
    ],
)
def test_the_limit_is_learned_for_what_is_due(last, intervals, limit):
    assert seen(intervals, last).limit() == limit


def test_short_steps_have_a_floor_and_without_a_known_length_nothing_is_learned():
    assert seen({}, 30, step=0.5).limit() == 300
    unknown = Schedule(steps=None, validate_every=50, probe_every=0, checkpoint_every=100, stops_early=False)
    assert seen({}, 30, unknown).limit() == SETTING
    assert seen({}, 30, None).limit() == SETTING
    early = Schedule(steps=1000, validate_every=50, probe_every=0, checkpoint_every=100, stops_early=True)
    assert [seen({}, last, early).limit() for last in (249, 250)] == [600, SETTING]


def test_a_validation_ends_with_the_step_after_it_and_another_attempt_remembers():
    patience = seen({}, 49)
    for _ in range(2):
        patience.restart()
        assert patience.limit() == SETTING  # before the first record of an attempt
        for step in range(44, 51):
            patience.recorded(step, 60)
        patience.recorded(50, 30)  # the record of the validation
        patience.recorded(51, 70)
    patience.restart()
    patience.recorded(50, 5)
    assert patience.limit() == 1000
