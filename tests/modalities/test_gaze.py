"""Fixations as maps of attention: the Gaussian each becomes, what does not count, the text form."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_rad.modalities.gaze import Saliency, heat_map, packed, unpacked

Fixations = Sequence[tuple[float, float, float]]
Floats = npt.NDArray[np.float64]


def literal(fixations: Fixations, size: tuple[int, int], side: int, spread: float) -> Floats:
    """A sum of Gaussians over each cell, one fixation and one cell after the other."""
    height, width = size
    sigma = spread * max(height, width)  # pixels
    total = np.zeros((side, side))
    for x, y, seconds in fixations:
        if not (0 <= x < 1 and 0 <= y < 1 and seconds > 0):
            continue
        for row in range(side):
            for column in range(side):
                mass = seconds
                for centre, cell, pixels in ((x, column, width), (y, row, height)):
                    low, high = cell / side * pixels, (cell + 1) / side * pixels
                    below = [
                        0.5 * math.erfc((centre * pixels - edge) / (sigma * math.sqrt(2)))
                        for edge in (low, high)
                    ]
                    mass *= below[1] - below[0]
                total[row, column] += mass
    return total / total.sum()


def mapped(fixations: Fixations, size: tuple[int, int], side: int, spread: float) -> Floats:
    found = heat_map(fixations, size, side=side, spread=spread)
    assert found is not None
    assert found.dtype == np.float32
    return found.astype(np.float64)


def moments(map_SS: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation along x and y, in fractions of the sides."""
    centres = (np.arange(len(map_SS)) + 0.5) / len(map_SS)
    profiles = (map_SS.sum(0), map_SS.sum(1))
    mean = np.array([p @ centres for p in profiles])
    spread = np.array(
        [math.sqrt(p @ (centres - m) ** 2) for p, m in zip(profiles, mean, strict=True)]
    )
    return mean, spread


points = st.tuples(st.floats(-0.2, 1.2), st.floats(-0.2, 1.2), st.floats(0, 3))


@given(
    st.lists(points, max_size=5),
    st.integers(50, 400),
    st.integers(50, 400),
    st.sampled_from([0.005, 0.03, 0.2]),
)
def test_a_map_is_the_sum_of_gaussians_written_out(
    fixations: Fixations, height: int, width: int, spread: float
) -> None:
    counting = [f for f in fixations if 0 <= f[0] < 1 and 0 <= f[1] < 1 and f[2] > 1e-6]
    found = heat_map(counting, (height, width), side=9, spread=spread)
    if not counting:
        assert found is None
        return
    assert found is not None
    np.testing.assert_allclose(
        found, literal(counting, (height, width), 9, spread), rtol=0, atol=2e-6
    )


def test_one_fixation_is_a_gaussian_of_the_spread_where_it_fell() -> None:
    mean, spread = moments(mapped([(0.4, 0.7, 0.3)], (300, 300), 256, 0.03))
    np.testing.assert_allclose(mean, [0.4, 0.7], atol=1e-4)
    np.testing.assert_allclose(spread, [0.03, 0.03], rtol=2e-3)


def test_its_density_is_the_gaussians_where_cells_are_small() -> None:
    found = mapped([(0.5, 0.25, 1.0)], (100, 100), 256, 0.05) * 256**2
    place = (np.arange(256) + 0.5) / 256
    squared = (place[None, :] - 0.5) ** 2 + (place[:, None] - 0.25) ** 2
    density = np.exp(-squared / (2 * 0.05**2)) / (2 * math.pi * 0.05**2)
    np.testing.assert_allclose(found, density, rtol=2e-3, atol=density.max() * 1e-5)


def test_the_gaussian_is_round_in_pixels_of_a_picture_that_is_not_square() -> None:
    _, (across, down) = moments(mapped([(0.5, 0.5, 1.0)], (100, 400), 128, 0.04))
    assert across * 400 == pytest.approx(0.04 * 400, rel=1e-2)
    assert down * 100 == pytest.approx(0.04 * 400, rel=1e-2)


