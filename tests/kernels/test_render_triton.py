"""The Triton form of rendering, interpreted on a CPU, against the definition: equal to the bit."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lightning_rad.data.views.blur import gaussian_kernels
from lightning_rad.data.views.params import ViewParams
from lightning_rad.data.views.render_device import render_device
from lightning_rad.kernels.render.fused_triton import BLOCK
from lightning_rad.kernels.rows.fused_triton import INTERPRETED
from tests.data.views.rendering import any_params, noise_images, on_cpu, on_device, placed

Case = tuple[ViewParams, list[np.ndarray]]

if not INTERPRETED:
    pytest.skip("Triton is interpreted with TRITON_INTERPRET=1", allow_module_level=True)


def everything() -> Case:
    """All that can be drawn, over more than a block; the second view is sharp, clean and whole."""
    images = noise_images([(40, 70), (30, 50)])
    shape = 2 * BLOCK["ROWS"] + 3, BLOCK["COLUMNS"] + 6
    drawn = np.random.default_rng(0)
    return replace(
        placed(images, shape, degrees=8.0),
        luts=drawn.integers(0, 256, (2, 256), dtype=np.uint8),
        kernels=gaussian_kernels(np.array([1.5, 0.0]), 5),
        noise=np.array([[500, 490, 100], [3, 4, 0]], np.int32),
        holes=np.array([[[2, 3, 9, 30]], [[0, 0, 0, 0]]], np.int32),
        fill=9,
        shade=drawn.integers(0, 256, (2, *shape), dtype=np.uint8),
    ), images


def sharp() -> Case:
    """All of it in one kernel."""
    params, images = everything()
    return replace(params, kernels=np.full((2, 1), 256, np.int32)), images


def reduced() -> Case:
    """Boxes that the edges of the images cut off."""
    images = noise_images([(41, 67), (38, 59)], 1)
    return placed(images, (9, 11), extent=(67 * 1.1, 41 * 1.1)), images


def white() -> Case:
    """The largest sums that a blur makes, which fill 16 bits."""
    images = [np.full((12, 12), 255, np.uint8)]
    return replace(placed(images, (9, 9)), kernels=gaussian_kernels(np.array([3.0]), 9)), images


@pytest.mark.parametrize("case", [everything, sharp, reduced, white])
def test_every_grey_is_that_of_the_definition(case: Callable[[], Case]):
    params, images = case()
    want = on_device(images, params, (2, 3))
    np.testing.assert_array_equal(on_device(images, params, (2, 3), "fused"), want)


@pytest.mark.slow
# a failing case is not made smaller: the interpreter takes minutes for it
@settings(deadline=None, max_examples=20, phases=[Phase.reuse, Phase.generate])
@given(case=any_params(), spare=st.tuples(st.integers(0, 5), st.integers(0, 5)))
def test_every_grey_is_that_of_the_definition_whatever_is_drawn(case, spare):
    params, images = case
    want = on_device(images, params, spare)
    np.testing.assert_array_equal(on_device(images, params, spare, "fused"), want)
    sharp = replace(params, kernels=np.full((len(images), 1), 256, np.int32))
    got = on_device(images, sharp, spare, "fused")
    np.testing.assert_array_equal(got, on_cpu(images, sharp))


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_every_factor_agrees_on_a_size_that_no_factor_divides(factor):
    images = noise_images([(16 * 5 + 5, 16 * 6 + 7)], factor)
    params = placed(images, (5, 6), extent=(6.2 * factor, 5.2 * factor))
    assert params.factors.tolist() == [factor]
    got = on_device(images, params, (3, 2), "fused")
    np.testing.assert_array_equal(got, on_cpu(images, params))


def test_large_images_use_the_whole_range_of_coordinates():
    images = [np.arange(16384, dtype=np.uint16).astype(np.uint8)[None].repeat(3, 0)]
    params = placed(images, (3, 5), degrees=33.0)
    got = on_device(images, params, backend="fused")
    np.testing.assert_array_equal(got, on_cpu(images, params))


@pytest.mark.parametrize("backend", ["auto", "reference", "fused"])
def test_views_show_the_images_that_they_are_told_to(backend):
    images = noise_images([(30, 20), (24, 28), (9, 31)])
    which = [2, 0, 0, 1, 2]
    canvas = torch.full((3, 1, 33, 34), 77, dtype=torch.uint8)
    for row, image in enumerate(images):
        canvas[row, 0, : image.shape[0], : image.shape[1]] = torch.from_numpy(image)
    shown = [images[k] for k in which]
    params = placed(shown, (12, 10), degrees=20.0)
    got = render_device(canvas, params, torch.tensor(which), backend=backend)
    np.testing.assert_array_equal(got[:, 0].numpy(), on_cpu(shown, params))


def test_no_view_at_all_is_no_error():
    params = placed(noise_images([(5, 6)]), (4, 3))
    none = replace(
        params,
        **{
            name: getattr(params, name)[:0]
            for name in ("sizes", "factors", "affine", "luts", "kernels", "noise", "holes")
        },
    )
    canvas = torch.zeros(1, 1, 5, 6, dtype=torch.uint8)
    for backend in ("auto", "reference", "fused"):
        got = render_device(canvas, none, torch.tensor([], dtype=torch.int64), backend=backend)
        assert got.shape == (0, 1, 4, 3)
