"""Focus crop: what it promises of the saliency, measured on what is rendered (sheet, 5.6)."""

import numpy as np
import pytest

from lightning_rad.data.views.focus_crop import FocusCrop
from lightning_rad.data.views.params import only_geometry
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.kernels.render.units import UNIT_BITS
from lightning_rad.modalities.gaze import heat_map

B, SHAPE = 120, (96, 96)


def gaze(rows=B, size=(180, 180), side=48, seed=0, spread=0.03):
    """Maps of three to seven fixations somewhere in the middle part of a picture."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        n = int(rng.integers(3, 8))
        fixations = [(*rng.uniform(0.12, 0.88, 2), rng.uniform(0.1, 1)) for _ in range(n)]
        made.append(heat_map(fixations, size, side=side, spread=spread))
    return made


def drawn(crop, maps, size=(180, 180), seed=0):
    u = np.random.default_rng(seed).random((len(maps), crop.draws))
    sizes = np.tile(np.array(size), (len(maps), 1))
    affine, factors, exhausted, blank = crop.draw(u, sizes, maps, SHAPE)
    return only_geometry(SHAPE, sizes, affine, factors), exhausted, blank, u


def shares_shown(params, maps):
    """Share of each map's mass that the view shows: points of the map through the inverse map."""
    fine = 6
    found = []
    for row, map_SS in enumerate(maps):
        height, width = params.sizes[row]
        side = len(map_SS) * fine
        place = (np.arange(side) + 0.5) / side
        x, y = np.meshgrid(place * width, place * height)
        linear = params.affine[row, :, :2] * params.factors[row] / 2.0**UNIT_BITS
        constant = params.affine[row, :, 2] * params.factors[row] / 2.0**UNIT_BITS
        points = np.stack([x.ravel(), y.ravel()]) - 0.5 * params.factors[row]
        column, line = np.linalg.solve(linear, points - constant[:, None]) + 0.5
        seen = (column >= 0) & (column < SHAPE[1]) & (line >= 0) & (line < SHAPE[0])
        mass = np.kron(map_SS, np.ones((fine, fine))).ravel()
        found.append(mass[seen].sum() / mass.sum())
    return np.array(found)


def zooms(params):
    """Sides of the picture over sides of the window, from the maps alone."""
    step = np.linalg.norm(params.affine[:, :, 0], axis=1) * params.factors / 2.0**UNIT_BITS
    return params.sizes[:, 1] / (step * SHAPE[1])


@pytest.mark.parametrize("size", [(180, 180), (150, 260)])
@pytest.mark.parametrize(("rotation", "flip"), [(0.0, 0.0), (30.0, 0.5)])
def test_focus_a_a_crop_that_is_not_exhausted_keeps_nine_tenths_of_the_saliency(
    size, rotation, flip
):
    maps = gaze(size=size)
    crop = FocusCrop(rotation=rotation, flip=flip)
    params, exhausted, blank, _ = drawn(crop, maps, size)
    assert not blank.any()
    assert 0.05 < exhausted.mean() < 0.95
    shown = shares_shown(params, maps)
    assert shown[~exhausted].min() > 0.9 - 0.006
    assert shown[exhausted].min() < 0.88
    # and on pixels: the maps drawn as pictures, what the view of each holds of them
    pictures = []
    for map_SS in maps[:40]:
        rows = np.arange(size[0]) * len(map_SS) // size[0]
        columns = np.arange(size[1]) * len(map_SS) // size[1]
        pictures.append(np.rint(255 * (map_SS / map_SS.max())[rows][:, columns]).astype(np.uint8))
    some = only_geometry(SHAPE, params.sizes[:40], params.affine[:40], params.factors[:40])
    views = np.zeros((40, *SHAPE), np.uint8)
    for row, picture in enumerate(pictures):
        render_cpu(picture, some, row, views[row])
    scale = zooms(some) ** -2 * np.prod(size) / np.prod(SHAPE)
    held = views.sum((1, 2)) * scale / [p.sum() for p in pictures]
    assert held[~exhausted[:40]].min() > 0.9 - 0.02


def test_a_window_is_the_first_that_a_literal_redraw_accepts():
    maps = gaze(30, side=20)
    crop = FocusCrop(rotation=0.0, redraws=40)
    params, exhausted, _, u = drawn(crop, maps)
    found = zooms(params)
    for row, map_SS in enumerate(maps):
        zoom = 1.0 + u[row, 1]
        assert found[row] == pytest.approx(zoom, rel=1e-3)
        for number in range(40):
            left, top = (1 - 1 / zoom) * u[row, 4 + 2 * number : 6 + 2 * number]
            edges = np.arange(21) / 20
            across, down = (
                np.clip(np.minimum(edges[1:], at + 1 / zoom) - np.maximum(edges[:-1], at), 0, None)
                for at in (left, top)
            )
            kept = float(down @ map_SS @ across) * 400 / map_SS.sum()
            if kept >= 0.9:
                break
        assert exhausted[row] == (kept < 0.9)
        middle = params.affine[row] @ [(SHAPE[1] - 1) / 2, (SHAPE[0] - 1) / 2, 1] / 2.0**UNIT_BITS
        want = (np.array([left, top]) + 0.5 / zoom) * 180
        np.testing.assert_allclose((middle + 0.5) * params.factors[row], want, atol=0.1)


