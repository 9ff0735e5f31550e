"""Long curves, made short enough to draw."""

import math
from collections.abc import Sequence

MOST_POINTS = 500


def mean_of_neighbours(curve: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of as many consecutive records as it takes; a short curve as it is.

    No record is dropped: means keep the level, at the price of the scatter.
    """
    width = math.ceil(len(curve) / most)
    if width <= 1:
        return list(curve)
    groups = [curve[start : start + width] for start in range(0, len(curve), width)]
    return [(sum(step for step, _ in g) / len(g), sum(loss for _, loss in g) / len(g)) for g in groups]


def records_a_point(curve: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> int:
    """How many records each drawn point stands for."""
    return max(1, math.ceil(len(curve) / most))


def every_other(curve: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """About `most` of the records as they are, the least and the last always among them."""
    stride = math.ceil(len(curve) / most)
    if stride <= 1:
        return list(curve)
    least = min(range(len(curve)), key=lambda index: curve[index][1])
    kept = sorted({*range(0, len(curve), stride), least, len(curve) - 1})
    return [curve[index] for index in kept]
