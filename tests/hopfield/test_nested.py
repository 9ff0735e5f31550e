"""Nested nearest neighbours against the plain search, and dimensions that are known."""

import math

import numpy as np
import pytest
import torch

from amscale.hopfield import nested
from amscale.hopfield.neighbours import nearest_neighbours
from amscale.hopfield.nested import intrinsic_dimension, nested_neighbours


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 30 points, so that a few hundred points cross many of their borders."""
    monkeypatch.setattr(nested, "CHUNK_ELEMENTS", 900)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_every_size_gives_what_a_separate_search_gives(offset):
    points = torch.randn(203, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + offset
    points[50], points[150], points[199] = points[3], points[3], points[198]
    for found in nested_neighbours(points, [2, 29, 30, 31, 60, 155, 203]):
        alone, neighbours = nearest_neighbours(points[: found.size]), found.neighbours
        torch.testing.assert_close(neighbours.distance_U.sort().values, alone.distance_U.sort().values)
        assert torch.equal(neighbours.copies_U.sort().values, alone.copies_U.sort().values)
        assert neighbours.duplicates == alone.duplicates
        assert neighbours.separated_share(0.5) == alone.separated_share(0.5)
        apart = torch.cdist(points[: found.size], points[: found.size], compute_mode="donot_use_mm_for_euclid_dist")
        apart[apart == 0] = torch.inf
        torch.testing.assert_close(found.distance_S, apart.amin(1))


def test_duplicates_only_have_no_neighbour():
    points = torch.ones(40, 3)
    points[35] = 2
    first, last = nested_neighbours(points, [35, 40])
    with pytest.raises(ValueError, match="one distinct value"):
        _ = first.neighbours
    assert last.neighbours.duplicates == 38
    assert last.neighbours.distance_U.tolist() == [pytest.approx(math.sqrt(3))] * 2


@pytest.mark.parametrize(
    ("sizes", "bad"), [([], False), ([1, 5], False), ([5, 11], False), ([5, 4], False), ([4], True)]
)
def test_bad_sizes_and_points_raise(sizes, bad):
    points = torch.randn(10, 2)
    if bad:
        points[9, 0] = torch.nan
    with pytest.raises(ValueError, match=r"must increase|not finite"):
        nested_neighbours(points, sizes)


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_the_dimension_of_a_cube_in_a_wider_space(dimension):
    """Uniform points of a cube, turned into 20 dimensions: the shrinking gives the cube's dimension."""
    generator = torch.Generator().manual_seed(dimension)
    cube = torch.rand(4096, dimension, dtype=torch.float64, generator=generator)
    axes = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64, generator=generator))[0]
    sizes = [256, 512, 1024, 2048, 4096]
    found = nested_neighbours(cube @ axes[:dimension], sizes)
    means = [float(one.neighbours.distance_U.mean()) for one in found]
    implied = intrinsic_dimension(sizes, means)
    assert implied.dimension == pytest.approx(dimension, rel=0.12)
    assert implied.slope == pytest.approx(-1 / implied.dimension)


def test_the_dimension_of_an_exact_law_and_of_distances_that_do_not_shrink():
    sizes = np.array([10, 100, 1000])
    assert intrinsic_dimension(sizes, 7 * sizes ** (-1 / 12)).dimension == pytest.approx(12)
    with pytest.raises(ValueError, match="do not shrink"):
        intrinsic_dimension(sizes, [1, 1, 1.1])
    with pytest.raises(ValueError, match="two or more sizes"):
        intrinsic_dimension([5], [1.0])
