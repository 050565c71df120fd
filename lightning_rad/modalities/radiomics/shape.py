"""Shape of a mask in the plane, in pixels.

Source: pyradiomics 3.1, documentation and `cshape.c` of the class shape2D. The contour is that of
marching squares: it runs between the middles of edges from a pixel inside to one outside, and two
pixels that touch at a corner alone are apart. Its length and area are sums over the 2 x 2 squares.
Axes are those of the ellipse with the covariance of the pixels' centres, 4 square roots of its
eigenvalues; in a line of pixels the minor one and the elongation are 0. One pixel has no
elongation: NaN.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_rad.modalities.radiomics.counting import counted, real

NAMES: Final = (
    "elongation",
    "major_axis_length",
    "maximum_diameter",
    "mesh_surface",
    "minor_axis_length",
    "perimeter",
    "perimeter_surface_ratio",
    "pixel_surface",
    "sphericity",
)
# of a square by its corners inside, bits 1, 2, 4, 8 clockwise: 5 and 10 are the opposite ones
_CORNER: Final = (0.125, math.sqrt(0.5))
_HALF: Final = (0.5, 1.0)
_NOTCH: Final = (0.875, math.sqrt(0.5))
_OPPOSITE: Final = (0.25, 2 * math.sqrt(0.5))
_NONE: Final = (0.0, 0.0)
SQUARES: Final = (
    *(_NONE, _CORNER, _CORNER, _HALF, _CORNER, _OPPOSITE, _HALF, _NOTCH),
    *(_CORNER, _HALF, _OPPOSITE, _NOTCH, _HALF, _NOTCH, _NOTCH, (1.0, 0.0)),
)
"""Area inside and length of contour of each of the 16 squares."""


def shape(mask: Tensor) -> Tensor:
    """[R, 9] of [R, h, w] bool, in the order of NAMES."""
    number = real(mask.device)
    inside = pad(mask, (1, 1, 1, 1)).to(torch.uint8)
    upper, lower = inside[:, :-1], inside[:, 1:]
    code = upper[..., :-1] + 2 * upper[..., 1:] + 4 * lower[..., 1:] + 8 * lower[..., :-1]
    rows = torch.arange(len(mask), dtype=torch.int32, device=mask.device)[:, None]
    squares = counted((rows, code.flatten(1)), (len(mask), 16))
    # numbers, not a tensor of them: its way to a GPU would wait
    area = _sum_of(squares, [inside for inside, _ in SQUARES])
    length = _sum_of(squares, [contour for _, contour in SQUARES])
    pixels, major, minor = _axes(mask.to(number))
    features = {
        "elongation": (minor / major).sqrt(),
        "major_axis_length": 4 * major.sqrt(),
        "maximum_diameter": _diameter(mask),
        "mesh_surface": area,
        "minor_axis_length": 4 * minor.sqrt(),
        "perimeter": length,
        "perimeter_surface_ratio": length / area,
        "pixel_surface": pixels,
        "sphericity": 2 * (math.pi * area).sqrt() / length,
    }
    return torch.stack([features[name] for name in NAMES], 1)


def _sum_of(counts: Tensor, weights: list[float]) -> Tensor:
    """[R] of counts [R, K] and K weights."""
    parts = [weight * count for weight, count in zip(weights, counts.unbind(1), strict=True)]
    return torch.stack(parts).sum(0)


def _axes(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Number of pixels [R] and the two eigenvalues [R] of the covariance of their centres.

    Sums of whole numbers are exact, so that the covariance of a line is exactly singular. The
    smaller eigenvalue is the determinant over the larger one, not a difference of near numbers.
    """
    xs = torch.arange(mask.shape[2], dtype=mask.dtype, device=mask.device)
    ys = torch.arange(mask.shape[1], dtype=mask.dtype, device=mask.device)
    in_row, in_column = mask.sum(2), mask.sum(1)
    n = in_row.sum(1)
    x, y, across = in_column @ xs, in_row @ ys, (mask @ xs) @ ys
    xx = (n * (in_column @ xs**2) - x**2) / n**2
    yy = (n * (in_row @ ys**2) - y**2) / n**2
    xy = (n * across - x * y) / n**2
    major = (xx + yy) / 2 + (((xx - yy) / 2) ** 2 + xy**2).sqrt()
    determinant = (xx * yy - xy**2).clamp(min=0)
    return n, major, torch.where(major > 0, determinant / torch.where(major > 0, major, 1), 0)


def _diameter(mask: Tensor) -> Tensor:
    """[R] the greatest distance of two vertices of the contour.

    Vertices lie at half a pixel beside a row's pixels, or between two rows where they differ. The
    farthest two are the first or the last one of their rows, so that pairs of rows are enough.
    """
    beside, between = mask, pad(mask, (0, 0, 1, 0)) ^ pad(mask, (0, 0, 0, 1))
    first, last = (torch.cat(ends, 1) for ends in zip(_ends(beside), _ends(between), strict=True))
    height = mask.shape[1]
    # twice the places: whole numbers, and halves of a pixel beside a row's own pixels
    half = torch.ones(2 * height + 1, device=mask.device)
    half[height:] = 0
    ys = torch.arange(height, device=mask.device)
    above = torch.cat([2 * ys, 2 * torch.arange(height + 1, device=mask.device) - 1]).float()
    exists = last >= first
    none = torch.where(exists, 0.0, -torch.inf)
    first, last = (2 * first - half) * exists, (2 * last + half) * exists
    squared = (last[:, None] - first[:, :, None]).square_()
    squared += (above[:, None] - above).square()
    squared += none[:, None]
    farthest = (squared.amax(2) + none).amax(1).to(real(mask.device))
    return farthest.clamp(min=0).sqrt() / 2


def _ends(mask: Tensor) -> tuple[Tensor, Tensor]:
    """First and last True [R, rows] float of each row; the last before the first where none is."""
    xs = torch.arange(mask.shape[2], dtype=torch.int16, device=mask.device)
    first = torch.where(mask, xs, mask.shape[2]).amin(2)
    last = torch.where(mask, xs, -1).amax(2)
    return first.float(), last.float()
