"""Views in one kernel, or in three where some view of the batch is blurred.

The first finds where a pixel comes from, averages the boxes of the image that its four taps are,
weighs them and looks the grey up: the reduced image is never written. A blur reads it along rows
into 16 bits, which hold the sums exactly, then along columns, as far as each view's own kernel
reaches. Grain, shade and holes go on in the registers of whichever kernel is the last. All of it
is the integer arithmetic of `reference`, so every grey is the same.

Bytes a view of h x w: what is seen of the image once, 1 written; blurred 6 h w more (1 + 2 out and
in each, and what taps share comes from the cache).

Shape letters: K images, B views, H W sides of the canvas, h w sides of a view.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_rad.kernels.render.drawn import Drawn
from lightning_rad.kernels.render.units import FRACTION_BITS, KERNEL_UNIT, SHIFT, UNIT_BITS

_UNIT_BITS = tl.constexpr(UNIT_BITS)
_FRACTION_BITS = tl.constexpr(FRACTION_BITS)
_ONE = tl.constexpr(1 << FRACTION_BITS)
_HALF_WEIGHT = tl.constexpr((1 << 2 * FRACTION_BITS) // 2)
_SHIFT = tl.constexpr(SHIFT)
_HALF_GREY = tl.constexpr(1 << (SHIFT - 1))
_SQUARE = tl.constexpr(KERNEL_UNIT * KERNEL_UNIT)
_HALF_SQUARE = tl.constexpr(KERNEL_UNIT * KERNEL_UNIT // 2)

BLOCK = {"ROWS": 8, "COLUMNS": 64, "num_warps": 4}
"""Pixels of a view that a program makes, and how; not tuned on a GPU yet."""


def views_of(canvas_KHW: Tensor, which_B: Tensor | None, drawn: Drawn, tile_SS: Tensor) -> Tensor:
    """[B, h, w] uint8."""
    h, w = drawn.shape
    views = canvas_KHW.new_empty(len(drawn), h, w)
    canvas_KHW = canvas_KHW.contiguous()
    grid = (len(drawn), triton.cdiv(h, BLOCK["ROWS"]), triton.cdiv(w, BLOCK["COLUMNS"]))
    blurred = drawn.taps != [0]
    last: tuple[Any, ...] = (
        tile_SS,
        drawn.noise_B3,
        drawn.shade_Bhw,
        drawn.holes_BN4,
        drawn.fill,
        len(tile_SS),
        drawn.holes_BN4.shape[1],
    )
    how = BLOCK | {"NOISY": drawn.noisy}
    row = drawn.affine_B23.stride(0)  # of every column of the table
    image = canvas_KHW, which_B, canvas_KHW.stride(0), canvas_KHW.stride(1)
    place = drawn.affine_B23, drawn.sizes_B2, drawn.factors_B, drawn.luts_BG
    _warp[grid](*image, *place, *last, views, row, h, w, LAST=not blurred, **how)
    if not blurred:
        return views
    sums = torch.empty_like(views, dtype=torch.uint16)
    kernels = drawn.kernels_BK, drawn.reach_B, drawn.kernels_BK.shape[1] // 2
    _across[grid](views, sums, *kernels, row, h, w, **BLOCK)
    _down[grid](sums, *kernels, *last, views, row, h, w, **how)
    return views


@triton.jit
def _pixels(h, w, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """The view, and rows [ROWS, 1] and columns [1, COLUMNS] of this program's pixels of it."""
    lines = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return tl.program_id(0).to(tl.int64), lines, columns, (lines < h) & (columns < w)


@triton.jit
def _finish(
    greys,
    b,
    lines,
    columns,
    shown,
    tile,
    noise,
    shade,
    holes,
    fill,
    side,
    many,
    row,
    h,
    w,
    NOISY: tl.constexpr,
):
    """Grain, shade and holes of some pixels."""
    if NOISY:
        top, left = tl.load(noise + b * row), tl.load(noise + b * row + 1)
        amplitude = tl.load(noise + b * row + 2)
        where = (top + lines) % side * side + (left + columns) % side
        grain = tl.load(tile + where, shown, 0).to(tl.int32) * amplitude
        greys += (grain + _HALF_GREY) >> _SHIFT
        greys = tl.minimum(tl.maximum(greys, 0), 255)
    if shade is not None:
        gain = tl.load(shade + b * h * w + lines * w + columns, shown, 0).to(tl.int32)
        greys = (greys * gain + 127) // 255
    for n in range(many):
        hole = holes + b * row + 4 * n
        covered = (lines >= tl.load(hole)) & (columns >= tl.load(hole + 1))
        covered = covered & (lines < tl.load(hole + 2)) & (columns < tl.load(hole + 3))
        greys = tl.where(covered, fill, greys)
    return greys


