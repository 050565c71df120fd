"""Rows scaled to length 1, the first half of every cosine.

Shape letters: N rows, D features.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-6
"""Norm below which a row shrinks instead of being normalised; SimCLR's TensorFlow code uses
`tf.math.l2_normalize`, whose floor of 1e-12 is on the squared norm."""


def unit_rows(x_ND: Tensor) -> Tensor:
    """x / max(|x|, EPSILON), without overflow or underflow of the squares.

    Low precision is widened to float32 first. Differentiable once.
    """
    return cast(Tensor, _UnitRows.apply(x_ND))


class _UnitRows(torch.autograd.Function):
    """A function of its own, for autograd would go over the rows twice as often."""

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor) -> Tensor:
        """Each row is divided by its largest entry first: what is left is 1 long, or longer."""
        wide_ND = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))
        largest_N1 = wide_ND.abs().amax(1, keepdim=True).clamp_min_(EPSILON)
        unit_ND = wide_ND / largest_N1
        norm_N1 = torch.linalg.vector_norm(unit_ND, dim=1, keepdim=True)
        long_N1 = norm_N1 >= 1  # not so are rows below EPSILON alone, which only shrink
        norm_N1.clamp_min_(1)
        unit_ND /= norm_N1
        ctx.dtype = x_ND.dtype
        ctx.save_for_backward(unit_ND, largest_N1.mul_(norm_N1), long_N1)
        return unit_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream_ND: Tensor) -> Tensor:
        unit_ND, norm_N1, long_N1 = ctx.saved_tensors
        along_N1 = (unit_ND * upstream_ND).sum(1, keepdim=True).mul_(long_N1)
        across_ND = torch.addcmul(upstream_ND, unit_ND, along_N1, value=-1)
        return across_ND.div_(norm_N1).to(ctx.dtype)
