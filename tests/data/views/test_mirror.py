"""A mirrored view is the drawn view with its columns reversed, to the bit."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.cutout import Cutout
from lightning_rad.data.views.focus_crop import FocusCrop
from lightning_rad.data.views.focus_cutout import FocusCutout
from lightning_rad.data.views.focus_view import FocusView
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.mirror import mirrored
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.whole_image import WholeImage
from tests.data.views.rendering import noise_images, on_cpu, on_device, placed

SIZES = [(64, 80), (41, 37), (200, 180), (16, 300), (90, 91), (33, 64)] * 4
EVERY = np.ones(len(SIZES), np.bool_)
RECIPES = {
    "turned": lambda size: RandomView(size, crop=Crop(rotation=30.0)),
    "already mirrored at times": lambda size: RandomView(size, crop=Crop(flip=0.5)),
    "grey and blurred": lambda size: RandomView(
        size, crop=Crop(), intensity=Intensity(), blur=Blur()
    ),
    "whole": WholeImage,
}


def draw(recipe, seed=3):
    rows = np.arange(len(SIZES))
    return recipe.draw(np.array(SIZES), seed=seed, epochs=rows * 0, units=rows, view=0)


@pytest.mark.parametrize("size", [16, 33])
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("render", [on_cpu, on_device])
def test_columns_are_reversed_to_the_bit(name, size, render):
    images, params = noise_images(SIZES), draw(RECIPES[name](size))
    plain, other = render(images, params), render(images, mirrored(params, EVERY))
    assert (plain != other).any((1, 2)).all()
    np.testing.assert_array_equal(other, plain[:, :, ::-1])


@pytest.mark.parametrize("shape", [(20, 31), (31, 20), (5, 1)])
@pytest.mark.parametrize("render", [on_cpu, on_device])
def test_views_that_are_not_square_are_mirrored_about_their_own_middle(shape, render):
    images = noise_images([(40, 52), (61, 33)])
    params = placed(images, shape, degrees=7.0)
    got = render(images, mirrored(params, np.ones(2, np.bool_)))
    np.testing.assert_array_equal(got, render(images, params)[:, :, ::-1])


def test_only_the_rows_chosen_are_touched_and_the_draw_itself_is_not():
    params = draw(RECIPES["turned"](16))
    before = params.affine.copy()
    which = np.arange(len(SIZES)) % 3 == 0
    other = mirrored(params, which)
    np.testing.assert_array_equal(params.affine, before)
    np.testing.assert_array_equal(other.affine[~which], before[~which])
    assert (other.affine[which, :, 0] == -before[which, :, 0]).all()


def test_twice_mirrored_is_as_drawn():
    params = draw(RECIPES["turned"](16))
    again = mirrored(mirrored(params, EVERY), EVERY)
    np.testing.assert_array_equal(again.affine, params.affine)


def test_noise_and_holes_stay_where_they_are_in_the_view():
    recipe = RandomView(24, crop=Crop(), noise=Noise(), cutout=Cutout())
    params = draw(recipe)
    other = mirrored(params, EVERY)
    assert other == replace(params, affine=other.affine)


@pytest.mark.parametrize("render", [on_cpu, on_device])
def test_holes_that_were_chosen_by_saliency_go_with_what_they_cover(render):
    """Else data.shuffle.flip would lay a focus cut-out over what was looked at most."""
    images, size = noise_images(SIZES), len(SIZES)
    recipe = FocusView(24, crop=FocusCrop(flip=0.5), cutout=FocusCutout(probability=0.7))
    params = draw(recipe)
    which = np.arange(size) % 2 == 0
    before = params.holes.copy()
    plain, other = render(images, params), render(images, mirrored(params, which))
    np.testing.assert_array_equal(other[which], plain[which, :, ::-1])
    np.testing.assert_array_equal(other[~which], plain[~which])
    np.testing.assert_array_equal(params.holes, before)


@pytest.mark.parametrize("render", [on_cpu, on_device])
def test_a_shade_goes_with_what_it_darkens(render):
    images = noise_images(SIZES)
    shade = np.random.default_rng(0).integers(0, 256, (len(SIZES), 20, 24), dtype=np.uint8)
    params = replace(placed(images, (20, 24), degrees=9.0), shade=shade)
    which = np.arange(len(SIZES)) % 2 == 0
    plain, other = render(images, params), render(images, mirrored(params, which))
    np.testing.assert_array_equal(other[which], plain[which, :, ::-1])
    np.testing.assert_array_equal(other[~which], plain[~which])
    np.testing.assert_array_equal(params.shade, shade)