def test_longer_stays_weigh_more() -> None:
    found = mapped([(0.2, 0.5, 3.0), (0.8, 0.5, 1.0)], (200, 200), 64, 0.03)
    assert found[:, :32].sum() == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        (1.07, 0.5, 1.0),
        (-0.1, 0.5, 1.0),
        (0.5, 1.0, 1.0),
        (0.5, 0.5, 0.0),
        (0.5, 0.5, -1.0),
        (math.nan, 0.5, 1.0),
        (0.5, math.inf, 1.0),
        (0.5, 0.5, math.nan),
        (0.5, 0.5, math.inf),
    ],
)
def test_what_is_outside_or_of_no_duration_does_not_count(other: Any) -> None:
    one = (0.2, 0.3, 0.5)
    np.testing.assert_array_equal(
        mapped([one, other], (90, 80), 16, 0.03), mapped([one], (90, 80), 16, 0.03)
    )
    assert heat_map([other], (90, 80), side=16, spread=0.03) is None


def test_nobody_looking_is_no_map() -> None:
    assert heat_map([], (90, 80), side=16, spread=0.03) is None


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.999999, 0.5), (0.5, 0.5)])
@pytest.mark.parametrize("spread", [0.005, 0.2])
def test_all_gaze_at_one_point_is_a_gaussian_there(
    place: tuple[float, float], spread: float
) -> None:
    x, y = place
    found = mapped([(x, y, 0.2)] * 7, (64, 64), 8, spread)
    assert found.sum() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(found, mapped([(x, y, 9.0)], (64, 64), 8, spread), atol=1e-7)
    assert found[int(y * 8), int(x * 8)] == found.max()


def test_text_keeps_a_map_to_a_255th_of_its_peak_in_a_kilobyte() -> None:
    found = mapped([(0.3, 0.4, 1.0), (0.7, 0.6, 2.0)], (300, 200), 64, 0.05)
    text = packed(found)
    back = unpacked(text)
    assert back.sum() == pytest.approx(1.0, abs=1e-6)
    scaled = back / back.max()
    np.testing.assert_allclose(scaled, found / found.max(), atol=0.5 / 255 + 1e-6)
    assert len(text) < 4096
    assert packed(back) == text  # nothing more is lost


def test_a_black_map_comes_back_black() -> None:
    assert not unpacked(packed(np.zeros((8, 8), np.float32))).any()


def png(grey: Any) -> str:
    return base64.b64encode(cv2.imencode(".png", grey)[1].tobytes()).decode()


def damaged() -> str:
    data = bytearray(base64.b64decode(png(np.zeros((64, 64), np.uint8))))
    return base64.b64encode(bytes(data[:40])).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no base64!", "not base64"),
        (None, "not base64"),
        ("", "not a PNG"),
        (base64.b64encode(b"GIF89a" * 9).decode(), "not a PNG"),
        (png(np.zeros((8, 9), np.uint8)), "9 x 8 cells"),
        (png(np.zeros((4, 4), np.uint8)), "4 x 4 cells"),
        (png(np.zeros((300, 300), np.uint8)), "300 x 300 cells"),
        (png(np.zeros((16, 16), np.uint16)), "16 bits"),
        (damaged(), "truncated"),
    ],
)
def test_what_is_no_map_is_refused_with_the_reason(text: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^saliency: .*{reason}"):
        unpacked(text)


@pytest.mark.parametrize(
    "map_",
    [np.zeros((8, 9)), np.zeros(64), np.full((8, 8), math.nan), np.full((8, 8), -1.0)],
)
def test_what_is_no_map_is_not_written(map_: Any) -> None:
    with pytest.raises(ValueError, match="a map of attention"):
        packed(map_)


@pytest.mark.parametrize(
    ("key", "value"),
    [("source", "seen"), ("side", 7), ("side", 257), ("spread", 0.004), ("spread", 0.3)],
)
def test_settings_out_of_range_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^saliency\.{key}: "):
        Saliency(**{key: value})
