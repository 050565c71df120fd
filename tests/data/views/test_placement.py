"""Boxes, points and maps land where both renderers put the pixels."""

import numpy as np
import pytest

from lightning_rad.data.views.geometry import Crop, affine_map
from lightning_rad.data.views.mirror import mirrored
from lightning_rad.data.views.params import only_geometry
from lightning_rad.data.views.placement import boxes_seen, map_seen, seen_at
from lightning_rad.data.views.random_view import RandomView
from tests.data.views.rendering import on_cpu, on_device, placed

CASES = {
    "whole": {"shape": (48, 60)},
    "crop": {"shape": (64, 64), "centre": (130, 110), "extent": (160, 150)},
    "crop and turn": {"shape": (90, 80), "centre": (130, 110), "extent": (150, 170), "degrees": 23},
    "crop, turn and mirror": {
        "shape": (64, 64),
        "centre": (120, 115),
        "extent": (160, 150),
        "degrees": -31.0,
        "mirrored": True,
    },
    "factor 3, turn and mirror": {
        "shape": (61, 70),
        "centre": (121, 117),
        "extent": (221, 200),
        "degrees": 12.0,
        "mirrored": True,
    },
    "magnified": {"shape": (224, 200), "centre": (120, 110), "extent": (90, 80), "degrees": 8.0},
}
SIZE = (227, 251)
BOX = (104.0, 88.0, 141.0, 133.0)


def drawn(name):
    return placed([np.zeros(SIZE, np.uint8)], **CASES[name])


def white(box, size=SIZE):
    """A white rectangle on black."""
    picture = np.zeros(size, np.uint8)
    left, top, right, bottom = (int(side) for side in box)
    picture[top:bottom, left:right] = 255
    return picture


def hull(view):
    """Of what is more than half white, to fractions of a pixel at upright edges."""
    rows, columns = np.flatnonzero(view.max(1) > 127), np.flatnonzero(view.max(0) > 127)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def iou(a, b):
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    areas = [np.prod(box[2:] - box[:2]) for box in (a, b)]
    return sides.prod() / (sum(areas) - sides.prod())


@pytest.mark.parametrize("also_mirrored", [False, True])
@pytest.mark.parametrize("render", [on_cpu, on_device])
@pytest.mark.parametrize("name", CASES)
def test_a_box_lands_on_the_white_rectangle_that_was_drawn_in_it(name, render, also_mirrored):
    params = mirrored(drawn(name), np.array([also_mirrored]))
    found = boxes_seen(np.array([BOX]), params, 0)[0]
    assert iou(found, hull(render([white(BOX)], params)[0])) > 0.9


def test_these_cases_cover_every_kind_of_map():
    factors = {name: int(drawn(name).factors[0]) for name in CASES}
    assert factors["factor 3, turn and mirror"] == 3
    assert {1, 2, 3} <= {*factors.values(), int(placed([white(BOX)], (110, 120)).factors[0])}


@pytest.mark.parametrize("render", [on_cpu, on_device])
@pytest.mark.parametrize("name", CASES)
def test_dots_are_where_they_are_said_to_be(name, render):
    params = drawn(name)
    points = np.array([(110.5, 95.5), (137.5, 101.5), (118.5, 129.5)])
    for point, place in zip(points, seen_at(points, params, 0), strict=True):
        column, row = (int(v) for v in point)
        view = render([white((column - 1, row - 1, column + 2, row + 2))], params)[0].astype(float)
        ys, xs = np.mgrid[: view.shape[0], : view.shape[1]] + 0.5
        centroid = np.array([(view * xs).sum(), (view * ys).sum()]) / view.sum()
        # centroids of three pixels cut by a bilinear grid are good to a fraction of a view pixel
        assert np.abs(centroid - place).max() < 0.25


def test_the_constant_that_only_rounds_is_taken_back():
    """A view of the picture's own size is the picture: every place is its own, exactly."""
    params = placed([np.zeros((40, 50), np.uint8)], (40, 50))
    points = np.random.default_rng(0).uniform(0, 40, (20, 2))
    np.testing.assert_allclose(seen_at(points, params, 0), points, rtol=0, atol=1e-9)
    there = seen_at(points, mirrored(params, np.ones(1, np.bool_)), 0)
    np.testing.assert_allclose(there, [50, 0] + [-1, 1] * points, rtol=0, atol=1e-9)


def test_each_row_has_its_own_map():
    sizes = np.array([(100, 120), (300, 200), (64, 64)])
    names = np.arange(3)
    recipe = RandomView(32, crop=Crop(rotation=20.0, flip=0.5))
    params = recipe.draw(sizes, seed=1, epochs=names, units=names, view=0)
    points = np.array([(20.0, 30.0)])
    for row in range(3):
        alone = recipe.draw(sizes[[row]], seed=1, epochs=names[[row]], units=names[[row]], view=0)
        np.testing.assert_array_equal(seen_at(points, params, row), seen_at(points, alone, 0))


def upright(centre, extent, shape=(100, 100)):
    return placed([np.zeros((200, 200), np.uint8)], shape, centre=centre, extent=extent)


