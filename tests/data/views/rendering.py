"""Renders parameters with either backend, for tests."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import strategies as st

from lightning_rad.data.views.blur import gaussian_kernels
from lightning_rad.data.views.geometry import affine_map
from lightning_rad.data.views.noise import TILE
from lightning_rad.data.views.params import only_geometry
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.data.views.render_device import render_device

WARM = 77
"""The grey of whatever must not show: unwritten slots, canvas beyond an image."""


def on_cpu(images, params):
    out = np.full((len(images), 1, *params.shape), WARM, np.uint8)
    for row, image in enumerate(images):
        render_cpu(image, params, row, out[row, 0])
    return out[:, 0]


def on_device(images, params, spare=(0, 0), backend="reference"):
    """Where `auto` would be the same as `on_cpu` on a machine without a GPU."""
    size = np.array([image.shape for image in images]).max(0) + spare
    canvas = torch.full((len(images), 1, *size.tolist()), WARM, dtype=torch.uint8)
    for row, image in enumerate(images):
        canvas[row, 0, : image.shape[0], : image.shape[1]] = torch.from_numpy(image)
    return render_device(canvas, params, backend=backend)[:, 0].numpy()


def noise_images(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in sizes]


def placed(images, shape, *, centre=None, extent=None, degrees=0.0, mirrored=False):
    """Geometry alone: one rectangle (x before y) for all images; left out, the whole image."""
    sizes = np.array([image.shape for image in images])
    b = len(images)
    centre = sizes[:, ::-1] / 2 if centre is None else np.tile(np.asarray(centre, float), (b, 1))
    extent = sizes[:, ::-1] * 1.0 if extent is None else np.tile(np.asarray(extent, float), (b, 1))
    affine, factors = affine_map(
        centre,
        extent,
        degrees=np.full(b, float(degrees)),
        mirrored=np.full(b, mirrored),
        shape=shape,
    )
    return only_geometry(shape, sizes, affine, factors)


any_side = st.one_of(st.integers(1, 9), st.integers(1, 150))


@st.composite
def any_params(draw):
    """Any rectangle, angle, table, kernel, noise and holes, far beyond what recipes draw."""
    b = draw(st.integers(1, 4))
    sizes = np.array(draw(st.lists(st.tuples(any_side, any_side), min_size=b, max_size=b)))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    affine, factors = affine_map(
        sizes[:, ::-1] * rng.uniform(-0.2, 1.2, (b, 2)),
        sizes[:, ::-1] * 2.0 ** rng.uniform(-4, 1, (b, 2)),
        degrees=rng.choice([0.0, 90.0, 180.0, rng.uniform(-180, 180)], b),
        mirrored=rng.random(b) < 0.5,
        shape=shape,
    )
    corners = rng.integers(0, 41, (b, draw(st.integers(0, 3)), 4))
    sigma = rng.uniform(0, draw(st.sampled_from([0.0, 0.5, 2.0, 10.0])), b)
    return replace(
        only_geometry(shape, sizes, affine, factors),
        luts=rng.integers(0, 256, (b, 256), dtype=np.uint8),
        kernels=gaussian_kernels(sigma, draw(st.integers(0, 30))),
        noise=rng.integers(0, [TILE, TILE, 256], (b, 3)).astype(np.int32)
        * rng.integers(0, 2, (b, 1), dtype=np.int32),
        holes=np.minimum(corners, [*shape, *shape]).astype(np.int32),
        fill=draw(st.integers(0, 255)),
        shade=rng.integers(0, 256, (b, *shape), dtype=np.uint8) if draw(st.booleans()) else None,
    ), noise_images(sizes, draw(st.integers(0, 2**32)))
