"""Accurate squared distances in bounded memory, and nearest neighbours with exact duplicates counted apart.

‖x − ρ‖² = ‖x‖² + ‖ρ‖² − 2xᵀρ costs one matrix product, but loses every digit of a distance that is small beside the
norms. Here the data are centred, the product is taken in float64, and each pair whose distance the expansion cannot
resolve is computed again from its difference.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Elements of the largest temporary: 2^23 float64 numbers are 64 MiB.
CHUNK_ELEMENTS = 2**23
# A distance is kept from the expansion where the rounding error of the matrix product is below this share of it.
RELATIVE_ERROR = 1e-8


def check_shapes(x_QN: Tensor, patterns_PN: Tensor) -> None:
    """Raise ValueError unless both are matrices of the same width and there is a pattern to compare with."""
    if x_QN.ndim != 2 or patterns_PN.ndim != 2 or x_QN.shape[1] != patterns_PN.shape[1]:
        raise ValueError(
            f"queries {tuple(x_QN.shape)} and patterns {tuple(patterns_PN.shape)} must be matrices of equal width"
        )
    if patterns_PN.shape[0] == 0 or patterns_PN.shape[1] == 0:
        raise ValueError(f"patterns of shape {tuple(patterns_PN.shape)} hold nothing to compare with")


def chunks(length: int, width: int) -> Iterator[slice]:
    """Yield slices of `length` such that a slice times `width` stays within the bounded temporary."""
    step = max(1, CHUNK_ELEMENTS // max(1, width))
    for start in range(0, length, step):
        yield slice(start, min(length, start + step))


def centre(patterns_PN: Tensor) -> Tensor:
    """Return the mean of the patterns, (N,) float64, summed in bounded memory."""
    rows, width = patterns_PN.shape
    total_N = torch.zeros(width, dtype=torch.float64, device=patterns_PN.device)
    for rows_slice in chunks(rows, width):
        total_N += patterns_PN[rows_slice].to(torch.float64).sum(0)
    return total_N / rows


def squared_norms(patterns_PN: Tensor) -> Tensor:
    """Return ‖ρ_i‖², (P,) float64."""
    rows, width = patterns_PN.shape
    return torch.cat([patterns_PN[s].to(torch.float64).square().sum(1) for s in chunks(rows, width)])


def paired_squared_distance(x_QN: Tensor, y_QN: Tensor) -> Tensor:
    """Return ‖x_i − y_i‖² of paired rows from their difference, (Q,) float64. Both (Q, N)."""
    pieces = [(x_QN[s].to(torch.float64) - y_QN[s].to(torch.float64)).square().sum(1) for s in chunks(*x_QN.shape)]
    return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.float64, device=x_QN.device)


def squared_distances(x_QN: Tensor, y_PN: Tensor, centre_N: Tensor) -> Tensor:
    """Return squared distances (Q, P) of two blocks in float64, expanded about a centre near the data and repaired."""
    (queries, width), stored = x_QN.shape, y_PN.shape[0]
    distance_QP = torch.zeros(queries, stored, dtype=torch.float64, device=x_QN.device)
    norm_Q, norm_P = distance_QP.new_zeros(queries), distance_QP.new_zeros(stored)
    for columns in chunks(width, max(queries, stored)):
        x_QC = x_QN[:, columns].to(torch.float64) - centre_N[columns]
        y_PC = y_PN[:, columns].to(torch.float64) - centre_N[columns]
        distance_QP.addmm_(x_QC, y_PC.T, alpha=-2.0)
        norm_Q += x_QC.square().sum(1)
        norm_P += y_PC.square().sum(1)
    scale_QP = norm_Q[:, None] + norm_P
    distance_QP += scale_QP
    error = width * torch.finfo(torch.float64).eps / RELATIVE_ERROR
    # "Not above" rather than "below": a NaN is computed again too, and stays one.
    _repair(distance_QP, ~(distance_QP > scale_QP.mul_(error)), x_QN, y_PN)
    return distance_QP


def _repair(distance_QP: Tensor, lost_QP: Tensor, x_QN: Tensor, y_PN: Tensor) -> None:
    """Compute the pairs marked as lost from the data as given: centring has already rounded their last digits away."""
    row_R, column_R = lost_QP.nonzero(as_tuple=True)
    for s in chunks(row_R.numel(), x_QN.shape[1]):
        row_S, column_S = row_R[s], column_R[s]
        distance_QP[row_S, column_S] = paired_squared_distance(x_QN[row_S], y_PN[column_S])


def distance_blocks(x_QN: Tensor, patterns_PN: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield blocks of the matrix ‖x_q − ρ_p‖²: (slice of queries, slice of patterns, block in float64).

    A slice of queries is compared with every pattern before the next slice begins. Beside the data, memory grows
    neither with Q·P nor with N. Relative error of an entry at most about 1e-8, whatever the offset of the data; equal
    rows give exactly 0.
    """
    check_shapes(x_QN, patterns_PN)
    x_QN, patterns_PN = x_QN.detach(), patterns_PN.detach()
    side = math.isqrt(CHUNK_ELEMENTS - 1) + 1
    centre_N = centre(patterns_PN)
    for query_slice in chunks(x_QN.shape[0], side):
        for pattern_slice in chunks(patterns_PN.shape[0], side):
            yield query_slice, pattern_slice, squared_distances(x_QN[query_slice], patterns_PN[pattern_slice], centre_N)