def test_focus_d_under_uniform_saliency_no_zoom_above_1_054_passes():
    """What remains is 1 / zoom^2, wherever the window is."""
    uniform = [np.full((32, 32), 0.5, np.float32)] * 400
    params, exhausted, _, _ = drawn(FocusCrop(rotation=0.0, redraws=20, zoom=(1.0, 1.2)), uniform)
    np.testing.assert_array_equal(exhausted, zooms(params) > 0.9**-0.5)
    assert exhausted.mean() == pytest.approx(1 - 0.0541 / 0.2, abs=0.07)


@pytest.mark.parametrize("blank", [None, np.zeros((16, 16)), np.full((16, 16), np.nan)])
def test_focus_e_a_blank_map_falls_back_to_a_random_crop(blank):
    crop = FocusCrop(rotation=0.0, zoom=(1.0, 1.1), fallback_zoom=(1.5, 2.0))
    params, exhausted, told, u = drawn(crop, [blank] * 50)
    assert told.all()
    assert not exhausted.any()
    np.testing.assert_allclose(zooms(params), 1.5 + 0.5 * u[:, 1], rtol=1e-3)
    middle = params.affine[:, :, :2] @ [47.5, 47.5] + params.affine[:, :, 2]
    assert np.ptp(middle / 2.0**UNIT_BITS, axis=0).min() > 30  # not always the same window


def test_a_blank_map_changes_no_other_row():
    maps = gaze(20)
    alone, *_ = drawn(FocusCrop(), maps)
    with_blank, _, blank, _ = drawn(FocusCrop(), [None, *maps[1:]])
    np.testing.assert_array_equal(with_blank.affine[1:], alone.affine[1:])
    np.testing.assert_array_equal(blank, [True] + [False] * 19)


def test_a_row_depends_on_its_own_numbers_alone():
    maps, crop = gaze(12), FocusCrop()
    u = np.random.default_rng(3).random((12, crop.draws))
    sizes = np.tile([180, 180], (12, 1))
    whole = crop.draw(u, sizes, maps, SHAPE)
    for row in (0, 7):
        one = crop.draw(u[[row]], sizes[[row]], [maps[row]], SHAPE)
        for a, b in zip(whole, one, strict=True):
            np.testing.assert_array_equal(a[[row]], b)


def test_the_window_does_not_depend_on_how_fine_or_how_large_the_map_is():
    fixations = np.random.default_rng(5).uniform(0.2, 0.8, (60, 4, 2))
    found = []
    for side, scale in ((32, 1.0), (128, 1.0), (128, 1e-7)):
        maps = [
            heat_map([(x, y, 1.0) for x, y in row], (180, 180), side=side, spread=0.03) * scale
            for row in fixations
        ]
        found.append(drawn(FocusCrop(rotation=20.0), maps)[:2])
    np.testing.assert_array_equal(found[1][0].affine, found[2][0].affine)
    same = (found[0][0].affine == found[1][0].affine).all((1, 2))
    assert same.mean() > 0.8
    assert (found[0][1] == found[1][1]).mean() > 0.95


def test_a_zoom_of_1_shows_the_whole_picture():
    params, exhausted, _, _ = drawn(FocusCrop(zoom=(1.0, 1.0), rotation=0.0), gaze(10))
    assert not exhausted.any()
    np.testing.assert_allclose(zooms(params), 1.0, rtol=1e-4)
    corner = params.affine[:, :, 2] / 2.0**UNIT_BITS * params.factors[:, None]
    assert np.ptp(corner, axis=0).max() == 0


def test_what_does_not_fire_is_the_first_window_of_the_same_zoom_and_is_not_exhausted():
    maps = gaze(40)
    params, exhausted, _, u = drawn(FocusCrop(probability=0.0, rotation=0.0), maps)
    assert not exhausted.any()
    np.testing.assert_allclose(zooms(params), 1 + u[:, 1], rtol=1e-3)
    corner = (params.affine[:, :, 2] / 2.0**UNIT_BITS + 0.5) * params.factors[:, None]
    step = 180 / (1 + u[:, 1:2]) / SHAPE[0]
    np.testing.assert_allclose(corner - step / 2, u[:, 4:6] * (180 - 96 * step), atol=0.1)


def test_an_exhausted_crop_takes_the_last_window_or_the_best():
    maps = gaze(60)
    settings = {"rotation": 0.0, "zoom": (1.8, 2.0), "redraws": 30}
    last, gone, _, _ = drawn(FocusCrop(**settings), maps)
    best, same, _, _ = drawn(FocusCrop(**settings, on_exhausted="best"), maps)
    np.testing.assert_array_equal(gone, same)
    assert gone.mean() > 0.3
    a, b = shares_shown(last, maps), shares_shown(best, maps)
    assert (b[gone] >= a[gone] - 1e-3).all()
    assert (b - a)[gone].mean() > 0.1


def test_all_gaze_at_one_point_is_kept():
    maps = [heat_map([(0.9, 0.1, 1.0)], (180, 180), side=48, spread=0.02)] * 40
    params, exhausted, _, _ = drawn(FocusCrop(rotation=5.0), maps)
    assert exhausted.mean() < 0.3
    assert shares_shown(params, maps)[~exhausted].min() > 0.89


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("probability", 1.2),
        ("zoom", (0.5, 2.0)),
        ("zoom", (2.0, 1.0)),
        ("keep", 1.2),
        ("redraws", 0),
        ("rotation", 181.0),
        ("flip", -0.1),
        ("fallback_zoom", (1.0, 11.0)),
        ("on_exhausted", "first"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"^crop\.{key}: "):
        FocusCrop(**{key: value})
