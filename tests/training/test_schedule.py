"""Learning-rate schedules as functions of the step."""

import itertools

import pytest

from amscale.config import TrainSettings
from amscale.training.loop import learning_rate


def rates(steps: int = 100, **settings) -> list[float]:
    train = TrainSettings(steps=steps, learning_rate=1.0, final_learning_rate=0.1, **settings)
    return [learning_rate(train, step, steps) for step in range(1, steps + 1)]


def test_warm_up_is_linear_and_reaches_the_peak():
    curve = rates(schedule="constant", warmup=0.1)
    assert curve[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert set(curve[9:]) == {1.0}
    assert rates(schedule="constant", warmup=10) == curve


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_decays_end_at_the_final_rate_and_never_rise(schedule):
    curve = rates(schedule=schedule, warmup=0)
    assert curve[-1] == pytest.approx(0.1)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(curve))


def test_shapes_between():
    assert rates(schedule="linear", warmup=0)[49] == pytest.approx(0.55)
    assert rates(schedule="cosine", warmup=0)[49] == pytest.approx(0.55)
    assert rates(schedule="cosine", warmup=0)[24] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + 0.5**0.5), abs=1e-6)
    stable = rates(schedule="wsd", warmup=0, decay=0.2)
    assert set(stable[:80]) == {1.0}
    assert stable[89] == pytest.approx(0.55)
    assert rates(schedule="wsd", warmup=0, decay=0.2, least_decay=20) == stable
    longer = rates(schedule="wsd", warmup=0, decay=0.2, least_decay=40)
    assert set(longer[:60]) == {1.0}
    assert longer[79] == pytest.approx(0.55)
