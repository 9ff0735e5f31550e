"""Distances that the usual expansion loses, and nearest neighbours with duplicates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amscale.hopfield import neighbours
from amscale.hopfield.energy import energy
from amscale.hopfield.neighbours import distance_blocks, nearest, nearest_neighbours


def matrix(x_QN, patterns_PN):
    found = torch.full((len(x_QN), len(patterns_PN)), torch.nan, dtype=torch.float64)
    for query_slice, pattern_slice, block in distance_blocks(x_QN, patterns_PN):
        found[query_slice, pattern_slice] = block
    return found


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    exponents=st.tuples(st.floats(-8, 0), st.floats(0, 6)),
    width=st.sampled_from([1, 2, 16, 300]),
    elements=st.sampled_from([40, 2**23]),
)
def test_every_distance_keeps_its_digits(seed, exponents, width, elements):
    """Tight clusters far from the origin and from each other, where ‖x‖² + ‖ρ‖² − 2xᵀρ leaves nothing."""
    close, far = (10**exponent for exponent in exponents)
    generator = torch.Generator().manual_seed(seed)
    centres = far * torch.randn(3, 1, width, generator=generator, dtype=torch.float64) + far
    points = (centres + close * torch.randn(3, 5, width, generator=generator, dtype=torch.float64)).flatten(0, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "CHUNK_ELEMENTS", elements)
        found = matrix(points[:7], points)
    expected = (points[:7, None] - points).square().sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
    assert (found.diagonal()[:7] == 0).all()


def test_float32_neighbours_one_unit_in_the_last_place_apart():
    far = torch.full((1, 64), 1000.0)
    near = far.clone()
    near[0, 0] = torch.nextafter(near[0, 0], torch.tensor(torch.inf))
    others = 1000 + torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    points = torch.cat([others, far, near])
    assert float(points.square().sum(1)[-1] + points.square().sum(1)[-2] - 2 * points[-1] @ points[-2]) != 2.0**-28
    squared, index = nearest(near, torch.cat([others, far]))
    assert (float(squared), int(index)) == (2.0**-28, 50)
    assert float(nearest_neighbours(points).distance_U.min()) == 2.0**-14


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=2, max_size=40),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
    elements=st.sampled_from([9, 50, 2**23]),
)
def test_nearest_neighbours_against_brute_force(points, dtype, elements):
    tensor = torch.tensor(points, dtype=dtype)
    distinct = sorted({tuple(point) for point in points})
    if len(distinct) < 2:
        with pytest.raises(ValueError, match="one distinct value"):
            nearest_neighbours(tensor)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "CHUNK_ELEMENTS", elements)
        found = nearest_neighbours(tensor)
    expected = [min((a - c) ** 2 + (b - d) ** 2 for c, d in distinct if (a, b) != (c, d)) ** 0.5 for a, b in distinct]
    assert sorted(found.distance_U.tolist()) == pytest.approx(sorted(expected))
    assert found.points == len(points)
    assert found.duplicates == len(points) - len(distinct)


def test_separated_shares_count_every_point():
    points = torch.tensor([[0.0], [0.0], [1.0], [3.0], [10.0]])
    found = nearest_neighbours(points)
    assert found.radius_U.tolist() == [0.5, 0.5, 1.0, 3.5]
    assert found.separated_share_of_own_radius() == pytest.approx(3 / 5)
    assert found.separated_share(0.5) == pytest.approx(3 / 5)
    assert found.separated_share(0.51) == pytest.approx(2 / 5)
    assert found.separated_share(4.0) == 0


def test_zero_of_either_sign_is_one_value():
    with pytest.raises(ValueError, match="one distinct value"):
        nearest_neighbours(torch.tensor([[0.0, 1.0], [-0.0, 1.0]]))


def test_an_offset_costs_no_repairs(monkeypatch):
    """Centred, the expansion resolves every pair of a distant cluster but the point with itself."""
    repaired, repair = [], neighbours._repair
    monkeypatch.setattr(neighbours, "_repair", lambda d, lost, x, y: (repaired.append(lost), repair(d, lost, x, y)))
    points = 1e6 + torch.randn(60, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix(points, points)
    assert torch.equal(repaired[0], torch.eye(60, dtype=torch.bool))


@pytest.mark.parametrize(("count", "width"), [(2000, 2), (30, 300), (5, 5000)])
def test_no_block_outgrows_the_bound(monkeypatch, count, width):
    monkeypatch.setattr(neighbours, "CHUNK_ELEMENTS", 6000)
    points = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    pairs = 0
    for query_slice, pattern_slice, block in distance_blocks(points, points):
        pairs += block.numel()
        assert block.numel() <= 6000
        assert block.shape == (query_slice.stop - query_slice.start, pattern_slice.stop - pattern_slice.start)
    assert pairs == count**2


def test_a_million_coordinates():
    wide = torch.randn(4, 10**6, generator=torch.Generator().manual_seed(0))
    assert float(nearest_neighbours(wide).distance_U.mean()) == pytest.approx((2 * 10**6) ** 0.5, rel=0.01)
    assert float(energy(wide[:1], wide)) == 0


@pytest.mark.parametrize("place", [0, 9, 19])
def test_a_pattern_that_is_not_a_number_is_not_hidden(monkeypatch, place):
    monkeypatch.setattr(neighbours, "CHUNK_ELEMENTS", 16)
    patterns = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    patterns[place] = torch.nan
    assert torch.isnan(nearest(torch.zeros(3, 2), patterns)[0]).all()
    assert torch.isnan(energy(torch.zeros(3, 2), patterns)).all()


def _clusters(width, generator):
    centres = torch.randn(6, 1, width, generator=generator)
    return (centres + 1e-4 * torch.randn(6, 50, width, generator=generator)).flatten(0, 1)


POINTS = {
    "scattered": lambda g: torch.randn(300, 40, generator=g),
    "far from the origin": lambda g: 1e3 + torch.randn(300, 40, generator=g),
    "ties": lambda g: torch.randint(-2, 3, (300, 4), generator=g).float(),
    "all as far": lambda g: torch.eye(200),
    "tight clusters": lambda g: _clusters(40, g),
    "beyond float32": lambda g: 1e100 * torch.randn(300, 5, generator=g, dtype=torch.float64),
    "float32 underflows": lambda g: 1e-30 * torch.randn(300, 5, generator=g),
}


@pytest.mark.parametrize("elements", [900, 2**23])
@pytest.mark.parametrize("precision", ["highest", "medium"])
@pytest.mark.parametrize("kind", POINTS)
def test_screening_in_float32_loses_no_neighbour(monkeypatch, kind, precision, elements):
    monkeypatch.setattr(neighbours, "CHUNK_ELEMENTS", elements)
    points = POINTS[kind](torch.Generator().manual_seed(1))
    distinct = torch.unique(points, dim=0)
    every = torch.stack([(row.double() - distinct.double()).square().sum(1) for row in distinct])
    others = every.clone().fill_diagonal_(torch.inf).amin(1)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert torch.equal(nearest_neighbours(points).distance_U, others.sqrt())
        squared, index = nearest(distinct[::3] * 1.01, distinct)
    finally:
        torch.set_float32_matmul_precision(before)
    expected = torch.stack([(row.double() - distinct.double()).square().sum(1) for row in distinct[::3] * 1.01])
    assert torch.equal(squared, expected.amin(1))
    assert torch.equal(expected.gather(1, index[:, None])[:, 0], squared)


def test_what_float32_cannot_tell_apart_is_ranked_by_float64(monkeypatch):
    ranked, rank = [], neighbours._Least.rank
    monkeypatch.setattr(neighbours._Least, "rank", lambda *args: ranked.append(rank(*args)) or ranked[-1])
    generator = torch.Generator().manual_seed(0)
    nearest_neighbours(torch.randn(300, 40, generator=generator))
    assert ranked == [True]
    nearest_neighbours(_clusters(40, generator))
    assert ranked == [True, False], "too many pairs to rank: the block is computed in float64"
