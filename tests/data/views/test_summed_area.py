"""Sums over rectangles against a literal overlap of cells; maps that turn with their picture."""

import numpy as np
import pytest

from lightning_rad.data.views.summed_area import mass_within, summed_area, turned, with_mass


def random_map(seed=0, side=7):
    return np.random.default_rng(seed).gamma(0.5, size=(side, side))


def overlap(map_SS, box):
    """Mass of a rectangle, cell by cell."""
    left, top, right, bottom = box
    side, total = len(map_SS), 0.0
    for row in range(side):
        for column in range(side):
            wide = min(right, (column + 1) / side) - max(left, column / side)
            high = min(bottom, (row + 1) / side) - max(top, row / side)
            if wide > 0 and high > 0:
                total += map_SS[row, column] * wide * high * side * side
    return total


def test_mass_is_the_overlap_with_each_cell_added_up():
    rng = np.random.default_rng(1)
    boxes = np.sort(rng.uniform(-0.2, 1.2, (60, 2, 2)), 1).reshape(60, 4)
    found = mass_within(summed_area(random_map()), boxes)
    np.testing.assert_allclose(found, [overlap(random_map(), b) for b in boxes], atol=1e-12)


def test_the_whole_map_is_its_sum_and_no_area_has_no_mass():
    boxes = np.array([[0.0, 0.0, 1.0, 1.0], [0.3, 0.2, 0.3, 0.9], [1.0, 1.0, 1.0, 1.0]])
    found = mass_within(summed_area(random_map()), boxes)
    np.testing.assert_allclose(found, [random_map().sum(), 0.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("size", [(100, 100), (100, 250), (300, 120)])
@pytest.mark.parametrize("degrees", [0.0, 17.0, -40.0, 90.0])
def test_a_blob_turns_about_the_centre_of_the_picture_in_its_pixels(size, degrees):
    side, sigma = 96, 0.05 * min(size)
    height, width = size
    centre = np.array([width, height]) / 2
    place = centre + np.array([0.2, -0.1]) * min(size)
    grid = (np.arange(side) + 0.5) / side
    squared = (grid[None] * width - place[0]) ** 2 + (grid[:, None] * height - place[1]) ** 2
    found = turned(np.exp(-squared / (2 * sigma**2)), size, degrees)
    angle = np.radians(degrees)
    off = place - centre  # the result shows at t what was at c + R (t - c)
    back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    there = centre + back @ off
    mass = found.sum()
    got = [found.sum(0) @ grid * width / mass, found.sum(1) @ grid * height / mass]
    np.testing.assert_allclose(got, there, atol=0.005 * max(size))
    assert mass == pytest.approx(np.exp(-squared / (2 * sigma**2)).sum(), rel=0.01)


def test_mass_that_a_turn_moves_out_of_the_picture_is_gone():
    corner = np.zeros((32, 32))
    corner[:3, :3] = 1.0
    assert turned(corner, (100, 100), 45.0).sum() < 1e-9
    assert turned(corner, (100, 100), 90.0).sum() == pytest.approx(9.0, rel=0.01)


@pytest.mark.parametrize(
    "blank",
    [
        None,
        np.zeros((8, 8)),
        np.full((8, 8), np.nan),
        np.full((8, 8), np.inf),
        np.full((8, 8), -1.0),
    ],
)
def test_a_map_nobody_looked_at_is_none(blank):
    assert with_mass(blank) is None
    kept = random_map()
    assert with_mass(kept) is kept
