"""Views by definition: PyTorch on any device, one step after another over the whole batch.

Integers throughout, so that neither TF32 nor the order of a sum can change a grey. Nothing waits
for the device: what decides the control flow (factors, widest blur, any noise) is on the host.

Shape letters: K images, B views, H W sides of the canvas, h w sides of a view, S side of the tile.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_rad.kernels.render.drawn import Drawn
from lightning_rad.kernels.render.units import FRACTION_BITS, KERNEL_UNIT, SHIFT, UNIT_BITS


def views_of(canvas_KHW: Tensor, which_B: Tensor | None, drawn: Drawn, tile_SS: Tensor) -> Tensor:
    """[B, h, w] uint8."""
    canvas_BHW = canvas_KHW if which_B is None else canvas_KHW[which_B]
    views = _map_greys(_warp(canvas_BHW, drawn), drawn)
    views = _darken(_add_noise(_blur(views, drawn), drawn, tile_SS), drawn)
    return _cut_holes(views.to(torch.uint8), drawn)


def _warp(canvas_BHW: Tensor, drawn: Drawn) -> Tensor:
    """[B, h, w] int32 greys, images grouped by the factor they are reduced by."""
    factors = np.unique(drawn.factors)
    if len(factors) == 1:
        return _sample(canvas_BHW, drawn.affine_B23, drawn.sizes_B2, int(factors[0]), drawn.shape)
    out = canvas_BHW.new_empty((len(drawn), *drawn.shape), dtype=torch.int32)
    for factor in factors:
        index = _on(canvas_BHW.device, np.flatnonzero(drawn.factors == factor))
        maps, sizes = drawn.affine_B23[index], drawn.sizes_B2[index]
        out[index] = _sample(canvas_BHW[index], maps, sizes, int(factor), drawn.shape)
    return out


def _on(device: torch.device, rows: npt.NDArray[np.intp]) -> Tensor:
    return torch.from_numpy(rows).to(device, non_blocking=True)


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
    canvas_BHW: Tensor, affine: Tensor, sizes: Tensor, factor: int, shape: tuple[int, int]
) -> Tensor:
    """[B, h, w] int32: bilinear interpolation in units of 1/32 pixel, 0 beyond the image."""
    device, (h, w) = canvas_BHW.device, shape
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


def _map_greys(views: Tensor, drawn: Drawn) -> Tensor:
    return drawn.luts_BG.gather(1, views.flatten(1).long()).view(views.shape).to(torch.int32)


def _blur(views: Tensor, drawn: Drawn) -> Tensor:
    """Both passes in whole numbers; taps that no kernel of the batch uses are skipped."""
    if drawn.taps == [0]:
        return views
    radius = drawn.kernels_BK.shape[1] // 2
    for axis in (1, 2):
        side = torch.arange(views.shape[axis], device=views.device)
        total = torch.zeros_like(views)
        for offset in drawn.taps:
            shifted = views.index_select(axis, (side + offset).clamp(0, views.shape[axis] - 1))
            total += drawn.kernels_BK[:, radius + offset, None, None] * shifted
        views = total
    unit = KERNEL_UNIT * KERNEL_UNIT
    return torch.div(views + unit // 2, unit, rounding_mode="floor")


def _add_noise(views: Tensor, drawn: Drawn, tile_SS: Tensor) -> Tensor:
    if not drawn.noisy:
        return views
    top, left, amplitude = drawn.noise_B3.unbind(1)
    rows = (top[:, None] + torch.arange(views.shape[1], device=views.device)) % len(tile_SS)
    columns = (left[:, None] + torch.arange(views.shape[2], device=views.device)) % len(tile_SS)
    tile = tile_SS.to(torch.int32)
    grain = tile[rows[:, :, None], columns[:, None, :]] * amplitude[:, None, None]
    return (views + ((grain + (1 << (SHIFT - 1))) >> SHIFT)).clamp(0, 255)


def _darken(views: Tensor, drawn: Drawn) -> Tensor:
    if drawn.shade_Bhw is None:
        return views
    return torch.div(views * drawn.shade_Bhw + 127, 255, rounding_mode="floor")


def _cut_holes(views: Tensor, drawn: Drawn) -> Tensor:
    lines = torch.arange(views.shape[1], device=views.device)[:, None]
    columns = torch.arange(views.shape[2], device=views.device)
    for hole in drawn.holes_BN4.unbind(1):
        top, left, bottom, right = hole[:, :, None, None].unbind(1)
        covered = (lines >= top) & (lines < bottom) & (columns >= left) & (columns < right)
        views = views.masked_fill(covered, drawn.fill)
    return views
