"""Where readers look at a knee: at the joint, wherever the picture has it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lightning_rad.sharding.sources.synthetic.knee.gaze import look
from tests.sharding.sources.synthetic.knee.test_knees import knees


def test_readers_look_at_the_joint() -> None:
    near, total, area = 0.0, 0.0, []
    for k, (knee, pose) in enumerate(knees(40)):
        corners = [knee.point(*p) for p in ((-4.2, -1.3), (4.2, -1.3), (-4.2, 0.5))]
        column, row = pose.pixels(np.array(corners))
        at = np.stack([column, row], axis=1) / pose.camera.size
        sides = at[1:] - at[0]
        area.append(abs(np.linalg.det(sides)))
        for f in look(np.random.default_rng(k), knee, pose):
            assert 0 < f.x < 1
            assert 0 < f.y < 1
            assert f.seconds > 0
            place = np.linalg.solve(sides.T, np.array([f.x, f.y]) - at[0])
            total += f.seconds
            near += f.seconds * bool(((place > 0) & (place < 1)).all())
    assert near / total > 5 * np.mean(area)


def test_what_is_looked_at_turns_with_the_picture() -> None:
    for k, (knee, pose) in enumerate(knees(10)):
        paths = [
            look(np.random.default_rng(k), knee, replace(pose, roll=roll)) for roll in (0.0, np.pi)
        ]
        for one, other in zip(*paths, strict=True):
            # about the middle of the picture; each look is off by a little, in the same direction
            assert one.x + other.x == pytest.approx(1, abs=0.15)
            assert one.y + other.y == pytest.approx(1, abs=0.15)
