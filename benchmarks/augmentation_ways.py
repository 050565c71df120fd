"""Ways to one full augmentation of a batch, each view with parameters of its own.

All ways are handed the same crops in whole pixels, angles, mirrors, greys, sigmas and grain, and
give [B, 1, h, w] uint8. torchvision and kornia are taken at their best: by functions rather than by
transforms that would draw again, brightness, contrast and gamma as the formula that ours folds into
a table, grain ready made, and only views that are blurred are blurred by torchvision.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from torchvision.transforms.v2 import functional as tv

from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.geometry import affine_map
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import AMPLITUDE_UNIT, Noise, wrapped_tile
from lightning_rad.data.views.params import ViewParams, only_geometry
from lightning_rad.data.views.ranges import between
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.data.views.render_device import render_device
from lightning_rad.kernels.render.units import FRACTION_BITS, UNIT_BITS

SIZE = 224
TILE_SD = 32.0

Way = Callable[[], Tensor]
Ways = dict[str, Way | str]
"""By name; in place of one that is not here, the reason."""


@dataclass(frozen=True)
class Drawn:
    """boxes: [B] top, left, height, width. greys: [B, 3] gamma, slope, shift. grain: [B, h, w]."""

    images: Tensor
    boxes: list[list[int]]
    degrees: list[float]
    mirrored: list[bool]
    greys: Tensor
    sigmas: Tensor
    grain: Tensor
    params: ViewParams

    def to(self, device: str) -> Drawn:
        tensors = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)


def drawn(batch: int, side: int) -> Drawn:
    """Images [batch, 1, side, side] and what is drawn for each as configs/view/two_view.yaml does,
    mirrored in half of the cases."""
    rng = np.random.default_rng(side)
    share, ratio = rng.uniform(0.3, 1.0, batch), np.exp(rng.uniform(*np.log([0.8, 1.25]), batch))
    box = np.stack([np.sqrt(share / ratio), np.sqrt(share * ratio)], 1) * side
    box = np.minimum(np.rint(box), side).astype(int)
    corner = np.floor(rng.random((batch, 2)) * (side - box + 1)).astype(int)
    degrees, mirrored = rng.uniform(-10, 10, batch), rng.random(batch) < 0.5
    affine, factors = affine_map(
        (corner + box / 2)[:, ::-1].astype(float),
        box[:, ::-1].astype(float),
        degrees=degrees,
        mirrored=mirrored,
        shape=(SIZE, SIZE),
    )
    u = [rng.random((batch, part.draws)) for part in (Intensity, Blur, Noise)]
    grey, noise = Intensity(), Noise().draw(u[2])
    changed = (u[0][:, 0] < grey.probability)[:, None]
    power = grey.gamma ** between(u[0][:, 3], -1, 1)
    slope = between(u[0][:, 2], 1 - grey.contrast, 1 + grey.contrast)
    shift = between(u[0][:, 1], -grey.brightness, grey.brightness)
    greys = np.where(changed, np.stack([power, slope, shift], 1), [1.0, 1.0, 0.0])
    sigma = np.where(u[1][:, 0] < Blur().probability, between(u[1][:, 1], *Blur().sigma), 0.0)
    tile = wrapped_tile(SIZE, SIZE)
    grain = [tile[y : y + SIZE, x : x + SIZE] * (a / AMPLITUDE_UNIT / TILE_SD) for y, x, a in noise]
    geometry = only_geometry((SIZE, SIZE), np.full((batch, 2), side), affine, factors)
    return Drawn(
        _pictures(batch, side),
        np.concatenate([corner, box], 1).tolist(),
        degrees.tolist(),
        mirrored.tolist(),
        torch.tensor(greys, dtype=torch.float32),
        torch.tensor(sigma, dtype=torch.float32),
        torch.tensor(np.array(grain), dtype=torch.float32),
        replace(geometry, luts=grey.draw(u[0]), kernels=Blur().draw(u[1]), noise=noise),
    )


def _pictures(batch: int, side: int) -> Tensor:
    made = torch.Generator().manual_seed(side)
    coarse = torch.rand(batch, 1, 20, 20, generator=made)
    smooth = interpolate(coarse, (side, side), mode="bicubic")
    grain = torch.randn(smooth.shape, generator=made) * 0.015
    return ((smooth + grain).clamp(0, 1) * 255).round().to(torch.uint8)


def ways_of(given: Drawn, device: str) -> Ways:
    """Ours on the host first: the one that the others are compared with."""
    there = given.to(device)
    ways: Ways = {
        "render_cpu": partial(by_host, given),
        "render_device": lambda: render_device(there.images, there.params),
        "render_device, definition": lambda: render_device(
            there.images, there.params, backend="reference"
        ),
        "torchvision v2": partial(by_torchvision, there),
    }
    try:
        kornia = importlib.import_module("kornia")
    except ImportError as error:
        return ways | {"kornia": f"not here: {error}"}
    return ways | {
        "kornia, its antialiasing": partial(by_kornia, kornia, there, boxes=False),
        "kornia, our box averages": partial(by_kornia, kornia, there, boxes=True),
    }


def by_host(given: Drawn) -> Tensor:
    out = torch.empty(len(given.boxes), 1, SIZE, SIZE, dtype=torch.uint8)
    views, images = out.numpy(), given.images.numpy()
    for row in range(len(views)):
        render_cpu(images[row, 0], given.params, row, views[row, 0])
    return out


def by_torchvision(given: Drawn) -> Tensor:
    """One view after another: its functions take one set of parameters a call."""
    return torch.stack([_torchvision_view(given, row) for row in range(len(given.boxes))])


def _torchvision_view(given: Drawn, row: int) -> Tensor:
    (top, left, height, width), degrees = given.boxes[row], given.degrees[row]
    image, sides = given.images[row], given.images.shape[2:]
    # only what a turn brings into the crop is turned
    sin, cos = abs(np.sin(np.radians(degrees))), np.cos(np.radians(degrees))
    reach = (height * cos + width * sin) / 2 + 1, (width * cos + height * sin) / 2 + 1
    middle = top + height / 2, left + width / 2
    low = [max(0, int(m - r)) for m, r in zip(middle, reach, strict=True)]
    low = [min(low[0], top), min(low[1], left)]
    high = [min(n, int(m + r) + 1) for m, r, n in zip(middle, reach, sides, strict=True)]
    high = [max(high[0], top + height), max(high[1], left + width)]
    part = image[:, low[0] : high[0], low[1] : high[1]]
    # rotate counts its centre in corners of pixels
    centre = [middle[1] - low[1], middle[0] - low[0]]
    part = tv.rotate(part, degrees, interpolation=tv.InterpolationMode.BILINEAR, center=centre)
    view = tv.resized_crop(
        part, top - low[0], left - low[1], height, width, [SIZE, SIZE], antialias=True
    )
    view = tv.horizontal_flip(view) if given.mirrored[row] else view
    gamma, slope, shift = given.greys[row].tolist()
    view = tv.adjust_gamma(tv.to_dtype(view, torch.float32, scale=True), gamma)
    view = view.sub_(0.5).mul_(slope).add_(0.5 + shift).clamp_(0, 1)
    if sigma := float(given.sigmas[row]):
        sides = [2 * int(np.ceil(3 * sigma)) + 1] * 2
        view = tv.gaussian_blur(view, sides, [sigma, sigma])
    return _greys_of(view, given.grain[row])


def by_kornia(kornia: Any, given: Drawn, *, boxes: bool) -> Tensor:
    """One warp of the batch, after its own Gaussian or after averages of boxes, as ours."""
    images = given.images.float().div_(255)
    if boxes:
        views = torch.empty(len(images), 1, SIZE, SIZE, device=images.device)
        for factor in np.unique(given.params.factors).tolist():
            rows = np.flatnonzero(given.params.factors == factor)
            reduced = avg_pool2d(images[rows], factor, ceil_mode=True)
            matrix = _to_views(given.params, rows, factor, whole=False).to(images.device)
            views[rows] = kornia.geometry.warp_affine(reduced, matrix, (SIZE, SIZE))
    else:
        step = torch.tensor(given.boxes)[:, 2:].to(images.device) / SIZE
        sigma = ((step - 1) / 2).clamp_min(1e-3)
        sides = max(int(4 * float(sigma.max())), 3) | 1
        images = kornia.filters.gaussian_blur2d(images, (sides, sides), sigma)
        rows = np.arange(len(images))
        matrix = _to_views(given.params, rows, given.params.factors, whole=True)
        views = kornia.geometry.warp_affine(images, matrix.to(images.device), (SIZE, SIZE))
    gamma, slope, shift = (given.greys[:, k] for k in range(3))
    views = kornia.enhance.adjust_gamma(views, gamma)
    views = (views - 0.5).mul_(slope[:, None, None, None])
    views = views.add_(0.5 + shift[:, None, None, None]).clamp_(0, 1)
    reach = given.params.kernels.shape[1]
    sigma = given.sigmas.clamp_min(1e-3)[:, None].expand(-1, 2)
    views = kornia.filters.gaussian_blur2d(views, (reach, reach), sigma, "replicate")
    return _greys_of(views, given.grain[:, None])


def _to_views(params: ViewParams, rows: Any, factor: Any, *, whole: bool) -> Tensor:
    """[B, 2, 3] from pixels of the reduced images, or of the whole ones, to pixels of the views."""
    affine = params.affine[rows].astype(float)
    affine[:, :, 2] -= 1 << (UNIT_BITS - FRACTION_BITS - 1)
    affine /= 1 << UNIT_BITS
    if whole:
        affine *= np.reshape(factor, (-1, 1, 1))
        affine[:, :, 2] += (np.reshape(factor, (-1, 1)) - 1) / 2
    square = np.concatenate([affine, np.tile([[[0.0, 0.0, 1.0]]], (len(affine), 1, 1))], 1)
    return torch.tensor(np.linalg.inv(square)[:, :2], dtype=torch.float32)


def _greys_of(views: Tensor, grain: Tensor) -> Tensor:
    return views.mul(255).add_(grain).round_().clamp_(0, 255).to(torch.uint8)
