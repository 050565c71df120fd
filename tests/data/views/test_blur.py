from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lightning_rad.data.views.blur import Blur, gaussian_kernels
from tests.data.views.rendering import noise_images, on_cpu, placed


@settings(deadline=None, max_examples=100)
@given(sigma=st.floats(0, 10), radius=st.integers(0, 40))
def test_kernels_are_symmetric_sum_to_one_and_are_gaussian_within_one_unit(sigma, radius):
    kernel = gaussian_kernels(np.array([sigma]), radius)[0]
    offset = np.arange(-radius, radius + 1)
    exact = np.exp(-0.5 * (offset / max(sigma, 1e-3)) ** 2)
    exact *= 256 / exact.sum()
    assert kernel.sum() == 256
    assert kernel.min() >= 0
    np.testing.assert_array_equal(kernel, kernel[::-1])
    np.testing.assert_allclose(kernel, exact, atol=1.001)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0, 4.0])
def test_a_blurred_view_equals_a_gaussian_filter(sigma):
    image = noise_images([(60, 50)])
    kernels = gaussian_kernels(np.array([sigma]), int(np.ceil(3 * sigma)))
    got = on_cpu(image, replace(placed(image, (60, 50)), kernels=kernels))[0]
    want = ndimage.gaussian_filter(image[0].astype(float), sigma, mode="nearest", truncate=4)
    assert np.abs(got - want).mean() < 0.6
    assert np.abs(got - want).max() < 3


def test_blur_comes_as_often_and_as_wide_as_asked():
    blur = Blur(probability=0.4, sigma=(0.8, 3.0))
    kernels = blur.draw(np.random.default_rng(0).random((4000, Blur.draws)))
    blurred = kernels[:, kernels.shape[1] // 2] < 256
    assert abs(blurred.mean() - 0.4) < 5 * np.sqrt(0.24 / 4000)
    offset = np.arange(kernels.shape[1]) - kernels.shape[1] // 2
    sigma = np.sqrt((kernels[blurred] * offset**2).sum(1) / 256)
    assert 0.7 < sigma.min() < 0.9
    assert 2.75 < sigma.max() < 3.05
    assert abs(np.median(sigma) - 1.9) < 0.15


@pytest.mark.parametrize(
    ("key", "value"),
    [("probability", 1.1), ("sigma", (-0.1, 1.0)), ("sigma", (0.1, 11.0)), ("sigma", (2.0, 1.0))],
)
def test_what_is_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"^blur\.{key}: "):
        Blur(**{key: value})
