from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from lightning_rad.data.views.noise import TILE, Noise, noise_tile, wrapped_tile
from tests.data.views.rendering import on_cpu, placed


def test_the_tile_is_white_and_near_gaussian():
    tile = noise_tile().astype(float)
    assert abs(tile.mean()) < 5 * 32 / TILE
    assert abs(tile.std() - 32) < 0.3
    assert abs(stats.kurtosis(tile.ravel())) < 0.12
    assert abs(stats.skew(tile.ravel())) < 0.03
    for axis in (0, 1):
        for lag in (1, 2, TILE // 2):
            correlation = (tile * np.roll(tile, lag, axis)).mean() / tile.var()
            assert abs(correlation) < 5 / TILE


def test_windows_wrap_around():
    np.testing.assert_array_equal(
        wrapped_tile(600, 7)[TILE : TILE + 600, :TILE], np.vstack([noise_tile(), noise_tile()[:88]])
    )


@pytest.mark.parametrize("sigma", [0.5, 3.0, 20.0])
def test_a_grey_plane_gets_noise_of_the_strength_drawn(sigma):
    plane = [np.full((200, 300), 128, np.uint8)]
    noise = Noise(probability=1.0, sigma=(sigma, sigma)).draw(np.full((1, 4), 0.6))
    got = on_cpu(plane, replace(placed(plane, (200, 300)), noise=noise))[0].astype(float)
    assert abs(got.mean() - 128) < 0.1 + sigma * 0.02
    assert abs(got.std() - np.hypot(sigma, 0.29)) < 0.05 * sigma + 0.05


def test_noise_saturates_instead_of_wrapping():
    planes = [np.full((50, 50), grey, np.uint8) for grey in (0, 255)]
    noise = np.tile(np.int32([[3, 5, 255]]), (2, 1))
    dark, bright = on_cpu(planes, replace(placed(planes, (50, 50)), noise=noise))
    assert dark.max() < 140
    assert bright.min() > 115
    assert (dark == 0).mean() > 0.4
    assert (bright == 255).mean() > 0.4


def test_noise_comes_as_often_and_from_as_many_places_as_asked():
    drawn = Noise(probability=0.3, sigma=(1.0, 4.0)).draw(
        np.random.default_rng(0).random((4000, 4))
    )
    noisy = drawn[:, 2] > 0
    assert abs(noisy.mean() - 0.3) < 5 * np.sqrt(0.21 / 4000)
    assert drawn[noisy, 2].min() == 8
    assert drawn[noisy, 2].max() == 32
    assert drawn[:, :2].min() >= 0
    assert drawn[:, :2].max() < TILE
    assert len(np.unique(drawn[:, :2], axis=0)) > 3900


@pytest.mark.parametrize(
    ("key", "value"), [("probability", -1.0), ("sigma", (0.0, 31.0)), ("sigma", (-1.0, 3.0))]
)
def test_what_is_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"^noise\.{key}: "):
        Noise(**{key: value})
