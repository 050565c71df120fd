"""What was drawn for one view of each image of a batch: small, integral, the same for all backends.

Shape letters: B images, h w pixels of the view, R radius of the blur, N holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lightning_rad.kernels.render.units import KERNEL_UNIT

MAX_SIDE: Final = 16384
"""Longest image side in pixels for which 32-bit coordinates cannot overflow."""

CROP_EXHAUSTED: Final = 1
"""No window of a focus crop kept enough of the saliency."""

CUTOUT_EXHAUSTED: Final = 2
"""No rectangle of a focus cut-out covered little enough of it."""

BLANK: Final = 4
"""Nobody looked at the picture, as far as is known."""


@dataclass(frozen=True, slots=True)
class ViewParams:
    """One view of each of B images; row b says all about view b, whatever else is in the batch.

    shape: (h, w) of the views. sizes: [B, 2] int32, height and width of the images.
    factors: [B] int32, whole factor by which the image is box-averaged first.
    affine: [B, 2, 3] int32, rows x and y: pixel (x, y) of the view shows pixel
    `affine @ (x, y, 1) / 2^16` of the reduced image (see `geometry`).
    luts: [B, 256] uint8, the grey that replaces each grey.
    kernels: [B, 2R + 1] int32, symmetric, units of 1 / KERNEL_UNIT, applied along both axes.
    noise: [B, 3] int32, row and column of the noise tile, amplitude (see `noise`).
    holes: [B, N, 4] int32, rectangles (top, left, bottom, right), half open, painted with `fill`.
    shade: [B, h, w] uint8, or None for 255 everywhere: what greys are multiplied by, in units of
    1 / 255, after the noise and before the holes: (grey * shade + 127) // 255.
    exhausted: [B] uint8, or None where no saliency was looked at; says nothing of pixels: the sum
    of CROP_EXHAUSTED, CUTOUT_EXHAUSTED and BLANK that hold.
    """

    shape: tuple[int, int]
    sizes: npt.NDArray[np.int32]
    factors: npt.NDArray[np.int32]
    affine: npt.NDArray[np.int32]
    luts: npt.NDArray[np.uint8]
    kernels: npt.NDArray[np.int32]
    noise: npt.NDArray[np.int32]
    holes: npt.NDArray[np.int32]
    fill: int = 0
    shade: npt.NDArray[np.uint8] | None = None
    exhausted: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if self.sizes.size and not 1 <= self.sizes.min() <= self.sizes.max() <= MAX_SIDE:
            raise ValueError(f"image sides must be 1 to {MAX_SIDE} pixels: {self.sizes.tolist()}")

    def __len__(self) -> int:
        return len(self.factors)


def only_geometry(
    shape: tuple[int, int],
    sizes: npt.NDArray[np.integer[Any]],
    affine: npt.NDArray[np.int32],
    factors: npt.NDArray[np.int32],
) -> ViewParams:
    """Parameters that move pixels and leave their greys as they are."""
    b = len(factors)
    return ViewParams(
        shape=shape,
        sizes=np.asarray(sizes, np.int32),
        factors=factors,
        affine=affine,
        luts=np.tile(np.arange(256, dtype=np.uint8), (b, 1)),
        kernels=np.full((b, 1), KERNEL_UNIT, np.int32),
        noise=np.zeros((b, 3), np.int32),
        holes=np.zeros((b, 0, 4), np.int32),
    )
