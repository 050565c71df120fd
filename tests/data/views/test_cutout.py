from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lightning_rad.data.views.cutout import Cutout
from tests.data.views.rendering import on_cpu, placed

SHAPE = (200, 300)


def drawn(cutout, shape=SHAPE, n=3000):
    return cutout.draw(np.random.default_rng(0).random((n, cutout.draws)), shape)


def test_a_hole_is_painted_where_it_was_drawn_and_nowhere_else():
    plane = [np.full((20, 30), 200, np.uint8)]
    holes = np.array([[[2, 3, 5, 9], [0, 0, 0, 0], [18, 28, 20, 30]]], np.int32)
    got = on_cpu(plane, replace(placed(plane, (20, 30)), holes=holes, fill=7))[0]
    expected = plane[0].copy()
    expected[2:5, 3:9] = 7
    expected[18:, 28:] = 7
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("shape", [SHAPE, (1, 1), (3, 2)])
def test_holes_lie_inside_the_view(shape):
    holes = drawn(Cutout(count=3, probability=1.0, area=(0.0, 0.5)), shape)
    assert (holes[..., :2] >= 0).all()
    assert (holes[..., :2] <= holes[..., 2:]).all()
    assert (holes[..., 2:] <= shape).all()


def test_area_and_aspect_are_as_asked():
    holes = drawn(Cutout(probability=1.0, area=(0.05, 0.25)))[:, 0].astype(float)
    side = (holes[:, 2:] - holes[:, :2]) / SHAPE
    assert stats.kstest(side.prod(1), "uniform", (0.05, 0.2)).statistic < 0.03
    ratio = side[:, 1] / side[:, 0]
    assert 0.48 < ratio.min() < 0.53
    assert 1.9 < ratio.max() < 2.1


def test_holes_come_as_often_as_asked_and_reach_every_corner():
    holes = drawn(Cutout(count=2, probability=0.3))
    shown = holes[..., 2] > holes[..., 0]
    assert abs(shown.mean() - 0.3) < 5 * np.sqrt(0.21 / shown.size)
    both = shown.all(1).mean()
    assert abs(both - 0.09) < 5 * np.sqrt(0.09 * 0.91 / len(shown))
    assert (holes[shown][:, :2].min(0) <= 1).all()
    assert (holes[shown][:, 2:].max(0) >= np.array(SHAPE) - 1).all()


@pytest.mark.parametrize(
    ("key", "value"),
    [("count", 0), ("count", 17), ("probability", 1.2), ("area", (0.1, 0.6)), ("fill", 256)],
)
def test_what_is_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"^cutout\.{key}: "):
        Cutout(**{key: value})
