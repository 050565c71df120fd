from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.sharding.sources.synthetic.projection import (
    Camera,
    deposit,
    interval,
    path,
    without,
)
from lightning_rad.sharding.sources.synthetic.solids import Convex, Ellipsoid, Stack, stack, tube

VIEWS = ("PA", "AP", "LATERAL")


def camera(view: str, size: int = 48, turn: float = 0.0) -> Camera:
    return Camera(view, size, 36.0 / size, turn, (0.4, -0.3), 12.0, 180.0)


def marched(solid: Convex, eye: Camera, depth: float, softness: float) -> np.ndarray:
    """Line integrals by summing the density along every ray, knowing only the definition."""
    u, w = eye.frame
    columns, rows = eye.rays(depth)
    steps = np.linspace(-25.0, 25.0, 1501)
    total = np.zeros((eye.size, eye.size))
    for j, column in enumerate(columns):
        points = column * u + steps[:, None] * w
        for i, row in enumerate(rows):
            points[:, 1] = row
            inside = solid.contains(points)
            if softness and inside.any():
                offset = points[inside] - solid.centre
                r2 = np.einsum("ni,ij,nj->n", offset, np.linalg.inv(solid.spread), offset)
                total[i, j] = np.sum((1.0 - r2) ** softness)
            else:
                total[i, j] = inside.sum()
    return total * (steps[1] - steps[0])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("softness", [0.0, 1.5])
def test_the_path_through_a_tilted_ellipsoid_is_the_sum_along_the_ray(
    view: str, softness: float
) -> None:
    axes = np.array([[5.0, 2.0, 1.0], [-1.0, 3.0, 0.5], [0.3, -1.0, 4.0]])
    solid = Ellipsoid(np.array([2.0, 11.0, -1.5]), axes, softness)
    eye = camera(view, size=24, turn=0.12)
    want = marched(solid, eye, float(solid.centre @ eye.frame[1]), softness)
    assert want.max() > 3.0
    np.testing.assert_allclose(path(solid, eye), want, atol=0.12)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("exponent", "turn"), [(2.0, 0.2), (2.6, 0.0)])
def test_the_path_through_a_stack_is_the_sum_along_the_ray(
    view: str, exponent: float, turn: float
) -> None:
    pile = stack(2.0, 22.0, lambda t: (2 * t, 0 * t - 1, 3 + 4 * t, 5 - 2 * t), exponent)
    eye = camera(view, size=24, turn=turn)
    want = marched(pile, eye, float(pile.slices[:, :2].mean(axis=0) @ eye.frame[1][[0, 2]]), 0.0)
    assert want.max() > 3.0
    np.testing.assert_allclose(path(pile, eye), want, atol=0.15)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_without_measures_what_no_other_interval_covers(spans: list[tuple[int, int]]) -> None:
    covered = [set(range(start, start + length)) for start, length in spans]
    want = len(covered[0].difference(*covered[1:]))
    maps = [
        (np.full((1, 1), start, np.float32), np.full((1, 1), start + length, np.float32))
        for start, length in spans
    ]
    assert float(without(maps[0], maps[1:])[0, 0]) == pytest.approx(want)


@pytest.mark.parametrize("view", VIEWS)
def test_a_tube_casts_the_shadow_of_its_volume_at_any_angle(view: str) -> None:
    ends = np.array([[-3.0, 9.0, -2.0], [3.0, 14.0, 2.0]])
    line = ends[0] + np.linspace(0.0, 1.0, 400)[:, None] * (ends[1] - ends[0])
    eye = replace(camera(view, size=96), distance=1e6)
    shadow = deposit(tube(line, 0.6, 1.0), eye, 0.6)
    length = np.linalg.norm(ends[1] - ends[0])
    assert shadow.sum() * eye.pitch**2 == pytest.approx(np.pi * 0.6**2 * length, rel=0.01)


@pytest.mark.parametrize("view", VIEWS)
def test_points_and_solids_land_on_the_same_pixels(view: str) -> None:
    eye = camera(view, size=192, turn=0.1)
    centre = np.array([4.0, 15.0, 5.0])
    shadow = path(Ellipsoid(centre, np.eye(3)), eye)
    rows, columns = np.indices(shadow.shape) + 0.5
    column, row, _ = eye.pixels(centre[None])
    assert (shadow * columns).sum() / shadow.sum() == pytest.approx(column[0], abs=0.1)
    assert (shadow * rows).sum() / shadow.sum() == pytest.approx(row[0], abs=0.1)


def test_the_image_shows_the_patient_as_is_usual() -> None:
    left = np.array([[5.0, 12.0, 0.0]])
    behind = np.array([[0.0, 12.0, -8.0]])
    assert camera("PA").pixels(left)[0][0] > 24
    assert camera("AP").pixels(left)[0][0] > 24
    assert camera("LATERAL").pixels(behind)[0][0] > 24


def test_what_lies_in_front_is_larger_from_behind_the_bed() -> None:
    front = Ellipsoid(np.array([0.0, 12.0, 5.0]), 3.0 * np.eye(3))
    wide = {view: (path(front, camera(view, size=200)) > 0).sum() for view in ("PA", "AP")}
    assert wide["AP"] > 1.08 * wide["PA"]


def test_a_missed_solid_has_an_empty_interval() -> None:
    pile = Stack(np.array([0.0, 1.0]), np.array([[0.0, 0.0, 1.0, 1.0]] * 2))
    near, far = interval(pile, camera("PA"))
    assert (far >= near).all()
    assert (far == near).mean() > 0.9
