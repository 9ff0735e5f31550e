"""Nearest-neighbour distances in nested samples of vectors, what they imply, and control vectors."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.stats import binom
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
_ROWS = 4096
"""Vectors that are in float64 at a time."""


@dataclass
class VectorDistances:
    """The nearest-neighbour distances of one set of vectors at one place of the network."""

    place: str
    vectors: str
    """`trained`, or the name of the control: `random weights`, `shuffled`, `gaussian`, `normalised`."""
    dimension: int
    """Width of the vectors, n."""
    length_mean: float = 0.0
    """Mean Euclidean length of the vectors."""
    spread: float = 0.0
    """Root mean square distance of the vectors to their mean: r̂ grows in proportion where all are scaled."""
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
        """Return r* of the vectors' width."""
        return r_star(self.dimension)


def sample_sizes(count: int) -> list[int]:
    """Return the sizes of the nested samples of k vectors, those of PERCENT among them."""
    sizes = {round(count * percent / 100) for percent in PERCENT} | {count // divisor for divisor in _SMALLER}
    return sorted(size for size in sizes if size >= min(_LEAST, count))


def measure_distances(place: str, name: str, vectors_PC: Tensor, device: torch.device) -> VectorDistances:
    """Find exact nearest neighbours in nested samples of the vectors: the first s of them for each size s."""
    count, width = vectors_PC.shape
    found = VectorDistances(place, name, width, *_scale(vectors_PC))
    percent = {round(count * share / 100): share for share in PERCENT}
    for nested in nested_neighbours(vectors_PC.to(device), sample_sizes(count)):
        try:
            neighbours = nested.neighbours
        except ValueError as error:
            found.reason = str(error)
            continue
        distance_U = neighbours.distance_U.cpu().numpy()
        found.sizes.append(nested.size)
        found.rows.append(_statistics(nested.size, neighbours, distance_U, found.r_star))
        if nested.size in percent:
            found.distances[percent[nested.size]] = distance_U
        if nested.size == count:
            found.reason = None
            found.nearest_P = nested.distance_S.cpu().numpy()
    if found.rows and found.reason is None:
        try:
            found.implied = intrinsic_dimension(found.sizes, [row["distance_mean"] for row in found.rows])
        except ValueError as error:
            found.reason = str(error)
    return found


def _scale(vectors_PC: Tensor) -> tuple[float, float]:
    """Return the mean length of the vectors, and their root mean square distance to their mean."""
    count, width = vectors_PC.shape
    lengths, squares, total_C = 0.0, 0.0, torch.zeros(width, dtype=torch.float64)
    for rows_RC in vectors_PC.split(_ROWS):
        total_C += rows_RC.double().sum(0).cpu()
        lengths += float(rows_RC.double().norm(dim=1).sum())
    for rows_RC in vectors_PC.split(_ROWS):
        squares += float((rows_RC.double().cpu() - total_C / count).square().sum())
    return lengths / count, math.sqrt(squares / count)


def _statistics(size: int, neighbours: Neighbours, distance_U: np.ndarray, star: float) -> dict[str, Any]:
    low, median, high = np.quantile(distance_U, (0.05, 0.5, 0.95))
    least, most = median_interval(distance_U)
    return {
        "size": size,
        "duplicates": neighbours.duplicates,
        "distance_mean": float(distance_U.mean()),
        "distance_q05": float(low),
        "distance_median": float(median),
        "distance_q95": float(high),
        "radius_mean": float(distance_U.mean() / 2),
        "radius_median": float(median / 2),
        "radius_median_low": least / 2,
        "radius_median_high": most / 2,
        "r_star": star,
        "separated_own": neighbours.separated_share_of_own_radius(),
        "separated_median": neighbours.separated_share(float(median / 2)),
        "separated_r_star": neighbours.separated_share(star),
    }


def median_interval(values_U: np.ndarray) -> tuple[float, float]:
    """Return a 95 % interval of the median, from the ranks that a binomial count allows; no distribution is assumed.

    Draws are taken to be independent. Two vectors may share one nearest distance, so at worst the interval of nearest
    distances is too narrow by a factor of √2.
    """
    count = len(values_U)
    ordered_U = np.sort(values_U)
    rank = int(binom.ppf(0.025, count, 0.5))
    return float(ordered_U[max(0, rank - 1)]), float(ordered_U[min(count - 1, count - rank)])


def normalised(vectors_PC: Tensor) -> Tensor:
    """Scale each vector to root mean square 1, as an RMS norm without gain does: r̂ then depends on angles alone."""
    scale_P1 = vectors_PC.square().mean(1, keepdim=True).sqrt()
    return vectors_PC / scale_P1.clamp(min=torch.finfo(vectors_PC.dtype).tiny)


def shuffled(vectors_PC: Tensor, seed: int) -> Tensor:
    """Shuffle each coordinate among the vectors, which keeps its distribution and removes what ties coordinates."""
    generator = torch.Generator().manual_seed(seed)
    result_PC = torch.empty_like(vectors_PC)
    for column in range(vectors_PC.shape[1]):
        result_PC[:, column] = vectors_PC[torch.randperm(len(vectors_PC), generator=generator), column]
    return result_PC


def gaussian(vectors_PC: Tensor, seed: int) -> Tensor:
    """Draw as many vectors from the normal distribution of the vectors' mean and covariance, float32."""
    generator = torch.Generator().manual_seed(seed)
    count, width = vectors_PC.shape
    mean_C = torch.zeros(width, dtype=torch.float64)
    for rows_RC in vectors_PC.split(_ROWS):
        mean_C += rows_RC.double().sum(0) / count
    covariance_CC = torch.zeros(width, width, dtype=torch.float64)
    for rows_RC in vectors_PC.split(_ROWS):
        centred_RC = rows_RC.double() - mean_C
        covariance_CC += centred_RC.T @ centred_RC / count
    variance_C, axes_CC = torch.linalg.eigh(covariance_CC)
    root_CC = axes_CC * variance_C.clamp(min=0).sqrt()
    result_PC = torch.empty(count, width)
    for rows_RC in result_PC.split(_ROWS):
        normal_RC = torch.randn(rows_RC.shape, generator=generator, dtype=torch.float64)
        rows_RC.copy_(normal_RC @ root_CC.T + mean_C)
    return result_PC
