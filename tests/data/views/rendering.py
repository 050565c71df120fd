"""Renders parameters with either backend, for tests."""

import numpy as np
import torch

from lightning_rad.data.views.geometry import affine_map
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


def on_device(images, params, spare=(0, 0)):
    size = np.array([image.shape for image in images]).max(0) + spare
    canvas = torch.full((len(images), 1, *size.tolist()), WARM, dtype=torch.uint8)
    for row, image in enumerate(images):
        canvas[row, 0, : image.shape[0], : image.shape[1]] = torch.from_numpy(image)
    return render_device(canvas, params)[:, 0].numpy()


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
