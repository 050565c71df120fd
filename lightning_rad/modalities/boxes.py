"""Boxes: [..., 4] float (left, top, right, bottom) in pixels, half open.

The first pixel reaches from 0 to 1 and has its centre at 0.5.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped(boxes: Tensor, height: int, width: int) -> Tensor:
    """The boxes' parts in the image; one that lies outside, or is turned over, has no area."""
    left, top, right, bottom = boxes.unbind(-1)
    left, right = left.clamp(0, width), right.clamp(0, width)
    top, bottom = top.clamp(0, height), bottom.clamp(0, height)
    return torch.stack([left, top, torch.maximum(left, right), torch.maximum(top, bottom)], -1)


def area(boxes: Tensor) -> Tensor:
    """[...] square pixels, 0 of a box that is turned over."""
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def iou(one: Tensor, other: Tensor) -> Tensor:
    """[..., N, M] intersection over union of [..., N, 4] and [..., M, 4]; 0 where no area is."""
    one, other = one[..., :, None, :], other[..., None, :, :]
    first = torch.maximum(one[..., :2], other[..., :2])
    past = torch.minimum(one[..., 2:], other[..., 2:])
    common = area(torch.cat([first, past], -1))
    union = area(one) + area(other) - common
    return torch.where(union > 0, common / union.where(union > 0, torch.ones_like(union)), 0)


def scaled(boxes: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """The same boxes in a picture of another (height, width)."""
    down, across = new[0] / old[0], new[1] / old[1]
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([left * across, top * down, right * across, bottom * down], -1)


def filled(boxes: Tensor, height: int, width: int) -> Tensor:
    """[R, H, W] bool of [R, 4]: the pixels whose centres are in the box.

    A box with an area in the image that is too narrow for a centre gets the pixel at its middle;
    one without any area there gets none.
    """
    left, right = spans(boxes[:, 0], boxes[:, 2], width)
    top, bottom = spans(boxes[:, 1], boxes[:, 3], height)
    ys = torch.arange(height, device=boxes.device)
    xs = torch.arange(width, device=boxes.device)
    inside_y = (ys >= top[:, None]) & (ys < bottom[:, None])
    inside_x = (xs >= left[:, None]) & (xs < right[:, None])
    return inside_y[:, :, None] & inside_x[:, None]


def spans(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First pixel of an interval [...] and the one past its last, int64; equal where none is in.

    The interval is clipped to 0..size first. A number that is not finite makes it empty.
    """
    whole = low.isfinite() & high.isfinite() & (high > low)
    low = low.where(whole, torch.zeros_like(low)).clamp(0, size)
    high = high.where(whole, torch.zeros_like(high)).clamp(0, size)
    first, past = (low - 0.5).ceil().long(), (high - 0.5).ceil().long()
    middle = ((low + high) / 2).floor().long().clamp(max=size - 1)
    narrow = (past <= first) & (high > low)
    first, past = first.where(~narrow, middle), past.where(~narrow, middle + 1)
    return first, torch.maximum(first, past)