def nearest(x_QN: Tensor, patterns_PN: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance and index of the stored pattern nearest to each query.

    Args:
        x_QN: queries, (Q, N).
        patterns_PN: stored patterns, (P, N).

    Returns:
        min_p ‖x_q − ρ_p‖², (Q,) float64, computed from the difference; and the index of that pattern, (Q,).
    """
    return _nearest(x_QN, patterns_PN, leave_out_self=False)


def _nearest(x_QN: Tensor, patterns_PN: Tensor, leave_out_self: bool) -> tuple[Tensor, Tensor]:
    best_Q = torch.full((x_QN.shape[0],), torch.inf, dtype=torch.float64, device=x_QN.device)
    index_Q = torch.zeros(x_QN.shape[0], dtype=torch.long, device=x_QN.device)
    for query_slice, pattern_slice, block_QP in distance_blocks(x_QN, patterns_PN):
        # Queries and patterns are the same rows here, cut at the same places.
        if leave_out_self and query_slice == pattern_slice:
            block_QP.fill_diagonal_(torch.inf)
        least_Q, where_Q = block_QP.min(dim=1)
        # A NaN is kept once it is found: a distance that is not a number must not be hidden.
        better_Q = ~(least_Q >= best_Q[query_slice]) & ~best_Q[query_slice].isnan()
        best_Q[query_slice] = torch.where(better_Q, least_Q, best_Q[query_slice])
        index_Q[query_slice] = torch.where(better_Q, where_Q + pattern_slice.start, index_Q[query_slice])
    return _exact(x_QN, patterns_PN, index_Q), index_Q


def _exact(x_QN: Tensor, patterns_PN: Tensor, index_Q: Tensor) -> Tensor:
    pieces = [paired_squared_distance(x_QN[s].detach(), patterns_PN[index_Q[s]].detach()) for s in chunks(*x_QN.shape)]
    return torch.cat(pieces) if pieces else torch.zeros(0, dtype=torch.float64, device=x_QN.device)


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours within one set of points, each point itself left out and exact duplicates counted apart."""

    distance_U: Tensor
    """Euclidean distance of each distinct point to its nearest distinct neighbour, (U,) float64; all are positive."""
    copies_U: Tensor
    """How often each distinct point occurs, (U,)."""

    @property
    def points(self) -> int:
        """Number of points, duplicates included."""
        return int(self.copies_U.sum())

    @property
    def duplicates(self) -> int:
        """Number of points beyond the first of each group of exactly equal points."""
        return self.points - self.copies_U.numel()

    @property
    def radius_U(self) -> Tensor:
        """The sampled radius r̂: half the distance to the nearest neighbour."""
        return self.distance_U / 2

    def separated_share(self, radius: float) -> float:
        """Return the share of points whose ball of one common radius overlaps no other; duplicates always do."""
        alone_U = (self.copies_U == 1) & (self.distance_U >= 2 * radius)
        return int(alone_U.sum()) / self.points

    def separated_share_of_own_radius(self) -> float:
        """Return that share with r̂ of each point as its radius: by construction all but the exact duplicates."""
        return int((self.copies_U == 1).sum()) / self.points


def nearest_neighbours(points_PN: Tensor) -> Neighbours:
    """Find the exact nearest neighbours within one set of finite points, (P, N), P ≥ 1.

    Raises:
        ValueError: fewer than two distinct points, so that no neighbour exists.
    """
    check_shapes(points_PN, points_PN)
    distinct_UN, copies_U = torch.unique(points_PN.detach(), dim=0, return_counts=True)
    if distinct_UN.shape[0] < 2:
        raise ValueError(f"{points_PN.shape[0]} points hold one distinct value: no point has a neighbour")
    squared_U, _ = _nearest(distinct_UN, distinct_UN, leave_out_self=True)
    return Neighbours(squared_U.sqrt(), copies_U)
