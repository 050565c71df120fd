import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.data.views.whole_image import WholeImage
from tests.data.views.rendering import noise_images, on_cpu

ONE = np.zeros(1, int)


def shown(image, side, **names):
    names = {"seed": 0, "epochs": ONE, "units": ONE, "view": 0} | names
    return on_cpu([image], WholeImage(side).draw(np.array([image.shape]), **names))[0]


def test_an_image_of_the_right_size_is_unchanged():
    image = noise_images([(48, 48)])[0]
    np.testing.assert_array_equal(shown(image, 48), image)


def test_nothing_is_random():
    image = noise_images([(70, 50)])[0]
    other = {"seed": 9, "epochs": ONE + 1, "units": ONE + 2, "view": 1}
    np.testing.assert_array_equal(shown(image, 32), shown(image, 32, **other))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_whole_factor_gives_box_means(factor):
    image = noise_images([(20 * factor, 20 * factor)])[0]
    means = image.reshape(20, factor, 20, factor).mean((1, 3))
    np.testing.assert_allclose(shown(image, 20), means, atol=0.51)


@settings(deadline=None, max_examples=100)
@given(height=st.integers(1, 300), width=st.integers(1, 300), side=st.integers(8, 64))
def test_aspect_is_kept_the_image_centred_and_the_rest_black(height, width, side):
    got = shown(np.full((height, width), 255, np.uint8), side)
    scale = side / max(height, width)
    blend = 1.5 + scale / 2  # half a source pixel of interpolation towards the outside, and a box
    middle = np.abs(np.arange(side) + 0.5 - side / 2)
    half_height, half_width = height * scale / 2, width * scale / 2
    inside = np.logical_and.outer(middle < half_height - blend, middle < half_width - blend)
    touched = np.logical_and.outer(middle < half_height + blend, middle < half_width + blend)
    assert (got[inside] == 255).all()
    assert (got[~touched] == 0).all()


def test_the_edge_of_a_large_image_is_not_darkened_by_a_cut_off_box():
    got = shown(np.full((1023, 1023), 200, np.uint8), 500)
    assert got[:499, :499].min() == 200
    assert got.min() > 190
