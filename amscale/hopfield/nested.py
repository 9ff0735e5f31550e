"""Nearest neighbours within the first s of a list of points, for several s, in one pass over the pairs.

Distances shrink as points are added. With points spread smoothly over a set of dimension m they shrink as s^(−1/m), so
the slope of ln(distance) on ln(s) gives the dimension that the points fill.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from amscale.hopfield.neighbours import CHUNK_ELEMENTS, Neighbours, centre, check_shapes, squared_distances


@dataclass(frozen=True)
class Nested:
    """Nearest neighbours within the first `size` points."""

    size: int
    distance_S: Tensor
    """Euclidean distance of each point to the nearest point that differs from it, (S,) float64; infinite where all are
    equal."""
    first_S: Tensor
    """True where no earlier point is exactly equal."""
    copies_S: Tensor
    """How often each point's value occurs among them, itself included."""

    @property
    def neighbours(self) -> Neighbours:
        """Neighbours of each distinct point, as `nearest_neighbours` gives them.

        Raises:
            ValueError: all points are equal.
        """
        if not bool(self.distance_S.isfinite().all()):
            raise ValueError(f"{self.size} points hold one distinct value: no point has a neighbour")
        return Neighbours(self.distance_S[self.first_S], self.copies_S[self.first_S])


def nested_neighbours(points_PN: Tensor, sizes: Sequence[int]) -> list[Nested]:
    """Find the exact nearest neighbours within the first s points, for each s in `sizes`.

    Every pair is compared once, in float64, so all sizes together cost what the largest costs alone: P²·N/2
    multiply-adds. Beside the points, memory is a few blocks of 2^23 float64 numbers, about 0.3 GB.

    Args:
        points_PN: (P, N), finite, of any floating type.
        sizes: increasing, between 2 and P.

    Raises:
        ValueError: sizes that do not increase within these limits, or points that are not finite.
    """
    check_shapes(points_PN, points_PN)
    points_PN = points_PN.detach()
    sizes = list(sizes)
    if not sizes or sizes[0] < 2 or sizes[-1] > points_PN.shape[0] or sizes != sorted(set(sizes)):
        raise ValueError(f"sizes {sizes} must increase from 2 or more to at most {points_PN.shape[0]}")
    if not all(bool(part_PN.isfinite().all()) for part_PN in points_PN.split(4096)):
        raise ValueError("the points hold numbers that are not finite")
    largest = sizes[-1]
    device = points_PN.device
    squared_P = torch.full((largest,), torch.inf, dtype=torch.float64, device=device)
    copies_P = torch.ones(largest, dtype=torch.long, device=device)
    first_P = torch.ones(largest, dtype=torch.bool, device=device)
    centre_N = centre(points_PN[:largest])
    results = []
    for stop, blocks in _stages(sizes):
        for rows, columns in blocks:
            block_RC = squared_distances(points_PN[rows], points_PN[columns], centre_N)
            _take(block_RC, rows, columns, squared_P, copies_P, first_P)
        results.append(Nested(stop, squared_P[:stop].sqrt(), first_P[:stop].clone(), copies_P[:stop].clone()))
    return results


def _stages(sizes: Sequence[int]) -> Iterator[tuple[int, list[tuple[slice, slice]]]]:
    """Yield each size and the blocks (rows before or at columns) that hold the pairs it adds."""
    side = math.isqrt(CHUNK_ELEMENTS - 1) + 1
    edges = sorted({0, *sizes, *range(0, sizes[-1], side)})
    parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
    start = 0
    for stop in sizes:
        added = [part for part in parts if start < part.stop <= stop]
        yield stop, [(rows, columns) for columns in added for rows in parts if rows.stop <= columns.stop]
        start = stop


def _take(block_RC: Tensor, rows: slice, columns: slice, squared_P: Tensor, copies_P: Tensor, first_P: Tensor) -> None:
    """Lower the least distances by one block; count exact duplicates (distance 0) and leave them out."""
    if rows == columns:
        block_RC.fill_diagonal_(torch.inf)
    if float(block_RC.min()) == 0:
        equal_RC = block_RC == 0
        block_RC.masked_fill_(equal_RC, torch.inf)
        copies_P[columns] += equal_RC.sum(0)
        if rows == columns:
            first_P[columns] &= ~equal_RC.triu().any(0)
        else:
            copies_P[rows] += equal_RC.sum(1)
            first_P[columns] &= ~equal_RC.any(0)
    squared_P[columns] = torch.minimum(squared_P[columns], block_RC.amin(0))
    if rows != columns:
        squared_P[rows] = torch.minimum(squared_P[rows], block_RC.amin(1))


@dataclass(frozen=True)
class Dimension:
    """The dimension m that distances ∝ size^(−1/m) imply."""

    dimension: float
    slope: float
    """Of ln(distance) on ln(size): −1/m."""
    residual: float
    """Root mean square of the residuals of ln(distance)."""


def intrinsic_dimension(sizes: Sequence[int], distances: Sequence[float]) -> Dimension:
    """Fit ln(distance) on ln(size) by least squares and return the dimension that the slope implies.

    Args:
        sizes: numbers of points, at least two distinct ones.
        distances: mean or median distance to the nearest neighbour at each.

    Raises:
        ValueError: fewer than two sizes, distances that are not positive, or distances that do not shrink.
    """
    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(distances, dtype=np.float64)
    if len(set(sizes)) < 2 or len(x) != len(y) or not (np.isfinite(y).all() and (y > 0).all()):
        raise ValueError("a dimension needs positive distances at two or more sizes")
    x, y = np.log(x), np.log(y)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    if slope >= 0:
        raise ValueError("the distances do not shrink as points are added, so they imply no dimension")
    residual = y - y.mean() - slope * (x - x.mean())
    return Dimension(-1 / slope, slope, float(np.sqrt((residual**2).mean())))
