"""From a heat map to the box of what is hot in it.

Shape letters: B maps, g their sides, P their places, D channels, S the sides at which a map is
looked at.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from lightning_rad.modalities.boxes import scaled

FALLBACK: Final = (24 / 224, 24 / 224, 200 / 224, 200 / 224)
"""Left, top, right, bottom of the box where no map has one, in fractions of the picture.

VITA-Group/CheXT has [24, 24, 200, 200] at 224 pixels, read here as two corners.
"""

FINEST: Final = 56
"""The side to which maps are made smooth: finer than any map of a whole network, and cheap."""

_PATIENCE: Final = 8


@torch.no_grad()
def heat_along(tokens_BPD: Tensor, weights_BD: Tensor) -> Tensor:
    """[B, g, g]: how far the channels of each place of a square map lie along some weights.

    Not rectified. In float32, or float64 where the patches are; autocast does not reach it.
    """
    with torch.autocast(tokens_BPD.device.type, enabled=False):
        wide = torch.promote_types(torch.float32, tokens_BPD.dtype)
        heat_BP = torch.einsum("bpd,bd->bp", tokens_BPD.to(wide), weights_BD.to(wide))
    side = isqrt(heat_BP.shape[1])
    return heat_BP.reshape(len(heat_BP), side, side)


@torch.no_grad()
def box_of_heat(
    heat_Bgg: Tensor, size: tuple[int, int], *, threshold: float = 0.5, shift: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Boxes [B, 4] in pixels of a picture of this (height, width), and whether each was found [B].

    Heat below zero is none. The map is made finer by bilinear interpolation, to at most 56 a side,
    and scaled from 0 to 1; the box is that of all pixels which reach `threshold` and are
    connected with the hottest one, over sides or corners. Where the map is empty, flat or not
    finite, or its box is the whole picture, the box is FALLBACK and found is False. shift: how far
    the map's places lie from the middles of the squares that it divides the picture into, in
    places, along both axes; 0.5 at most either way (`Encoder.patch_shift`).

    Source: the training of VITA-Group/CheXT, which takes the rectangle around one contour of the
    thresholded map, after a blur of 5 x 5 that an interpolated map has no need of, and chooses it
    by its coordinates; here the peak chooses. In float32, or float64 where the map is; waits for
    the host every few rounds of growing.
    """
    heat_Bgg = heat_Bgg.clamp(min=0)
    # asked of the map as it is: interpolating one that is flat leaves a last bit that is not
    uneven_B = heat_Bgg.amax((1, 2)) > heat_Bgg.amin((1, 2))
    heat_BSS, found_B = _scaled_to_one(_finer(heat_Bgg, size, shift))
    found_B = found_B & uneven_B
    side_y, side_x = heat_BSS.shape[1:]
    extent_B4 = _extent(_around_the_peak(heat_BSS, threshold))
    found_B = found_B & (extent_B4 != extent_B4.new_tensor([0, 0, side_x, side_y])).any(1)
    boxes_B4 = scaled(extent_B4.to(heat_BSS), (side_y, side_x), size)
    return torch.where(found_B[:, None], boxes_B4, fallback(boxes_B4, size)), found_B


def fallback(like: Tensor, size: tuple[int, int]) -> Tensor:
    """FALLBACK [4] in pixels of a picture of this (height, width), of a tensor's kind."""
    return scaled(like.new_tensor(FALLBACK), (1, 1), size)


def _finer(heat_Bgg: Tensor, size: tuple[int, int], shift: float) -> Tensor:
    """[B, S, S] by bilinear interpolation between the places of the map; beyond them it is even."""
    heat_Bgg = heat_Bgg if heat_Bgg.dtype == torch.float64 else heat_Bgg.float()
    for axis, whole in ((1, size[0]), (2, size[1])):
        old = heat_Bgg.shape[axis]
        new = max(old, min(whole, FINEST))
        number = torch.arange(new, dtype=heat_Bgg.dtype, device=heat_Bgg.device)
        middles = (number + 0.5) * (old / new) - 0.5
        places = (middles - shift).clamp(0, old - 1)
        before = places.floor().long()
        share = (places - before).view([-1 if a == axis else 1 for a in range(3)])
        one = heat_Bgg.index_select(axis, before)
        other = heat_Bgg.index_select(axis, (before + 1).clamp(max=old - 1))
        heat_Bgg = one + (other - one) * share
    return heat_Bgg


def _scaled_to_one(heat_BSS: Tensor) -> tuple[Tensor, Tensor]:
    """From 0 to 1 over each map, and which can be: others are 0 all over."""
    low, high = heat_BSS.amin((1, 2)), heat_BSS.amax((1, 2))
    usable_B = (high > low) & high.isfinite()  # both are NaN where any number is
    span = (high - low).where(usable_B, torch.ones_like(high))
    scaled_BSS = (heat_BSS - low[:, None, None]) / span[:, None, None]
    return scaled_BSS.where(usable_B[:, None, None], torch.zeros_like(heat_BSS)), usable_B


def _around_the_peak(heat_BSS: Tensor, threshold: float) -> Tensor:
    """[B, S, S] bool: what is hot and connected with the hottest pixel by its 8 neighbours."""
    hot_BSS = (heat_BSS >= threshold).to(heat_BSS.dtype)
    peak_B1 = heat_BSS.flatten(1).argmax(1, keepdim=True)
    grown = torch.zeros_like(heat_BSS).flatten(1).scatter_(1, peak_B1, 1.0).view_as(heat_BSS)
    while True:
        before = grown
        for _ in range(_PATIENCE):
            grown = max_pool2d(grown, 3, stride=1, padding=1) * hot_BSS
        if torch.equal(grown, before):
            return grown > 0


def _extent(inside_BSS: Tensor) -> Tensor:
    """[B, 4] int64: the first column and row, and the ones past the last; zeros where none is."""
    corners = []
    for along in (1, 2):  # columns, then rows
        line = inside_BSS.any(along).long()
        first = line.argmax(1)
        past = line.shape[1] - line.flip(1).argmax(1)
        corners.append((first, torch.where(line.any(1), past, 0)))
    (left, right), (top, bottom) = corners
    return torch.stack([left, top, right, bottom], 1)