@triton.jit
def _mean(total, y, x, height, width, factor):
    """Of a box, halves rounded up, over what of it lies in the image; 0 outside."""
    rows = tl.minimum(tl.maximum(height - y, 1), factor)
    columns = tl.minimum(tl.maximum(width - x, 1), factor)
    count = rows * columns
    return (total + count // 2) // count


@triton.jit
def _grey(image, y, x, height, width, step, shown):
    inside = shown & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return tl.load(image + y.to(tl.int64) * step + x, inside, 0).to(tl.int32)


@triton.jit
def _warp(
    canvas,
    which,
    apart,
    step,
    affine,
    sizes,
    factors,
    luts,
    tile,
    noise,
    shade,
    holes,
    fill,
    side,
    many,
    out,
    row,
    h,
    w,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    NOISY: tl.constexpr,
    LAST: tl.constexpr,
):
    b, lines, columns, shown = _pixels(h, w, ROWS, COLUMNS)
    number = b
    if which is not None:
        number = tl.load(which + b)
    image = canvas + number * apart
    a = affine + b * row
    height, width = tl.load(sizes + b * row), tl.load(sizes + b * row + 1)
    factor = tl.load(factors + b * row)
    px = tl.load(a) * columns + (tl.load(a + 1) * lines + tl.load(a + 2))
    py = tl.load(a + 3) * columns + (tl.load(a + 4) * lines + tl.load(a + 5))
    fx = (px >> (_UNIT_BITS - _FRACTION_BITS)) & (_ONE - 1)
    fy = (py >> (_UNIT_BITS - _FRACTION_BITS)) & (_ONE - 1)
    # corners of the four boxes in pixels of the image
    left, top = (px >> _UNIT_BITS) * factor, (py >> _UNIT_BITS) * factor
    right, bottom = left + factor, top + factor
    nought = tl.zeros((ROWS, COLUMNS), tl.int32)
    ul, ur, ll, lr = nought, nought, nought, nought
    for j in range(factor):
        for i in range(factor):
            ul += _grey(image, top + j, left + i, height, width, step, shown)
            ur += _grey(image, top + j, right + i, height, width, step, shown)
            ll += _grey(image, bottom + j, left + i, height, width, step, shown)
            lr += _grey(image, bottom + j, right + i, height, width, step, shown)
    if factor > 1:
        ul = _mean(ul, top, left, height, width, factor)
        ur = _mean(ur, top, right, height, width, factor)
        ll = _mean(ll, bottom, left, height, width, factor)
        lr = _mean(lr, bottom, right, height, width, factor)
    upper = (_ONE - fx) * ul + fx * ur
    lower = (_ONE - fx) * ll + fx * lr
    greys = ((_ONE - fy) * upper + fy * lower + _HALF_WEIGHT) >> (2 * _FRACTION_BITS)
    # a row of the table of greys is four times as many bytes as the table has numbers
    greys = tl.load(luts + b * row * 4 + greys, shown, 0).to(tl.int32)
    if LAST:
        greys = _finish(
            greys,
            b,
            lines,
            columns,
            shown,
            tile,
            noise,
            shade,
            holes,
            fill,
            side,
            many,
            row,
            h,
            w,
            NOISY,
        )
    tl.store(out + b * h * w + lines * w + columns, greys.to(tl.uint8), shown)


@triton.jit
def _across(
    greys, out, kernels, reaches, radius, row, h, w, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Sums along rows, at most 255 units; pixels beyond the border repeat it."""
    b, lines, columns, shown = _pixels(h, w, ROWS, COLUMNS)
    reach = tl.load(reaches + b * row)
    middle = kernels + b * row + radius
    line = b * h * w + lines * w
    total = tl.zeros((ROWS, COLUMNS), tl.int32)
    for k in range(-reach, reach + 1):
        x = tl.minimum(tl.maximum(columns + k, 0), w - 1)
        total += tl.load(middle + k) * tl.load(greys + line + x, shown, 0).to(tl.int32)
    tl.store(out + line + columns, total.to(tl.uint16), shown)


@triton.jit
def _down(
    sums,
    kernels,
    reaches,
    radius,
    tile,
    noise,
    shade,
    holes,
    fill,
    side,
    many,
    out,
    row,
    h,
    w,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    NOISY: tl.constexpr,
):
    """Sums along columns, of at most 255 units squared, rounded half up; then the rest."""
    b, lines, columns, shown = _pixels(h, w, ROWS, COLUMNS)
    reach = tl.load(reaches + b * row)
    middle = kernels + b * row + radius
    total = tl.zeros((ROWS, COLUMNS), tl.int32)
    for k in range(-reach, reach + 1):
        y = tl.minimum(tl.maximum(lines + k, 0), h - 1)
        here = tl.load(sums + b * h * w + y * w + columns, shown, 0).to(tl.int32)
        total += tl.load(middle + k) * here
    greys = (total + _HALF_SQUARE) // _SQUARE
    greys = _finish(
        greys,
        b,
        lines,
        columns,
        shown,
        tile,
        noise,
        shade,
        holes,
        fill,
        side,
        many,
        row,
        h,
        w,
        NOISY,
    )
    tl.store(out + b * h * w + lines * w + columns, greys.to(tl.uint8), shown)
