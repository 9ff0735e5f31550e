"""Nearest-neighbour distances in nested samples of vectors, and what they imply."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from amscale.hopfield.neighbours import Neighbours
from amscale.hopfield.nested import Dimension, intrinsic_dimension, nested_neighbours
from amscale.hopfield.volume import r_star

PERCENT = (25, 50, 75, 100)
"""Shares of the vectors whose distances are kept whole."""
_SMALLER = (32, 16, 8)
"""Divisors of k that give the smaller samples of the slope."""
_LEAST = 8
"""Vectors of the smallest sample."""


@dataclass
class Spread:
    """The distances of one set of vectors at one place."""

    place: str
    vectors: str
    """Which vectors: `trained`, or the control they are."""
    dimension: int
    """Width of the vectors, n."""
    sizes: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Statistics at each size."""
    distances: dict[int, np.ndarray] = field(default_factory=dict)
    """Distances of the distinct vectors by percentage of the vectors."""
    nearest_P: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Distance of every vector to its nearest distinct neighbour among all, (P,)."""
    implied: Dimension | None = None
    """What the shrinking of the mean distance implies."""
    reason: str | None = None
    """Why no dimension is implied, or nothing could be measured."""

    @property
    def r_star(self) -> float:
        return r_star(self.dimension)


def sample_sizes(count: int) -> list[int]:
    """Sizes of the nested samples of k vectors, the percentages among them."""
    sizes = {round(count * percent / 100) for percent in PERCENT} | {count // divisor for divisor in _SMALLER}
    return sorted(size for size in sizes if size >= min(_LEAST, count))


def measure_spread(place: str, name: str, vectors_PC: Tensor, device: torch.device) -> Spread:
    """Exact nearest neighbours in nested samples of the vectors, in their order."""
    count, width = vectors_PC.shape
    spread = Spread(place, name, width)
    percent = {round(count * share / 100): share for share in PERCENT}
    for nested in nested_neighbours(vectors_PC.to(device), sample_sizes(count)):
        try:
            neighbours = nested.neighbours
        except ValueError as error:
            spread.reason = str(error)
            continue
        distance_U = neighbours.distance_U.cpu().numpy()
        spread.sizes.append(nested.size)
        spread.rows.append(_statistics(nested.size, neighbours, distance_U, spread.r_star))
        if nested.size in percent:
            spread.distances[percent[nested.size]] = distance_U
        if nested.size == count:
            spread.reason = None
            spread.nearest_P = nested.distance_S.cpu().numpy()
    if spread.rows and spread.reason is None:
        try:
            spread.implied = intrinsic_dimension(spread.sizes, [row["distance_mean"] for row in spread.rows])
        except ValueError as error:
            spread.reason = str(error)
    return spread


def _statistics(size: int, neighbours: Neighbours, distance_U: np.ndarray, star: float) -> dict[str, Any]:
    low, median, high = np.quantile(distance_U, (0.05, 0.5, 0.95))
    return {
        "size": size,
        "duplicates": neighbours.duplicates,
        "distance_mean": float(distance_U.mean()),
        "distance_q05": float(low),
        "distance_median": float(median),
        "distance_q95": float(high),
        "radius_mean": float(distance_U.mean() / 2),
        "radius_median": float(median / 2),
        "r_star": star,
        "separated_own": neighbours.separated_share_of_own_radius(),
        "separated_median": neighbours.separated_share(float(median / 2)),
        "separated_r_star": neighbours.separated_share(star),
    }
