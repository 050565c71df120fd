from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightning_rad.data.views.blur import Blur, gaussian_kernels
from lightning_rad.data.views.cutout import Cutout
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.render_device import normalise, render_device
from lightning_rad.data.views.whole_image import WholeImage
from tests.data.views.rendering import (
    any_params,
    any_side,
    noise_images,
    on_cpu,
    on_device,
    placed,
)


@settings(deadline=None, max_examples=250)
@given(case=any_params(), spare=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_backends_are_equal_within_one_grey_level_whatever_is_drawn(case, spare):
    params, images = case
    here, there = on_cpu(images, params).astype(int), on_device(images, params, spare).astype(int)
    assert np.abs(here - there).max() <= 1
    sharp = replace(params, kernels=np.full((len(images), 1), 256, np.int32))
    np.testing.assert_array_equal(on_cpu(images, sharp), on_device(images, sharp, spare))


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.tuples(any_side, any_side), min_size=1, max_size=3),
    side=st.integers(1, 70),
    seed=st.integers(0, 2**32),
)
def test_backends_are_equal_within_one_grey_level_on_what_recipes_draw(sizes, side, seed):
    images = noise_images(sizes, seed)
    full = RandomView(
        side,
        crop=Crop(scale=(0.05, 1.0), ratio=(0.2, 5.0), rotation=45.0, flip=0.5),
        intensity=Intensity(probability=1.0, invert=0.3, solarise=0.3),
        blur=Blur(probability=0.7, sigma=(0.0, 4.0)),
        noise=Noise(probability=0.7, sigma=(0.0, 30.0)),
        cutout=Cutout(count=3, area=(0.0, 0.5), fill=9),
    )
    names = np.arange(len(images))
    for recipe in (full, WholeImage(side)):
        params = recipe.draw(np.array(sizes), seed=seed, epochs=names, units=names, view=0)
        difference = on_cpu(images, params).astype(int) - on_device(images, params)
        assert np.abs(difference).max() <= 1


def test_every_factor_agrees_on_a_size_that_no_factor_divides():
    for factor in (1, 2, 3, 4, 6, 8, 12, 16):
        images = noise_images([(16 * 11 + 5, 16 * 13 + 7)], factor)
        params = placed(images, (11, 13), extent=(13.2 * factor, 11.2 * factor))
        assert params.factors.tolist() == [factor]
        np.testing.assert_array_equal(on_cpu(images, params), on_device(images, params, (3, 2)))


def test_a_shade_is_the_same_whole_number_for_every_grey_and_gain():
    """(grey * shade + 127) // 255, on both backends, to the bit; holes are painted afterwards."""
    greys = np.arange(256, dtype=np.uint8)[None].repeat(256, 0)
    params = replace(
        placed([greys], (256, 256)),
        shade=greys.T[None].copy(),
        holes=np.array([[[3, 4, 5, 6]]], np.int32),
        fill=200,
    )
    want = (greys.astype(int) * greys.T + 127) // 255
    want[3:5, 4:6] = 200
    for render in (on_cpu, on_device):
        np.testing.assert_array_equal(render([greys], params)[0], want)


def test_the_noise_is_darkened_too():
    params = placed([np.full((32, 32), 128, np.uint8)], (32, 32))
    noisy = replace(params, noise=np.array([[0, 0, 200]], np.int32))
    dark = replace(noisy, shade=np.full((1, 32, 32), 51, np.uint8))
    for render in (on_cpu, on_device):
        image = [np.full((32, 32), 128, np.uint8)]
        plain = render(image, noisy)[0].astype(int)
        assert np.ptp(plain) > 50
        np.testing.assert_array_equal(render(image, dark)[0], (plain * 51 + 127) // 255)


@pytest.mark.parametrize("threads", [1, 3])
def test_in_the_memory_of_the_host_the_views_are_those_of_the_host(threads):
    """Blur and all: not within a grey level, but the same, in any number of threads."""
    images = noise_images([(60, 50), (33, 71), (80, 80), (20, 90)])
    params = placed(images, (24, 30), degrees=7.0)
    params = replace(params, kernels=gaussian_kernels(np.array([0.4, 0.0, 1.0, 2.0]), 6))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = on_device(images, params, (4, 1), backend="auto")
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(got, on_cpu(images, params))


def test_large_images_use_the_whole_range_of_coordinates():
    images = [np.arange(16384, dtype=np.uint16).astype(np.uint8)[None].repeat(3, 0)]
    params = placed(images, (3, 5), degrees=33.0)
    np.testing.assert_array_equal(on_cpu(images, params), on_device(images, params))


def test_canvas_and_parameters_must_fit():
    images = noise_images([(8, 9)])
    params = placed(images, (4, 4))
    with pytest.raises(ValueError, match="does not fit"):
        render_device(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), params)
    with pytest.raises(ValueError, match="canvas must be"):
        render_device(torch.zeros(2, 1, 8, 9, dtype=torch.uint8), params)
    with pytest.raises(ValueError, match="2 for 1 views"):
        render_device(torch.zeros(1, 1, 8, 9, dtype=torch.uint8), params, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="backend: 'cuda' is not one of"):
        render_device(torch.zeros(1, 1, 8, 9, dtype=torch.uint8), params, backend="cuda")
    with pytest.raises(ValueError, match="canvas must be"):
        render_device(torch.zeros(1, 1, 8, 9), params)


@settings(deadline=None, max_examples=20)
@given(hnp.arrays(np.uint8, (2, 1, 5, 4)))
def test_normalise_equals_its_formula(views):
    got = normalise(torch.from_numpy(views), mean=0.5, std=0.25)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), (views / 255 - 0.5) / 0.25, atol=1e-6)
    assert normalise(torch.from_numpy(views), mean=0.5, std=0.25, dtype=torch.bfloat16).dtype == (
        torch.bfloat16
    )
