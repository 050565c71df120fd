"""Temperatures, fixed or learned, and what they mean for the range of exponentials."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Learned(NamedTuple):
    """A temperature that is learned: its 0-d value, and a number it is kept at or above.

    The bound decides how sums stay in range, so that nothing has to wait for the value; a value
    below it counts as the bound, and gets the gradient of the bound.
    """

    value: Tensor
    least: float


def scale_of(temperature: float | Learned, like: Tensor) -> tuple[Tensor, bool]:
    """1 / t as a 0-d tensor, and whether exp((s - 1) / t) stays in range for every cosine s.

    In float32, or float64 where `like` is.

    At t = 0.025 the smallest, exp(-2 / t), is still a normal number of float32. Raises ValueError
    for a temperature, or bound of one, that is not positive, and for a tensor, of which no bound is
    known.
    """
    if isinstance(temperature, Tensor):
        raise ValueError("temperature: a tensor is learned as Learned(value, least)")
    dtype = torch.promote_types(like.dtype, torch.float32)
    least = temperature.least if isinstance(temperature, Learned) else float(temperature)
    if not least > 0:
        raise ValueError(f"temperature: {least} is not above 0")
    in_range = 2 / least <= -math.log(torch.finfo(dtype).tiny) - 7
    if isinstance(temperature, Learned):
        value = temperature.value.to(like.device, dtype)
        # the gradient passes, or a value at its bound could not come back
        return 1 / (value + (least - value).detach().clamp_min(0)), in_range
    return torch.full((), 1 / least, dtype=dtype, device=like.device), in_range


def shared(scale: Tensor, share: float) -> Tensor:
    """The same number, of whose gradient only a share is kept.

    For a loss that every rank makes of all rows, times the number of ranks, so that the mean over
    ranks of the gradients of rows is right: what all of them have in common is not divided.
    """
    return scale.detach() + share * (scale - scale.detach())