def test_a_box_half_out_is_clipped_and_one_that_is_mostly_out_is_dropped():
    params = upright((100, 100), (100, 100))  # shows 50 to 150, pixel by pixel
    boxes = np.array(
        [
            (60, 70, 90, 100),  # inside
            (30, 60, 70, 80),  # half of it
            (29, 60, 70, 80),  # less than half
            (140, 140, 155, 155),  # two thirds each way: less than half
            (140, 140, 153, 153),  # ten thirteenths each way: more
            (0, 0, 40, 40),  # outside
            (160, 60, 190, 80),
        ],
        float,
    )
    found = boxes_seen(boxes, params, 0)
    want = [(10, 20, 40, 50), (0, 10, 20, 30), None, None, (90, 90, 100, 100), None, None]
    for box, right in zip(found, want, strict=True):
        if right is None:
            assert np.isnan(box).all()
        else:
            np.testing.assert_allclose(box, right, atol=1e-3)


def test_half_is_of_the_turned_box_not_of_its_hull():
    """A long box along the diagonal of a view turned by 45 degrees: its hull is mostly corners."""
    params = placed([np.zeros((400, 400), np.uint8)], (100, 100), extent=(100, 100), degrees=45.0)
    long = np.array([(150.0, 195.0, 250.0, 205.0)])  # from corner to corner, 100 of 141 pixels
    assert np.isfinite(boxes_seen(long, params, 0)).all()
    longer = np.array([(50.0, 195.0, 350.0, 205.0)])  # its hull covers the view; a third is seen
    assert np.isnan(boxes_seen(longer, params, 0)).all()


def test_boxes_of_no_area_and_of_no_number_are_dropped():
    boxes = np.array(
        [
            (60, 60, 60, 80),
            (60, 60, 80, 60),
            (80, 80, 60, 60),
            (np.nan, 60, 80, 80),
            (60, 60, 80, np.nan),
            (np.nan,) * 4,
            (300, 300, 400, 400),
        ]
    )
    assert np.isnan(boxes_seen(boxes, upright((100, 100), (100, 100)), 0)).all()
    assert boxes_seen(np.zeros((0, 4)), upright((100, 100), (100, 100)), 0).shape == (0, 4)


def test_a_huge_box_is_the_picture():
    whole = upright((100, 100), (200, 200))
    boxes = np.array([(-1e30, -1e30, 1e30, 1e30), (-np.inf, 0, np.inf, 200)])
    np.testing.assert_allclose(boxes_seen(boxes, whole, 0), [(0, 0, 100, 100)] * 2, atol=1e-3)
    assert np.isnan(boxes_seen(boxes, upright((100, 100), (100, 100)), 0)).all()  # a quarter


# --- maps


def test_a_map_over_the_whole_picture_is_itself():
    """To a 32nd of a cell, which is how OpenCV interpolates."""
    map_SS = np.random.default_rng(0).random((32, 32))
    params = placed([np.zeros((70, 90), np.uint8)], (64, 64))
    np.testing.assert_allclose(map_seen(map_SS, params, 0, 32), map_SS, atol=0.04)
    other = map_seen(map_SS, mirrored(params, np.ones(1, np.bool_)), 0, 32)
    np.testing.assert_allclose(other, map_SS[:, ::-1], atol=0.04)


@pytest.mark.parametrize("side", [24, 64, 100])
@pytest.mark.parametrize("name", CASES)
def test_a_dot_of_the_map_lies_under_the_dot_of_the_picture(name, side):
    params = drawn(name)
    height, width = params.shape
    for cell in ((41, 43), (46, 50)):
        map_SS = np.zeros((96, 96), np.float32)
        map_SS[cell] = 1.0
        soft = map_SS.copy()
        soft[cell[0] - 1 : cell[0] + 2, cell[1] - 1 : cell[1] + 2] = 0.5
        soft[cell] = 1.0
        # a cell is narrower than one of the view's where the view shows all: several draws of it
        seen = map_seen(np.kron(soft, np.ones((4, 4), np.float32)), params, 0, side * 8)
        ys, xs = (np.mgrid[: side * 8, : side * 8] + 0.5) / (side * 8)
        centroid = np.array([(seen * xs).sum() * width, (seen * ys).sum() * height]) / seen.sum()
        point = np.array([[(cell[1] + 0.5) / 96 * SIZE[1], (cell[0] + 0.5) / 96 * SIZE[0]]])
        assert np.abs(seen_at(point, params, 0)[0] - centroid).max() < 0.3


def test_beyond_the_picture_the_map_is_0_and_at_its_border_it_is_whole():
    flat = np.ones((16, 16))
    params = placed([np.zeros((100, 100), np.uint8)], (80, 80), extent=(200, 200))
    seen = map_seen(flat, params, 0, 40)
    want = np.zeros((40, 40))
    want[10:30, 10:30] = 1
    np.testing.assert_allclose(seen, want, atol=1e-6)


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_the_sum_tells_what_share_is_shown(degrees):
    rng = np.random.default_rng(2)
    map_SS = np.kron(rng.random((8, 8)), np.ones((8, 8)))
    size = np.array([(150, 240)])
    affine, factors = affine_map(
        np.array([[130.0, 70.0]]),
        np.array([[120.0, 75.0]]),
        degrees=np.array([degrees]),
        mirrored=np.array([True]),
        shape=(64, 64),
    )
    params = only_geometry((64, 64), size, affine, factors)
    seen = map_seen(map_SS, params, 0, 64)
    share = seen.sum() / map_SS.sum() * (120 * 75) / (240 * 150)
    place = (np.arange(640) + 0.5) / 640
    x, y = np.meshgrid(place * 240, place * 150)
    where = seen_at(np.stack([x.ravel(), y.ravel()], 1), params, 0)
    inside = ((where >= 0) & (where < 64)).all(1)
    fine = np.kron(map_SS, np.ones((10, 10))).ravel()
    assert share == pytest.approx(fine[inside].sum() / fine.sum(), abs=0.01)
