"""Focus cut-out: rectangles that cover little of what was looked at (sheet, 5.6)."""

import numpy as np
import pytest

from lightning_rad.data.views.focus_cutout import FocusCutout
from lightning_rad.modalities.gaze import heat_map

SHAPE = (112, 112)


def gaze(rows=200, side=32, seed=0):
    rng = np.random.default_rng(seed)
    return [
        heat_map(
            [(x, y, 1.0) for x, y in rng.uniform(0.1, 0.9, (6, 2))], SHAPE, side=side, spread=0.05
        )
        for _ in range(rows)
    ]


def drawn(cutout, maps, shape=SHAPE, seed=0):
    u = np.random.default_rng(seed).random((len(maps), cutout.draws))
    holes, exhausted = cutout.draw(u, maps, shape)
    assert holes.shape == (len(maps), 1, 4)
    return holes[:, 0], exhausted, u


def covered(hole, map_SS, shape=SHAPE):
    """Share of the saliency under a rectangle, counted in small squares."""
    fine = 7
    mass = np.kron(map_SS, np.ones((fine, fine)))
    place = (np.arange(len(mass)) + 0.5) / len(mass)
    top, left, bottom, right = hole
    rows = (place * shape[0] >= top) & (place * shape[0] < bottom)
    columns = (place * shape[1] >= left) & (place * shape[1] < right)
    return mass[rows][:, columns].sum() / mass.sum()


@pytest.mark.parametrize("mass", [0.03, 0.1, 0.4])
def test_focus_b_a_cut_out_covers_no_more_than_its_share_of_the_saliency(mass):
    maps = gaze()
    holes, exhausted, _ = drawn(FocusCutout(probability=1.0, mass=mass), maps)
    shares = np.array([covered(h, m) for h, m in zip(holes, maps, strict=True)])
    assert exhausted.mean() < 0.5
    assert shares[~exhausted].max() <= mass + 0.01
    assert (holes[:, 2:] > holes[:, :2]).all()
    unconstrained, _, _ = drawn(FocusCutout(probability=1.0, mass=1.0), maps)
    others = np.array([covered(h, m) for h, m in zip(unconstrained, maps, strict=True)])
    assert others.max() > mass + 0.1


def test_a_hole_is_the_first_that_a_literal_redraw_accepts():
    maps, cutout = gaze(60), FocusCutout(probability=1.0, redraws=30, mass=0.05)
    holes, exhausted, u = drawn(cutout, maps)
    least = round(112 * 48 / 224)
    for row, map_SS in enumerate(maps):
        for number in range(30):
            a, b, c, d = u[row, 1 + 4 * number : 5 + 4 * number]
            top, left = int(a * (113 - least)), int(b * (113 - least))
            bottom = top + least + int(c * (112 - top - least + 1))
            right = left + least + int(d * (112 - left - least + 1))
            rows, columns = (
                np.clip(
                    np.minimum(np.arange(1, 33) / 32, high / 112)
                    - np.maximum(np.arange(32) / 32, low / 112),
                    0,
                    None,
                )
                for low, high in ((top, bottom), (left, right))
            )
            share = float(rows @ map_SS @ columns) * 32 * 32 / map_SS.sum()
            if share <= 0.05:
                break
        assert holes[row].tolist() == [top, left, bottom, right]
        assert exhausted[row] == (share > 0.05)


def test_an_exhausted_cut_out_is_the_last_one_drawn():
    point = [np.full((16, 16), 1.0)] * 30  # every rectangle covers a share of its area
    few, gone, u = drawn(FocusCutout(probability=1.0, mass=0.01, redraws=5), point)
    assert gone.all()
    last, _, _ = drawn(FocusCutout(probability=1.0, mass=1.0, redraws=1), point, seed=9)
    cutout = FocusCutout(probability=1.0, mass=1.0, redraws=1)
    want, _ = cutout.draw(np.concatenate([u[:, :1], u[:, -4:]], 1), point, SHAPE)
    np.testing.assert_array_equal(few, want[:, 0])
    assert (few != last).any()


@pytest.mark.parametrize("shape", [SHAPE, (1, 1), (40, 90)])
def test_holes_lie_inside_the_view_with_sides_as_asked(shape):
    cutout = FocusCutout(probability=1.0, least=0.2, most=0.5, mass=1.0)
    holes, _, _ = drawn(cutout, gaze(), shape)
    assert (holes[:, :2] >= 0).all()
    assert (holes[:, 2:] <= shape).all()
    sides = holes[:, 2:] - holes[:, :2]
    assert (sides >= np.maximum(np.rint(0.2 * np.array(shape)), 1)).all()
    assert (sides <= np.maximum(np.rint(0.5 * np.array(shape)), 1)).all()


@pytest.mark.parametrize("blank", [None, np.zeros((8, 8)), np.full((8, 8), np.nan)])
def test_without_saliency_the_first_hole_is_taken_and_none_is_exhausted(blank):
    holes, exhausted, u = drawn(FocusCutout(probability=1.0), [blank] * 20)
    assert not exhausted.any()
    cutout = FocusCutout(probability=1.0, redraws=1, mass=1.0)
    want, _ = cutout.draw(u[:, :5], [None] * 20, SHAPE)
    np.testing.assert_array_equal(holes, want[:, 0])


def test_holes_come_as_often_as_asked_and_are_else_empty():
    holes, exhausted, u = drawn(FocusCutout(probability=0.3), gaze(400))
    shown = holes[:, 2] > holes[:, 0]
    np.testing.assert_array_equal(shown, u[:, 0] < 0.3)
    assert not holes[~shown].any()
    assert not exhausted[~shown].any()


def test_the_hole_does_not_depend_on_how_fine_or_how_large_the_map_is():
    rng = np.random.default_rng(4)
    fixations = rng.uniform(0.1, 0.9, (100, 5, 2))
    found = []
    for side, scale in ((32, 1.0), (128, 1.0), (128, 1e6)):
        maps = [
            heat_map([(x, y, 1.0) for x, y in row], SHAPE, side=side, spread=0.05) * scale
            for row in fixations
        ]
        found.append(drawn(FocusCutout(probability=1.0), maps)[0])
    np.testing.assert_array_equal(found[1], found[2])
    assert (found[0] == found[1]).all(1).mean() > 0.9


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("probability", 1.2),
        ("least", 0.0),
        ("most", 0.1),
        ("mass", 1.1),
        ("redraws", 0),
        ("fill", 256),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"^cutout\.{key}: "):
        FocusCutout(**{key: value})
