"""Accurate squared distances in bounded memory, and nearest neighbours with exact duplicates counted apart.

‖x − ρ‖² = ‖x‖² + ‖ρ‖² − 2xᵀρ costs one matrix product, but loses every digit of a distance that is small beside the
norms. Here the data are centred, the product is taken in float64, and each pair whose distance the expansion cannot
resolve is computed again from its difference.

Where only the nearest is asked for, float32 products choose the few patterns that may be it, by a bound on their error,
and differences in float64 rank these: half the arithmetic, and the same result.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Elements of the largest temporary: 2^23 float64 numbers are 64 MiB.
CHUNK_ELEMENTS = 2**23
# One of so many parts of it, for what goes through the data once: that much stays in a processor's cache.
_CACHED_PARTS = 64
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


def chunks(length: int, width: int, parts: int = 1) -> Iterator[slice]:
    """Yield slices of `length` such that a slice times `width` stays within a part of the bounded temporary."""
    step = max(1, CHUNK_ELEMENTS // (parts * max(1, width)))
    for start in range(0, length, step):
        yield slice(start, min(length, start + step))


def centre(patterns_PN: Tensor) -> Tensor:
    """Return the mean of the patterns, (N,) float64, summed in bounded memory."""
    rows, width = patterns_PN.shape
    total_N = torch.zeros(width, dtype=torch.float64, device=patterns_PN.device)
    for rows_slice in chunks(rows, width, _CACHED_PARTS):
        total_N += patterns_PN[rows_slice].to(torch.float64).sum(0)
    return total_N / rows


def squared_norms(patterns_PN: Tensor) -> Tensor:
    """Return ‖ρ_i‖², (P,) float64."""
    rows, width = patterns_PN.shape
    return torch.cat([patterns_PN[s].to(torch.float64).square().sum(1) for s in chunks(rows, width, _CACHED_PARTS)])


def paired_squared_distance(x_QN: Tensor, y_QN: Tensor) -> Tensor:
    """Return ‖x_i − y_i‖² of paired rows from their difference, (Q,) float64. Both (Q, N)."""
    pieces = [
        (x_QN[s].to(torch.float64) - y_QN[s].to(torch.float64)).square().sum(1)
        for s in chunks(len(x_QN), x_QN.shape[1], _CACHED_PARTS)
    ]
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
    """Return exact distance and index of the nearest pattern; queries that leave out themselves are the patterns."""
    check_shapes(x_QN, patterns_PN)
    x_QN, patterns_PN = x_QN.detach(), patterns_PN.detach()
    side = math.isqrt(CHUNK_ELEMENTS - 1) + 1
    centre_N = centre(patterns_PN)
    # A NaN in either makes the scale one.
    scale = sum(_scale(points, centre_N) for points in ([patterns_PN] if leave_out_self else [x_QN, patterns_PN]))
    screened_P = _screened(patterns_PN, centre_N, scale)
    screened_Q = screened_P if leave_out_self else _screened(x_QN, centre_N, scale)
    least = _Least(x_QN, patterns_PN)
    for query_slice in chunks(x_QN.shape[0], side):
        for pattern_slice in chunks(patterns_PN.shape[0], side):
            if leave_out_self and pattern_slice.start < query_slice.start:
                continue  # its pairs were seen in the block of the other order
            diagonal = leave_out_self and query_slice == pattern_slice
            both_ways = leave_out_self and not diagonal
            if screened_Q is not None and screened_P is not None:
                block_QP = screened_Q[query_slice].distances(screened_P[pattern_slice])
                if diagonal:
                    block_QP.fill_diagonal_(torch.inf)
                bound_Q = screened_Q[query_slice].bound(screened_P[pattern_slice])
                bound_P = screened_P[pattern_slice].bound(screened_Q[query_slice])
                if least.rank(block_QP, 0, bound_Q, query_slice, pattern_slice) and (
                    not both_ways or least.rank(block_QP, 1, bound_P, pattern_slice, query_slice)
                ):
                    continue
            block_QP = squared_distances(x_QN[query_slice], patterns_PN[pattern_slice], centre_N)
            if diagonal:
                block_QP.fill_diagonal_(torch.inf)
            least.take(*block_QP.min(dim=1), query_slice, pattern_slice)
            if both_ways:
                least.take(*block_QP.min(dim=0), pattern_slice, query_slice)
    every_Q = torch.arange(len(x_QN), device=x_QN.device)
    return _chosen_distances(x_QN, every_Q, patterns_PN, least.index_Q), least.index_Q


class _Least:
    """The nearest pattern of each query among the blocks seen so far."""

    def __init__(self, x_QN: Tensor, patterns_PN: Tensor) -> None:
        self._x_QN, self._patterns_PN = x_QN, patterns_PN
        self._best_Q = torch.full((x_QN.shape[0],), torch.inf, dtype=torch.float64, device=x_QN.device)
        self._screened_Q = self._best_Q.to(torch.float32)
        """Least distance of a screened block, scaled."""
        self.index_Q = torch.zeros(x_QN.shape[0], dtype=torch.long, device=x_QN.device)

    def rank(self, block: Tensor, axis: int, bound_Q: Tensor, queries: slice, patterns: slice) -> bool:
        """Rank by exact distances what a screened block leaves open; return whether that was little enough to do.

        A pattern may be the nearest if its screened distance is at most the least one by twice the bound of the error.

        Args:
            block: screened distances.
            axis: where its queries are; the patterns are on the other.
            bound_Q: of the error.
            queries, patterns: where the block is.
        """
        screened_Q = torch.minimum(self._screened_Q[queries], nearest_Q := block.amin(dim=1 - axis))
        limit_Q = screened_Q + 2 * bound_Q
        row_R = (nearest_Q <= limit_Q).nonzero()[:, 0]
        limits = limit_Q[row_R, None] if axis == 0 else limit_Q[row_R]
        open_S2 = (block.index_select(axis, row_R) <= limits).nonzero()
        if _MOST_RANKED * len(open_S2) > max(block.numel(), 4 * _MOST_RANKED * len(limit_Q)):
            return False
        row_S, column_S = row_R[open_S2[:, axis]], open_S2[:, 1 - axis]
        self._screened_Q[queries] = screened_Q
        distance_S = _chosen_distances(self._x_QN[queries], row_S, self._patterns_PN[patterns], column_S)
        least_Q = self._best_Q.new_full((len(limit_Q),), torch.inf).scatter_reduce_(0, row_S, distance_S, "amin")
        first_S = distance_S == least_Q[row_S]
        where_Q = self.index_Q.new_full((len(limit_Q),), block.shape[1 - axis]).scatter_reduce_(
            0, row_S[first_S], column_S[first_S], "amin"
        )
        self.take(least_Q, where_Q, queries, patterns)
        return True

    def take(self, least_Q: Tensor, where_Q: Tensor, queries: slice, patterns: slice) -> None:
        """Take the least distance of each query in a block, and its column, where it is less than the present one."""
        best_Q = self._best_Q[queries]
        # A NaN is kept once it is found: a distance that is not a number must not be hidden.
        better_Q = ~(least_Q >= best_Q) & ~best_Q.isnan()
        self._best_Q[queries] = torch.where(better_Q, least_Q, best_Q)
        self.index_Q[queries] = torch.where(better_Q, where_Q + patterns.start, self.index_Q[queries])


_MOST_RANKED = 64
"""A block is computed in float64 where more than one in so many of its pairs would have to be ranked."""


@dataclass(frozen=True)
class _Screened:
    """Points in float32, centred and scaled, for distances with a known bound on their error."""

    points_PN: Tensor
    norms_P: Tensor

    def __getitem__(self, rows: slice) -> "_Screened":
        return _Screened(self.points_PN[rows], self.norms_P[rows])

    def distances(self, others: "_Screened") -> Tensor:
        """Return squared distances (P, O) to other points, scaled, float32."""
        with torch.autocast(self.points_PN.device.type, enabled=False):
            found_PO = torch.addmm(others.norms_P, self.points_PN, others.points_PN.T, alpha=-2.0)
        return found_PO.add_(self.norms_P[:, None])

    def bound(self, others: "_Screened") -> Tensor:
        """Return what a distance to any of the others is wrong by at most, (P,).

        A sum of n products in any order is wrong by n roundings of the sum of their sizes (Higham 2002, equation 3.5),
        here at most ‖x‖² + ‖ρ‖²; coordinates and norms are rounded too. What underflows is below the last term.
        """
        width = self.points_PN.shape[1]
        size_P = self.norms_P + others.norms_P.max()
        return (width + 16) * torch.finfo(torch.float32).eps * size_P + width * 1e-36


def _screened(points_PN: Tensor, centre_N: Tensor, scale: float) -> _Screened | None:
    """Return points for screening; None where float32 does not hold them, or its products are rounded to less."""
    if not (math.isfinite(scale) and scale > 0 and _whole_float32()):
        return None
    scaled_PN = torch.empty(points_PN.shape, dtype=torch.float32, device=points_PN.device)
    norms_P = scaled_PN.new_empty(len(points_PN))
    for s in chunks(len(points_PN), points_PN.shape[1], _CACHED_PARTS):
        centred_PN = (points_PN[s].to(torch.float64) - centre_N) / scale
        scaled_PN[s], norms_P[s] = centred_PN, centred_PN.square().sum(1)
    return _Screened(scaled_PN, norms_P)


def _scale(points_PN: Tensor, centre_N: Tensor) -> float:
    """Return the largest coordinate from the centre; 0 without a point."""
    if not len(points_PN):
        return 0.0
    ends_2N = torch.stack([points_PN.amin(dim=0), points_PN.amax(dim=0)]).to(torch.float64)
    return float((ends_2N - centre_N).abs().max())


def _whole_float32() -> bool:
    """Return whether products of float32 matrices keep its digits: neither TF32 nor bf16 is allowed for them."""
    on_cpu: Any = torch.backends.mkldnn
    backends = torch.backends, torch.backends.cuda.matmul, on_cpu.matmul
    return all(backend.fp32_precision in ("none", "ieee") for backend in backends)


def _chosen_distances(x_QN: Tensor, row_S: Tensor, patterns_PN: Tensor, column_S: Tensor) -> Tensor:
    """Return ‖x_i − ρ_j‖² of chosen pairs of rows from their difference, (S,) float64."""
    pieces = [
        paired_squared_distance(x_QN[row_S[s]], patterns_PN[column_S[s]])
        for s in chunks(len(row_S), x_QN.shape[1], _CACHED_PARTS)
    ]
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
