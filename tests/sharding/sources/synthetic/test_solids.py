from __future__ import annotations

import numpy as np
import pytest

from lightning_rad.sharding.sources.synthetic.solids import Ellipsoid, bezier, bullet, stack, tube


def test_an_ellipsoid_contains_what_lies_within_its_semi_axes() -> None:
    axes = np.array([[2.0, 1.0, 0.0], [-0.5, 1.0, 0.0], [0.0, 0.0, 3.0]])
    solid = Ellipsoid(np.array([1.0, 2.0, 3.0]), axes)
    assert solid.contains(solid.centre + 0.99 * axes).all()
    assert not solid.contains(solid.centre + 1.01 * axes).any()


def test_a_stack_is_empty_above_and_below_itself() -> None:
    pile = stack(0.0, 10.0, lambda t: (0 * t, 0 * t, 1 + t, 2 + 0 * t))
    inside = pile.contains(np.array([[0.0, y, 0.0] for y in (-0.1, 0.1, 9.9, 10.1)]))
    assert inside.tolist() == [False, True, True, False]
    assert pile.contains(np.array([[1.4, 5.0, 0.0], [1.6, 5.0, 0.0]])).tolist() == [True, False]


@pytest.mark.parametrize("cap", [4.0, -4.0])
def test_a_bullet_points_up_or_down_and_goes_on_the_other_way(cap: float) -> None:
    solid = bullet(5.0, cap, (0.0, 0.0), (2.0, 3.0))
    ahead = np.sign(cap)
    along = np.array([[0.0, 5.0 + ahead * d, 0.0] for d in (-0.1, 0.1, 20.0)])
    assert solid.contains(along).tolist() == [False, True, True]
    assert (np.diff(solid.y) > 0).all()


def test_a_tube_stands_for_the_length_of_its_curves() -> None:
    line = bezier(np.zeros(3), np.array([1.5, 0.0, 0.0]), np.array([3.0, 0.0, 0.0]), 40)
    assert tube(np.stack([line, line]), 0.2, 1.0).length.sum() == pytest.approx(6.0)
