from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.render_cpu import box_average, render_cpu
from tests.data.views.rendering import noise_images, on_cpu, placed


@settings(deadline=None, max_examples=100)
@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    factor=st.sampled_from([2, 3, 4, 6, 8, 12, 16]),
    white=st.booleans(),
)
def test_box_means_equal_means_computed_box_by_box(size, factor, white):
    image = np.full(size, 255, np.uint8) if white else noise_images([size])[0]
    got = box_average(image, factor)
    for row in range(-(-size[0] // factor)):
        for column in range(-(-size[1] // factor)):
            box = image[
                row * factor : (row + 1) * factor, column * factor : (column + 1) * factor
            ].astype(int)
            assert got[row, column] == (box.sum() + box.size // 2) // box.size
    assert got.shape == (row + 1, column + 1)


def test_the_image_is_left_alone_and_the_slot_wholly_overwritten():
    image = noise_images([(40, 50)])[0]
    before = image.copy()
    recipe = RandomView(16, crop=Crop(), blur=Blur(1.0), noise=Noise(1.0, (5.0, 5.0)))
    one = np.zeros(1, int)
    params = recipe.draw(np.array([image.shape]), seed=0, epochs=one, units=one, view=0)
    slots = np.stack([np.zeros((16, 16)), np.full((16, 16), 255)]).astype(np.uint8)
    for slot in slots:
        render_cpu(image, params, 0, slot)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(slots[0], slots[1])


def test_an_image_that_is_a_window_into_another_renders_as_its_copy():
    whole = noise_images([(70, 90)])[0]
    window = whole[3:64, 5:76]
    params = placed([window], (16, 17), degrees=20.0)
    np.testing.assert_array_equal(on_cpu([window], params), on_cpu([window.copy()], params))


def test_threads_render_what_one_thread_renders():
    images = noise_images([(90 + 3 * i, 100) for i in range(24)])
    recipe = RandomView(48, crop=Crop(), blur=Blur(1.0), noise=Noise(1.0))
    names = np.arange(24)
    sizes = np.array([image.shape for image in images])
    params = recipe.draw(sizes, seed=1, epochs=names, units=names, view=0)
    out = np.zeros((24, 48, 48), np.uint8)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: render_cpu(images[row], params, row, out[row]), range(24)))
    np.testing.assert_array_equal(out, on_cpu(images, params))


def test_image_and_slot_must_fit():
    image = noise_images([(8, 9)])[0]
    params, slot = placed([image], (4, 4)), np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="drawn for"):
        render_cpu(image.T, params, 0, slot)
    with pytest.raises(ValueError, match="drawn for"):
        render_cpu(image.astype(np.uint16), params, 0, slot)
    with pytest.raises(ValueError, match="slot must be"):
        render_cpu(image, params, 0, np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="slot must be"):
        render_cpu(image, params, 0, np.zeros((8, 4), np.uint8)[::2])
