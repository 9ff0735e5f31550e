"""What a plan says that its grid cannot tell, and the grid that it proposes."""

from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from amscale.planning.design import DesignCheck


@dataclass
class Trial:
    """What the check reads of a trial's plan."""

    N: float
    D: float
    seed: int = 0
    batch: float = 1000
    rate: float = 1e-3
    passes: float = 4.0

    @property
    def flops(self):
        return 6 * self.N * self.D * self.passes

    @property
    def cell(self):
        return SimpleNamespace(seed=self.seed, train=SimpleNamespace(batch_tokens=self.batch))

    @property
    def step_plan(self):
        return SimpleNamespace(steps=self.passes * self.D / self.batch)

    def setting(self, key):
        return {"train.learning_rate": self.rate, "train.batch_tokens": self.batch}[key]


N, D = np.geomspace(1e6, 1e7, 4), np.geomspace(1e6, 1e8, 4)


def said(trials):
    return " ".join(DesignCheck(trials).warnings)


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([Trial(n, 20 * n) for n in N], "D = 20 N in every run"),
        ([Trial(n, d) for n, d in product(N[:2], D)], "2 N: an exponent"),
        ([Trial(n, d) for n, d in product(N, D)], "One seed"),
        ([Trial(n, d, batch=1e7) for n, d in product(N, D)], "batch (10M tokens) larger than their data (D 1M)"),
        ([Trial(n, d) for n, d in product(N, D)], "One learning rate and one batch for N over a factor of 10"),
        ([Trial(n, d, rate=1 / n) for n, d in product(N, D)], "One batch for N"),
        ([Trial(n, d, passes=1.0) for n, d in product(N, D)], "so none over-fits"),
        ([Trial(n, d) for n, d in product(N, D)], "sees its data about 4 times"),
    ],
)
def test_what_a_grid_cannot_tell(trials, words):
    assert words in said(trials)


def test_a_grid_that_can_tell_is_not_warned_of():
    trials = [Trial(n, d, seed, batch=d / 100, rate=1 / n, passes=1e8 / d + 2) for n, d, seed in product(N, D, (0, 1))]
    assert not said(trials)
    assert not said([Trial(1e6, 1e7), Trial(1e6, 1e7, seed=1)])


def test_a_grid_of_the_same_cost_is_proposed_where_it_tells_more():
    line = [Trial(n, 20 * n * (1 + 0.01 * (i % 2))) for i, n in enumerate(np.geomspace(1e6, 1e8, 12))]
    found = DesignCheck(line).proposal
    assert found is not None
    assert found.flops <= found.flops_planned
    assert found.interval[0] < 1 < found.interval[1]
    if found.interval_planned is not None:
        low, high = found.interval_planned
        assert found.interval[1] - found.interval[0] < 0.8 * (high - low)
    rectangle = [Trial(n, d) for n, d in product(found.N, found.D)]
    again = DesignCheck(rectangle).proposal
    assert again is None or again.interval[1] - again.interval[0] < found.interval[1] - found.interval[0]
