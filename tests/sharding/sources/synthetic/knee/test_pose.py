"""How a knee is taken: points turn with the picture, and no border hides a joint."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sharding.sources.synthetic.knee.test_knees import knees


def test_the_picture_and_the_points_in_it_turn_together() -> None:
    for knee, pose in knees(20, size=96):
        wide = pose.wide
        points = np.array([knee.point(x, y) for x in (-2.0, 0.0, 2.5) for y in (-2.0, 1.0)])
        column, row, _ = wide.pixels(points)
        for point, x, y in zip(points, column, row, strict=True):
            steps = np.arange(wide.size) + 0.5
            spot = np.exp(-(((steps - x)[None] ** 2) + (steps - y)[:, None] ** 2) / 4.0)
            turned = pose.turned(spot.astype(np.float32))
            at = np.array([(turned.sum(a) * (np.arange(96) + 0.5)).sum() for a in (0, 1)])
            expected = np.concatenate(pose.pixels(point[None]))
            assert at / turned.sum() == pytest.approx(expected, abs=0.05)


def test_borders_are_black_and_hide_no_joint() -> None:
    hidden = 0
    for knee, pose in knees(60, size=96):
        bright = pose.collimated(np.full((96, 96), 200, np.uint8))
        left, top, right, bottom = pose.borders
        assert bright.sum() == 200 * (96 - left - right) * (96 - top - bottom)
        corners = [knee.point(x, y) for x in (-4.4, 4.4) for y in (-1.5, 1.0)]
        column, row = pose.pixels(np.array(corners))
        inside = (column > 0) & (column < 96) & (row > 0) & (row < 96)
        assert (bright[row[inside].astype(int), column[inside].astype(int)] == 200).all()
        hidden += bool(max(pose.borders))
    assert 20 < hidden < 55
