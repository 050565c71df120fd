"""Counts of how often numbers occur together: the one way in which a matrix is made here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SMALL = 2**31


def real(device: torch.device) -> torch.dtype:
    """What features are computed in: float64, float32 where there is none of it (mps)."""
    return torch.float32 if device.type == "mps" else torch.float64


def whole(size: int) -> torch.dtype:
    """The shorter type that can count as far."""
    return torch.int32 if size < SMALL else torch.int64


def counted(places: Sequence[Tensor], shape: Sequence[int], weight: Tensor | None = None) -> Tensor:
    """How often each place of an array of this shape is named, or the sum of the weights there.

    places: a tensor of whole numbers for each axis, each in 0..shape[axis]-1 (unchecked); they
    broadcast. weight: whole numbers, of the broadcast shape. Returns shape, float64 (mps: float32).
    Sums of whole numbers are exact in any order (to 2^53, on mps 2^24), so that every device gives
    the same ones. Does not wait for the host on CUDA, where `bincount` would.
    """
    size = math.prod(shape)
    index = places[0].to(whole(size))
    for place, width in zip(places[1:], shape[1:], strict=True):
        index = index * width + place
    flat = index.flatten()
    number = real(flat.device)
    amounts = None if weight is None else weight.flatten().to(number)
    if flat.device.type == "cpu":
        return torch.bincount(flat, amounts, minlength=size).to(number).view(*shape)
    if amounts is None:
        amounts = torch.ones((), dtype=number, device=flat.device).expand(len(flat))
    found = torch.zeros(size, dtype=number, device=flat.device)
    return found.scatter_add_(0, flat.long(), amounts).view(*shape)
