"""Parameters and one image to a view, on the host: OpenCV and NumPy, both of which free the GIL.

Everything up to the blur is integer arithmetic with the same result as `render_device`; the blur
may differ by one grey level where a sum lies exactly half-way between two greys.

OpenCV starts threads of its own: call `cv2.setNumThreads(1)` where worker threads call this.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.noise import wrapped_tile
from lightning_rad.data.views.params import ViewParams
from lightning_rad.kernels.render.units import FRACTION_BITS, KERNEL_UNIT, SHIFT, UNIT_BITS

Image = npt.NDArray[np.uint8]
Coordinates = npt.NDArray[np.int32]

_UNCHANGED: Final = bytes(range(256))


def render_cpu(image: Image, params: ViewParams, row: int, out: Image) -> None:
    """Write the view of an image that row `row` of the parameters describes into `out`.

    image: [H, W], as big as the parameters say. out: [h, w], C-contiguous, overwritten.
    Raises ValueError where image or slot do not fit the parameters.
    """
    if image.shape != tuple(params.sizes[row]) or image.dtype != np.uint8:
        raise ValueError(
            f"image is {image.dtype} {image.shape}, row {row} was drawn for {params.sizes[row]}"
        )
    if out.shape != params.shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"the slot must be C-contiguous uint8 {params.shape}, not {out.shape}")
    _warp(image, params.affine[row], int(params.factors[row]), out)
    if params.luts[row].tobytes() != _UNCHANGED:
        cv2.LUT(out, params.luts[row], dst=out)
    _blur(out, params.kernels[row])
    _add_noise(out, params.noise[row])
    if params.shade is not None:
        _darken(out, params.shade[row])
    for top, left, bottom, right in params.holes[row]:
        out[top:bottom, left:right] = params.fill


def box_average(image: Image, factor: int) -> Image:
    """[ceil(H / factor), ceil(W / factor)] means of square boxes, halves rounded up.

    A box cut off by the right or lower edge averages the pixels it has.
    """
    height, width = image.shape
    rows, columns = -(-height // factor), -(-width // factor)
    last_row, last_column = height - (rows - 1) * factor, width - (columns - 1) * factor
    if (last_row, last_column) != (factor, factor):
        pad = factor - last_row, factor - last_column
        image = cv2.copyMakeBorder(image, 0, pad[0], 0, pad[1], cv2.BORDER_CONSTANT, value=0)
    lines = cv2.add(image[0::factor], image[1::factor], dtype=cv2.CV_16U)
    for offset in range(2, factor):
        cv2.add(lines, image[offset::factor], dst=lines, dtype=cv2.CV_16U)
    sums = lines[:, 0::factor] + lines[:, 1::factor]
    for offset in range(2, factor):
        sums += lines[:, offset::factor]
    means = _divide(sums, factor * factor)
    means[-1] = _divide(sums[-1], last_row * factor)
    means[:, -1] = _divide(sums[:, -1], factor * last_column)
    means[-1, -1] = _divide(sums[-1, -1:], last_row * last_column)[0]
    return means


def _divide(sums: npt.NDArray[np.uint16], count: int) -> Image:
    return ((sums + np.uint16(count // 2)) // np.uint16(count)).astype(np.uint8)


def _warp(image: Image, affine: npt.NDArray[np.int32], factor: int, out: Image) -> None:
    """Reduce and resample; OpenCV's fixed-point maps carry our fractions, so it computes none."""
    height, width = out.shape
    columns, rows = np.arange(width, dtype=np.int32), np.arange(height, dtype=np.int32)[:, None]
    x = affine[0, 0] * columns[None] + affine[0, 2]
    y = affine[1, 1] * rows + affine[1, 2]
    if affine[0, 1] or affine[1, 0]:  # turned; else one row says all of x, one column all of y
        x = x + affine[0, 1] * rows
        y = y + affine[1, 0] * columns
    if factor > 1:
        image = _reduce_where_seen(image, factor, x, y)
    pixel = ((x >> UNIT_BITS) & ((1 << UNIT_BITS) - 1)) | (y & -(1 << UNIT_BITS))
    x >>= UNIT_BITS - FRACTION_BITS
    y >>= UNIT_BITS - 2 * FRACTION_BITS
    mask = (1 << FRACTION_BITS) - 1
    x &= mask
    y &= mask << FRACTION_BITS
    cv2.remap(
        image,
        pixel.view(np.int16).reshape(height, width, 2),
        x.astype(np.uint16) | y.astype(np.uint16),
        cv2.INTER_LINEAR,
        dst=out,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=0,
    )


def _reduce_where_seen(image: Image, factor: int, x: Coordinates, y: Coordinates) -> Image:
    """Box-average the rectangle that the coordinates touch; they are moved to count from it."""
    top, bottom = _seen(y, -(-image.shape[0] // factor))
    left, right = _seen(x, -(-image.shape[1] // factor))
    y -= top << UNIT_BITS
    x -= left << UNIT_BITS
    seen = image[top * factor : bottom * factor, left * factor : right * factor]
    return box_average(seen, factor)


def _seen(points: Coordinates, boxes: int) -> tuple[int, int]:
    """First box and one past the last that affine coordinates touch: corners are the extremes."""
    corners = points[[0, 0, -1, -1], [0, -1, 0, -1]] >> UNIT_BITS
    first = min(max(int(corners.min()), 0), boxes - 1)
    return first, min(max(int(corners.max()) + 2, first + 1), boxes)


def _blur(out: Image, kernel: npt.NDArray[np.int32]) -> None:
    radius = len(kernel) // 2
    if kernel[radius] == KERNEL_UNIT:
        return
    reach = int(np.flatnonzero(kernel)[-1]) - radius
    taps = kernel[radius - reach : radius + reach + 1].astype(np.float32) / KERNEL_UNIT
    cv2.sepFilter2D(out, -1, taps, taps, dst=out, borderType=cv2.BORDER_REPLICATE)


def _add_noise(out: Image, noise: npt.NDArray[np.int32]) -> None:
    top, left, amplitude = (int(v) for v in noise)
    if amplitude == 0:
        return
    height, width = out.shape
    window = wrapped_tile(height, width)[top : top + height, left : left + width]
    grain: npt.NDArray[Any] = window * np.int16(amplitude)
    grain += 1 << (SHIFT - 1)
    grain >>= SHIFT
    cv2.add(out, grain, dst=out, dtype=cv2.CV_8U)


def _darken(out: Image, shade: Image) -> None:
    """(grey * shade + 127) // 255 in 16 bits: with n = x + 128 it is (n + (n >> 8)) >> 8."""
    product = cv2.multiply(out, shade, dtype=cv2.CV_16U)
    product += 128
    product += product >> 8
    product >>= 8
    out[...] = product
