"""`shards annotate` on pictures of any shape: maps of the picture alone, none of what is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from lightning_rad.cli.annotate import Maps, of_picture

SIDE = 16


def png(greys: np.ndarray) -> tuple[bytes, str]:
    return cv2.imencode(".png", greys)[1].tobytes(), "png"


def brightness(numbers: Tensor) -> Tensor:
    """Foretells that one looks where it is bright, and beside the picture most of all."""
    beside = (numbers == -1).float() * 5  # the letterbox is grey 0, pictures have none here
    return adaptive_avg_pool2d(numbers + 1 + beside, SIDE)[:, 0]


@pytest.mark.parametrize("size", [(64, 128), (128, 64), (96, 96), (300, 200)])
def test_what_is_said_of_the_square_beside_the_picture_is_cut_off(size: tuple[int, int]) -> None:
    """A bright spot is where it is in the picture, whatever its shape."""
    how = {"size": 128, "mean": 0.5, "std": 0.5}
    with ThreadPoolExecutor(1) as pool:
        maps = Maps(brightness, how, device=torch.device("cpu"), pool=pool)
        for x, y in ((0.2, 0.3), (0.7, 0.6), (0.9, 0.1)):
            greys = np.full(size, 1, np.uint8)
            centre = (int(x * size[1]), int(y * size[0]))
            cv2.circle(greys, centre, max(size) // 20, 255, -1)
            [found] = maps([png(greys)])
            assert found is not None
            assert found.shape == (SIDE, SIDE)
            assert found.dtype == np.uint8
            assert found.max() == 255
            inner = found[1:-1, 1:-1].astype(float)  # the letterbox shines into the border cells
            down, across = np.unravel_index(inner.argmax(), inner.shape)
            assert abs((across + 1.5) / SIDE - x) < 1.5 / SIDE
            assert abs((down + 1.5) / SIDE - y) < 1.5 / SIDE


def test_the_map_over_a_square_picture_is_the_map() -> None:
    maps = torch.rand(3, SIDE, SIDE)
    sizes = torch.tensor([[7, 7], [100, 100], [31, 31]])
    torch.testing.assert_close(of_picture(maps, sizes), maps, rtol=0, atol=1e-5)


def test_a_ramp_over_the_square_is_a_flatter_ramp_over_the_picture() -> None:
    """Of 1:2: cell i of the picture's S lies at (i + 1/2) / S of its half of the square."""
    centres = (torch.arange(SIDE) + 0.5) / SIDE
    ramp = centres.expand(1, SIDE, SIDE)  # across
    tall = of_picture(ramp, torch.tensor([[200, 100]]))[0]
    torch.testing.assert_close(tall, (0.25 + 0.5 * centres).expand(SIDE, SIDE))
    wide = of_picture(ramp, torch.tensor([[100, 200]]))[0]
    torch.testing.assert_close(wide, ramp[0])


def test_images_that_cannot_be_decoded_have_no_map_and_leave_the_others_theirs() -> None:
    how = {"size": 32, "mean": 0.5, "std": 0.5}
    rng = np.random.default_rng(0)
    good = [png(rng.integers(1, 255, (32, 32), np.uint8)) for _ in range(2)]
    broken = good[0][0][:-9], "png"
    with ThreadPoolExecutor(2) as pool:
        maps = Maps(brightness, how, device=torch.device("cpu"), pool=pool)
        first, second = maps(good)
        given = maps([broken, good[0], broken, good[1]])
        assert maps([broken]) == [None]
    assert given[0] is None
    assert given[2] is None
    assert np.array_equal(given[1], first)
    assert np.array_equal(given[3], second)


def test_maps_that_are_not_finite_are_an_error() -> None:
    how = {"size": 32, "mean": 0.5, "std": 0.5}
    with ThreadPoolExecutor(1) as pool:
        maps = Maps(lambda x: x[:, 0] * torch.nan, how, device=torch.device("cpu"), pool=pool)
        with pytest.raises(ValueError, match="not finite"):
            maps([png(np.full((32, 32), 9, np.uint8))])
