"""Parameters and a batch of images to views, on any device: PyTorch, the twin of `render_cpu`.

Integers throughout, so that neither TF32 nor the order of a sum can change a grey. Nothing waits
for the device: what decides the control flow (factors, widest blur, any noise) is read on the host.

Shape letters: B images, H W sides of the canvas, h w sides of the view.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_rad.data.views.geometry import FRACTION_BITS, UNIT_BITS
from lightning_rad.data.views.noise import SHIFT, TILE, noise_tile
from lightning_rad.data.views.params import KERNEL_UNIT, ViewParams


def render_device(canvas: Tensor, params: ViewParams) -> Tensor:
    """[B, 1, h, w] uint8 views of images of any sizes, on the canvas's device.

    canvas: [B, 1, H, W] uint8, each image in the upper left corner; what lies beyond an image's
    own size is never shown. Raises ValueError where canvas and parameters do not fit.
    """
    biggest = params.sizes.max(0, initial=0)
    if canvas.dtype != torch.uint8 or canvas.shape[:2] != (len(params), 1):
        raise ValueError(f"canvas must be uint8 [{len(params)}, 1, H, W], not {canvas.shape}")
    if biggest[0] > canvas.shape[2] or biggest[1] > canvas.shape[3]:
        raise ValueError(f"an image of {biggest.tolist()} does not fit {tuple(canvas.shape[2:])}")
    views = _map_greys(_warp(canvas[:, 0], params), params)
    views = _blur(views, params)
    views = _darken(_add_noise(views, params), params)
    return _cut_holes(views.to(torch.uint8), params)[:, None]


def normalise(
    views: Tensor, *, mean: float, std: float, dtype: torch.dtype = torch.float32
) -> Tensor:
    """(grey / 255 - mean) / std, in float32, then cast."""
    return views.to(torch.float32).mul_(1.0 / (255.0 * std)).sub_(mean / std).to(dtype)


def _on(device: torch.device, array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array).to(device, non_blocking=True)


def _warp(canvas_BHW: Tensor, params: ViewParams) -> Tensor:
    """[B, h, w] int32 greys, images grouped by the factor they are reduced by."""
    factors = np.unique(params.factors)
    if len(factors) == 1:
        return _sample(canvas_BHW, params, np.arange(len(params)), int(factors[0]))
    out = canvas_BHW.new_empty((len(params), *params.shape), dtype=torch.int32)
    for factor in factors:
        rows = np.flatnonzero(params.factors == factor)
        index = _on(canvas_BHW.device, rows)
        out[index] = _sample(canvas_BHW[index], params, rows, int(factor))
    return out


def _reduce(canvas_BHW: Tensor, sizes_B2: Tensor, factor: int) -> Tensor:
    """Box means, halves rounded up; a box cut off by an image's edge averages what it has."""
    b, height, width = canvas_BHW.shape
    rows, columns = -(-height // factor), -(-width // factor)
    inside_BH = torch.arange(height, device=canvas_BHW.device) < sizes_B2[:, :1]
    inside_BW = torch.arange(width, device=canvas_BHW.device) < sizes_B2[:, 1:]
    canvas_BHW = canvas_BHW * inside_BH[:, :, None] * inside_BW[:, None, :]
    pad = (0, columns * factor - width, 0, rows * factor - height)
    boxes = torch.nn.functional.pad(canvas_BHW, pad).view(b, rows, factor, columns, factor)
    sums = boxes.sum((2, 4), dtype=torch.int32)
    starts = [torch.arange(n, device=canvas_BHW.device) * factor for n in (rows, columns)]
    counts = [(sizes_B2[:, i : i + 1] - starts[i]).clamp(1, factor) for i in (0, 1)]
    count = counts[0][:, :, None] * counts[1][:, None, :]
    return torch.div(sums + count // 2, count, rounding_mode="floor").to(torch.uint8)


def _sample(
    canvas_BHW: Tensor, params: ViewParams, rows: npt.NDArray[np.intp], factor: int
) -> Tensor:
    """[B, h, w] int32: bilinear interpolation in units of 1/32 pixel, 0 beyond the image."""
    device, (h, w) = canvas_BHW.device, params.shape
    affine = _on(device, params.affine[rows])
    sizes = _on(device, params.sizes[rows])
    if factor > 1:
        canvas_BHW = _reduce(canvas_BHW, sizes, factor)
        sizes = torch.div(sizes + factor - 1, factor, rounding_mode="floor")
    columns = torch.arange(w, dtype=torch.int32, device=device)
    lines = torch.arange(h, dtype=torch.int32, device=device)[:, None]
    points = [
        a[:, :1, None] * columns + (a[:, 1:2, None] * lines + a[:, 2:, None])
        for a in affine.unbind(1)
    ]
    one = 1 << FRACTION_BITS
    (x, fx), (y, fy) = (
        (p >> UNIT_BITS, (p >> (UNIT_BITS - FRACTION_BITS)) & (one - 1)) for p in points
    )
    flat = canvas_BHW.flatten(1)
    total = torch.zeros_like(x)
    for down, weight_y in ((0, one - fy), (1, fy)):
        for right, weight_x in ((0, one - fx), (1, fx)):
            tap = _tap(flat, canvas_BHW.shape[2], sizes, y + down, x + right)
            total += weight_y * weight_x * tap
    return (total + one * one // 2) >> (2 * FRACTION_BITS)


def _tap(flat: Tensor, stride: int, sizes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Greys at whole coordinates, 0 outside."""
    height, width = sizes[:, 0, None, None], sizes[:, 1, None, None]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    index = torch.where(inside, y * stride + x, 0).flatten(1).long()
    return flat.gather(1, index).view_as(x) * inside


def _map_greys(views: Tensor, params: ViewParams) -> Tensor:
    luts = _on(views.device, params.luts)
    return luts.gather(1, views.flatten(1).long()).view(views.shape).to(torch.int32)


def _blur(views: Tensor, params: ViewParams) -> Tensor:
    """Both passes in whole numbers; taps that no kernel of the batch uses are skipped."""
    radius = params.kernels.shape[1] // 2
    used = np.flatnonzero(params.kernels.any(0)) - radius
    if len(used) <= 1:
        return views
    kernels = _on(views.device, params.kernels)
    for axis in (1, 2):
        side = torch.arange(views.shape[axis], device=views.device)
        total = torch.zeros_like(views)
        for offset in used.tolist():
            shifted = views.index_select(axis, (side + offset).clamp(0, views.shape[axis] - 1))
            total += kernels[:, radius + offset, None, None] * shifted
        views = total
    unit = KERNEL_UNIT * KERNEL_UNIT
    return torch.div(views + unit // 2, unit, rounding_mode="floor")


def _add_noise(views: Tensor, params: ViewParams) -> Tensor:
    if not params.noise[:, 2].any():
        return views
    top, left, amplitude = _on(views.device, params.noise).unbind(1)
    rows = (top[:, None] + torch.arange(views.shape[1], device=views.device)) % TILE
    columns = (left[:, None] + torch.arange(views.shape[2], device=views.device)) % TILE
    tile = _on(views.device, noise_tile()).to(torch.int32)
    grain = tile[rows[:, :, None], columns[:, None, :]] * amplitude[:, None, None]
    return (views + ((grain + (1 << (SHIFT - 1))) >> SHIFT)).clamp(0, 255)


def _darken(views: Tensor, params: ViewParams) -> Tensor:
    if params.shade is None:
        return views
    shade = _on(views.device, params.shade)
    return torch.div(views * shade + 127, 255, rounding_mode="floor")


def _cut_holes(views: Tensor, params: ViewParams) -> Tensor:
    lines = torch.arange(views.shape[1], device=views.device)[:, None]
    columns = torch.arange(views.shape[2], device=views.device)
    for hole in _on(views.device, params.holes).unbind(1):
        top, left, bottom, right = hole[:, :, None, None].unbind(1)
        covered = (lines >= top) & (lines < bottom) & (columns >= left) & (columns < right)
        views = views.masked_fill(covered, params.fill)
    return views
