"""Where each pixel of a view comes from: one affine map in fixed point, the same on all backends.

A view pixel (x, y), by its centre, shows a point of the source image. The source is first reduced
by a whole factor (box average), so that the warp, which is bilinear, shrinks by at most 1.6.
Coefficients are integers in units of 2^-16 pixel of the reduced image; the point is rounded to 1/32
pixel by dropping bits, the rounding offset being part of the constant term. All backends therefore
read the same four pixels with the same weights.

Quality: the factor is the largest of FACTORS up to REDUCE times the source pixels per view pixel
along the axis with fewer, so 0.8 to 1.6 of them (to 1.2 above a factor of two) are left to the
bilinear warp. Of gratings that a view can show 0.76 of the contrast is left on average, 0.79 by a
triangle filter as wide as the shrinking; of finer ones, which alias, 0.27, by that filter 0.13. An
anisotropic crop is antialiased for its finer axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.data.views.ranges import between, check_interval, check_within
from lightning_rad.kernels.render.units import FRACTION_BITS, UNIT_BITS

FACTORS: Final = np.array([1, 2, 3, 4, 6, 8, 12, 16])
"""Whole factors by which an image may be reduced before the warp."""

REDUCE: Final = 1.25
"""Above 1 a factor comes a little early: aliasing falls by a third, contrast by a tenth."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Crop:
    """Which part of the image a view shows: a random resized crop, turned a little.

    The interval of ratios is narrowed to what fits into the image at the drawn area, so the area
    is always as drawn. Corners that a turn moves out of the image are 0. No mirror by default
    because laterality matters in a radiograph: a mirrored chest shows the heart on the wrong side,
    as in situs inversus.

    Args:
        scale: Share of the image's area that is shown, uniform in an interval within 0.01 to 1.
        ratio: Width over height, log-uniform in an interval within 0.1 to 10.
        rotation: Largest angle in degrees, either way, uniform, 0 to 180; about the crop's centre.
        flip: Probability of a left-right mirror, 0 to 1.
    """

    scale: tuple[float, float] = (0.3, 1.0)
    ratio: tuple[float, float] = (0.8, 1.25)
    rotation: float = 10.0
    flip: float = 0.0

    draws: ClassVar[int] = 6

    def __post_init__(self) -> None:
        check_interval("crop.scale", self.scale, 0.01, 1.0)
        check_interval("crop.ratio", self.ratio, 0.1, 10.0)
        check_within("crop.rotation", self.rotation, 0.0, 180.0)
        check_within("crop.flip", self.flip, 0.0, 1.0)

    def draw(
        self, u: Floats, sizes: npt.NDArray[np.integer[Any]], shape: tuple[int, int]
    ) -> tuple[Ints, Ints]:
        """The affine map and factor of each crop, from u: [B, 6] uniforms and sizes: [B, 2]."""
        height, width = sizes[:, 0].astype(np.float64), sizes[:, 1].astype(np.float64)
        share = between(u[:, 0], *self.scale)
        narrowest, widest = share * width / height, width / (share * height)
        narrow, wide = (np.log(np.clip(bound, narrowest, widest)) for bound in self.ratio)
        ratio = np.exp(between(u[:, 1], narrow, wide))
        area = share * height * width
        extent = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], 1)
        room = np.maximum(np.stack([width, height], 1) - extent, 0.0)
        return affine_map(
            extent / 2 + room * u[:, 2:4],
            extent,
            degrees=between(u[:, 4], -self.rotation, self.rotation),
            mirrored=u[:, 5] < self.flip,
            shape=shape,
        )


def affine_map(
    centre: Floats,
    extent: Floats,
    *,
    degrees: Floats,
    mirrored: npt.NDArray[np.bool_],
    shape: tuple[int, int],
) -> tuple[Ints, Ints]:
    """Fixed-point maps ([B, 2, 3] int32) and factors ([B] int32) of rectangles of the source.

    centre, extent: [B, 2], x before y, of the rectangle in source pixels, where pixel i covers
    i to i + 1. degrees: [B], the rectangle is turned clockwise on the screen by this angle, so its
    contents turn anticlockwise in the view. mirrored: [B], left and right exchanged in the view.
    """
    out = np.array([shape[1], shape[0]], np.float64)
    step = extent / out
    factors = FACTORS[
        np.maximum(np.searchsorted(FACTORS, REDUCE * step.min(1), side="right") - 1, 0)
    ]
    step = step / factors[:, None] * 2.0**UNIT_BITS
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across = np.where(mirrored, -step[:, 0], step[:, 0])
    linear = np.rint(
        np.stack([cos * across, -sin * step[:, 1], sin * across, cos * step[:, 1]], 1)
    ).reshape(-1, 2, 2)
    middle = (centre / factors[:, None] - 0.5) * 2.0**UNIT_BITS
    half_unit = 1 << (UNIT_BITS - FRACTION_BITS - 1)
    constant = np.rint(middle + linear @ (0.5 - out / 2)) + half_unit
    affine = np.concatenate([linear, constant[:, :, None]], 2)
    return affine.astype(np.int32), factors.astype(np.int32)
