"""Regions of one padded size, prepared once for all families of features; and cutting boxes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from lightning_rad.modalities.boxes import spans
from lightning_rad.modalities.radiomics.bins import Bins, levels_of
from lightning_rad.modalities.radiomics.counting import counted

ROUND = 8


@dataclass(frozen=True, slots=True)
class Regions:
    """R regions in tiles of h x w.

    greys: [R, h, w] uint8. mask: [R, h, w] bool, perhaps all False. levels: [R, h, w] int16, 1 to
    `most` in the mask and 0 outside. rows: [R, 1] int32, the number of each region.
    populations: [R, most], how many pixels have each level. pixels: [R], how many there are.
    walk: [R, n] int16, the levels row after row with a column of 0 at the right of each, a row of 0
    above and one below: from one pixel to the next in a direction is always one and the same step,
    and what lies outside has level 0. So no direction needs bounds or wraps from line to line.
    """

    greys: Tensor
    mask: Tensor
    levels: Tensor
    most: int
    rows: Tensor
    populations: Tensor
    pixels: Tensor
    walk: Tensor

    @classmethod
    def of(cls, greys: Tensor, mask: Tensor, bins: Bins) -> Regions:
        """Of greys [R, h, w] uint8 and a mask [R, h, w] bool."""
        levels = levels_of(greys, mask, bins)
        rows = torch.arange(len(greys), dtype=torch.int32, device=greys.device)[:, None]
        walk = pad(levels, (0, 1, 1, 1)).flatten(1)
        populations = counted((rows, walk), (len(greys), bins.levels + 1))[:, 1:]
        pixels = populations.sum(1)
        return cls(greys, mask, levels, bins.levels, rows, populations, pixels, walk)

    @property
    def steps(self) -> tuple[int, int, int, int]:
        """Along the walk: to the right, down, down and right, down and left."""
        width = self.mask.shape[-1] + 1
        return 1, width, width + 1, width - 1

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """For each of the four directions the levels of all pixels and of their next ones."""
        for step in self.steps:
            yield self.walk[:, :-step], self.walk[:, step:]


def cut(
    greys: Tensor, boxes: Tensor, image: Tensor | None = None, *, side: int | None = None
) -> tuple[Tensor, Tensor]:
    """The boxes cut out of their images: tiles [R, h, w] of greys, and masks [R, h, w] bool.

    greys: [B, H, W]. boxes: [R, 4] left, top, right, bottom in pixels. image: [R] int64, the image
    of each box; None: box r is of image r, and R is B. Other shapes: ValueError. A pixel belongs
    to a box as `boxes.filled` says; each box lies in the upper left corner of its tile, 0 and False
    beyond.
    The tile is that of the largest box rounded up to a multiple of 8, which waits for the host
    once; with `side` it is side x side, nothing is waited for, and of a larger box the part at its
    upper left corner is taken.
    """
    _require_shapes(greys, boxes, image, side)
    if image is None:
        image = torch.arange(len(boxes), device=greys.device)
    height, width = greys.shape[-2:]
    left, right = spans(boxes[:, 0], boxes[:, 2], width)
    top, bottom = spans(boxes[:, 1], boxes[:, 3], height)
    exists = (right > left) & (bottom > top)
    if side is not None:
        h = w = side
    else:
        sizes = torch.stack([bottom - top, right - left], 1) * exists[:, None]
        largest = sizes.amax(0).tolist() if len(sizes) else [0, 0]
        h, w = (max(ROUND, -(-size // ROUND) * ROUND) for size in largest)
    ys = top[:, None] + torch.arange(h, device=greys.device)
    xs = left[:, None] + torch.arange(w, device=greys.device)
    mask = (ys < bottom[:, None])[:, :, None] & (xs < right[:, None])[:, None]
    mask = mask & exists[:, None, None]
    ys, xs = ys.clamp(0, height - 1), xs.clamp(0, width - 1)
    tiles = greys[image[:, None, None], ys[:, :, None], xs[:, None]]
    return tiles * mask, mask


def _require_shapes(greys: Tensor, boxes: Tensor, image: Tensor | None, side: int | None) -> None:
    if greys.dim() != 3 or 0 in greys.shape[1:]:
        raise ValueError(f"greys must be [B, H, W], not {list(greys.shape)}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"boxes must be [R, 4] (left, top, right, bottom), not {list(boxes.shape)}"
        )
    if image is None and len(boxes) != len(greys):
        raise ValueError(
            f"{len(boxes)} boxes of {len(greys)} images: give image, [R], the image of each box"
        )
    if image is not None and (image.shape != boxes.shape[:1] or image.dtype != torch.int64):
        raise ValueError(
            f"image must be [{len(boxes)}] int64, a number for each box, "
            f"not {list(image.shape)} {image.dtype}"
        )
    if side is not None and side < 1:
        raise ValueError(f"side must be at least 1, not {side}")
